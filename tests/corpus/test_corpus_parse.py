"""Every real message is parsed, and those not fully understood are listed."""

import json
import time
from dataclasses import asdict

import pytest
from harness.cpu import yardstick

from corpus.messages import names, needs_corpus, read, table
from pipehandler.mail.parsed import Address
from pipehandler.parse import address
from pipehandler.parse.header import Header
from pipehandler.parse.message import parse

# Messages whose parsed form lacks something that their octets contain.
LACKING = {
    "address-missing", "addresses-left-out", "base64-after-padding", "boundary-missing", "boundary-not-found",
    "charset-replaced", "date-invalid", "decoder-failed", "defects-left-out", "depth-left-out", "field-too-long",
    "fields-left-out", "nul-replaced", "parameters-left-out", "parts-left-out", "transfer-encoding-unknown",
    "uuencode-broken",
}  # fmt: skip


@needs_corpus
def test_real_messages() -> None:
    """No exception, at a bounded cost, all text storable; and exactly the listed content is missing."""
    lacking: dict[tuple[str, ...], str] = {}
    for name in names():
        begin = time.process_time()
        parsed = parse(read(name))
        assert time.process_time() - begin < 80 * yardstick(), name
        json.dumps(asdict(parsed), ensure_ascii=False, default=str).encode("utf-8")
        codes = sorted({defect.code for defect in parsed.defects} & LACKING)
        if codes:
            lacking[(name,)] = " ".join(codes)
    assert lacking == table("not_fully_parsed.tsv")


@needs_corpus
def test_who_reads_an_address_list_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a strict reading is used, the lenient one agrees; and one is used for most of real mail."""
    fields = strict = 0
    by_mail_parser = Header._strict_addresses

    def compared(self: Header, name: str, body: str) -> list[Address] | None:
        nonlocal fields, strict
        found = by_mail_parser(self, name, body)
        fields += 1
        strict += found is not None
        assert found in (None, address.parse(body, 10_000).addresses)
        return found

    monkeypatch.setattr(Header, "_strict_addresses", compared)
    for message in names():
        parse(read(message))
    assert strict > 0.8 * fields > 1_000
