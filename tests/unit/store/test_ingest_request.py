"""One message as the arguments of pipehandler.ingest."""

import json

import pytest
from harness.submission import MESSAGE, submission

from pipehandler.mail.envelope import Envelope
from pipehandler.mail.outcome import STORE_UNAVAILABLE
from pipehandler.settings.config import Recipients
from pipehandler.store.errors import DataRefused
from pipehandler.store.ingest import check_size

LARGEST = 1_070_000_000
PREPENDED = b"Return-Path: <a@example.org>\n"


def test_every_value() -> None:
    """Each value of the envelope arrives under the name of its column; no two of them are alike here."""
    envelope = Envelope(
        sender="s@x",
        recipients=("a@x", "b@x"),
        original_recipients=("o@x", ""),
        queue_id="q",
        client_address="192.0.2.1",
        client_hostname="host",
        client_helo="helo",
        client_port=25,
        client_protocol="ESMTP",
        sasl_username="user",
    )
    request = submission(PREPENDED + MESSAGE, envelope=envelope, recipients=Recipients("known", "reject", "+-"))
    delivery, _, text, html, prepended, raw, contents = request.arguments()
    assert json.loads(delivery) == {
        "fingerprint": request.identity.former_fingerprint.hex(),
        "fingerprint_2": request.identity.fingerprint.hex(),
        "recipients": [
            {"recipient": "a@x", "original_recipient": "o@x"},
            {"recipient": "b@x", "original_recipient": None},
        ],
        "policy": "known",
        "expired": "reject",
        "delimiter": "+-",
        "sender": "s@x",
        "queue_id": "q",
        "mail_host": "mx.example.net",
        "ingress": "pipe",
        "client_address": "192.0.2.1",
        "client_hostname": "host",
        "client_helo": "helo",
        "client_port": 25,
        "client_protocol": "ESMTP",
        "sasl_username": "user",
        "received_at": "2026-09-07T10:00:00+09:00",
    }
    assert request.identity.former_fingerprint != request.identity.fingerprint
    assert (prepended, raw) == (PREPENDED, MESSAGE)
    assert (text, html, contents) == ("body\n", None, None)
    assert request.statement().count("%") == 7


def test_what_is_missing_is_null() -> None:
    """An empty value of the envelope is null; so is what Postfix has not prepended."""
    delivery, *_, prepended, raw, _ = submission(MESSAGE, sender="").arguments()
    found = json.loads(delivery)
    names = ("queue_id", "client_address", "client_hostname", "client_helo", "client_port", "client_protocol",
             "sasl_username")  # fmt: skip
    assert [found[name] for name in names] == [None] * len(names)
    assert found["recipients"] == [{"recipient": "user@example.com", "original_recipient": None}]
    assert found["sender"] == ""
    assert (prepended, raw) == (None, MESSAGE)


def test_characters_are_themselves() -> None:
    """An address beyond ASCII is not escaped, which would take up to three times the room."""
    assert "é@x" in submission(MESSAGE, "é@x").arguments()[0]


def test_contents_are_left_out() -> None:
    """Without store.attachments their contents are not sent."""
    raw = b"Content-Type: application/x\n\nabc"
    assert submission(raw).arguments()[-1] == [b"abc"]
    assert submission(raw, attachments=False).arguments()[-1] is None


class Sized(bytes):
    """Octets that only claim a size: a gigabyte is more than a test should take."""

    size = 0

    def __len__(self) -> int:
        return self.size


def sized(size: int) -> Sized:
    """Octets that claim this size."""
    octets = Sized()
    octets.size = size
    return octets


def test_largest() -> None:
    """Octets count once, characters four times, other values eight octets; lists as what is in them."""
    check_size(sized(LARGEST))
    check_size(sized(LARGEST - 8 - 8 - 12), 1, None, ["abc"])
    for arguments in (
        (sized(LARGEST + 1),),
        (sized(LARGEST - 7), None),
        (sized(LARGEST - 3), "a"),
        ([sized(LARGEST), b"a"],),
        (sized(LARGEST - 11), ["abc", None]),
    ):
        with pytest.raises(DataRefused, match="larger than the protocol allows") as refused:
            check_size(*arguments)
        assert (refused.value.outcome, refused.value.sqlstate) == (STORE_UNAVAILABLE, "54000")
