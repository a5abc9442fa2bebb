"""Our reading of real messages compared with that of other projects' test suites.

Where they differ, justified.tsv records why ours is kept: file, field, reason. The list is exact: a difference that no
longer exists is also a failure.
"""

from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any

import pytest

from corpus import expectations
from corpus.expectations import Expectation, digest, trimmed
from corpus.messages import needs_corpus, read, table
from pipehandler.mail.parsed import Address, ParsedMessage
from pipehandler.parse import mime, transfer_encoding
from pipehandler.parse.defect import Notebook
from pipehandler.parse.limits import Limits
from pipehandler.parse.message import parse

ABSENT = "absent"


def ours(parsed: ParsedMessage, field: str, expected: Any) -> Any:
    """The value of `field` in the shape of `expected`."""
    lists = {
        "from": parsed.from_, "to": parsed.to, "cc": parsed.cc, "reply-to": parsed.reply_to,
        "sender": parsed.sender,
    }  # fmt: skip
    if field in lists:
        return [(each.name, each.address) for each in lists[field]]
    if field.endswith(" address"):
        return _first(lists[field.removesuffix(" address")])
    if field == "date":
        return _date(parsed, expected)
    if field in ("subject", "text", "html", "message_id"):
        value = getattr(parsed, field)
        return (value or None) if field == "subject" and isinstance(expected, str) else trimmed(value)
    if field == "attachments":
        return [attachment.file_name for attachment in parsed.attachments]
    what, number = field.split()
    if int(number) > len(parsed.attachments):
        return ABSENT
    attachment = parsed.attachments[int(number) - 1]
    if what == "content":
        return (
            attachment.content
            if isinstance(expected, bytes)
            else trimmed(attachment.content.decode("utf-8", "replace"))
        )
    if what == "sha256":
        # Fetched over IMAP, the lines end with CRLF, and that project strips trailing blanks.
        fetched = attachment.content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n").rstrip()
        return expected if expected in (digest(attachment.content), digest(fetched)) else digest(attachment.content)
    return {"name": attachment.file_name, "type": attachment.content_type}[what]


def _first(addresses: list[Address]) -> str | None:
    return addresses[0].address if addresses else None


def _date(parsed: ParsedMessage, expected: str | None) -> str | None:
    if parsed.date is None:
        return None
    in_utc = (expected or "").endswith("+00:00")
    return (parsed.date.astimezone(UTC) if in_utc else parsed.date).isoformat()


def leaves(raw: bytes) -> dict[str, bytes]:
    """The decoded content of each part that is not divided, with one line break at its end or none cut off."""
    found = {}
    for part in mime.scan(raw, Limits(), Notebook()).leaves():
        content = transfer_encoding.decode(raw, part.start, part.end, part.transfer_encoding, lambda code, detail: None)
        found[part.number] = ABSENT.encode() if part.content_type == "message/rfc822" else content
    return found


def differences(source: Callable[[], Iterator[Expectation]]) -> Iterator[tuple[tuple[str, str], str]]:
    """The differences: (file, field), and both values."""
    for file, field, expected in source():
        if field.startswith("leaf "):
            found: Any = leaves(read(file))
            number = field.removeprefix("leaf ")
            # An attached message stays whole: its parts are not counted as ours.
            whole = any(found.get(number[:end]) == ABSENT.encode() for end in range(1, len(number) + 1))
            value = expected if whole else found.get(number, ABSENT.encode())
            expected, value = (each.replace(b"\r\n", b"\n").rstrip(b"\n") for each in (expected, value))
        else:
            value = ours(parse(read(file)), field, expected)
        if value != expected:
            yield (file, field), f"expected {expected!r:.300}, ours {value!r:.300}"


@needs_corpus
@pytest.mark.parametrize("project", ["stalwart", "mime4j", "email2dict", "webklex"])
def test_as_expected_or_justified(project: str) -> None:
    """We find what another parser's test suite expects, or there is a reason why not."""
    source = getattr(expectations, project)
    found = dict(differences(source))
    files = {expectation[0] for expectation in source()}
    assert len(files) >= {"stalwart": 100, "mime4j": 60, "email2dict": 7, "webklex": 30}[project]
    justified = {key: why for key, why in table("justified.tsv").items() if key[0] in files}
    surprising = [f"{key}: {text}" for key, text in found.items() if key not in justified]
    assert not surprising, "\n".join(surprising)
    assert not justified.keys() - found.keys(), "no longer different"
