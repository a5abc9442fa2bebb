"""What was parsed, in the form that the SQL functions take: every value under the name of its column."""

import json
from dataclasses import fields, replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from pipehandler.mail.parsed import Address, Attachment, Defect, ParsedMessage
from pipehandler.store.view import expression, view

ATTACHMENT = Attachment("1.2", "text/x", b"abc", "a.txt", "id", "inline", "https://x", "d", {"a": "b"})
WHOLE = ParsedMessage(
    message_id="m@x",
    in_reply_to=["r@x"],
    references=["s@x"],
    date=datetime(2026, 11, 26, 1, 0, tzinfo=timezone(timedelta(hours=9))),
    date_offset=540,
    subject="subject",
    **{name: [Address("n", f"{name}@x", "g")] for name in ("from_", "sender", "reply_to", "to", "cc", "bcc")},
    list_id="list",
    list_unsubscribe=["https://u"],
    list_unsubscribe_post=True,
    auto_submitted="auto-replied",
    precedence="bulk",
    text="text",
    html="html",
    text_from_html="shown",
    preview="preview",
    header=[("Subject", "subject"), ("X", "y")],
    attachments=[ATTACHMENT, replace(ATTACHMENT, part="2", content=b"", file_name=None)],
    authentication={"spf": "pass"},
    defects=[Defect("code", "where", "detail")],
    report={"kind": "k"},
    error="error",
)
SHA256 = (
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
)


def described(ordinal: int, part: str, size: int, name: str | None) -> dict[str, Any]:
    """An attachment of WHOLE."""
    return {
        "ordinal": ordinal,
        "part": part,
        "file_name": name,
        "content_type": "text/x",
        "content_id": "id",
        "disposition": "inline",
        "size": size,
        "sha256": SHA256[ordinal - 1],
        "content_location": "https://x",
        "content_description": "d",
        "parameters": {"a": "b"},
    }


EXPECTED = {
    "message_id": "m@x",
    "in_reply_to": ["r@x"],
    "reference_ids": ["s@x"],
    "date": "2026-11-25T16:00:00+00:00",
    "date_offset": 540,
    "subject": "subject",
    **{
        f"{name}_list": [{"name": "n", "address": f"{name}{'_' * (name == 'from')}@x", "group": "g"}]
        for name in ("from", "sender", "reply_to", "to", "cc", "bcc")
    },
    "list_id": "list",
    "list_unsubscribe": ["https://u"],
    "list_unsubscribe_post": True,
    "auto_submitted": "auto-replied",
    "precedence": "bulk",
    "text_from_html": "shown",
    "preview": "preview",
    "report": {"kind": "k"},
    "authentication": {"spf": "pass"},
    "error": "error",
    "defects": [{"code": "code", "where": "where", "detail": "detail"}],
    "parser": "p",
    "header": [["Subject", "subject"], ["X", "y"]],
    "attachments": [described(1, "1.2", 3, "a.txt"), described(2, "2", 0, None)],
}


def test_every_value() -> None:
    """Each value of a message arrives under the name of its column; no two of them are alike here."""
    assert all(getattr(WHOLE, field.name) for field in fields(WHOLE)), "a field that this test leaves empty"
    parsed, text, html, contents = view(WHOLE, "p", with_contents=True)
    assert json.loads(parsed) == EXPECTED
    assert (text, html, contents) == ("text", "html", [b"abc", b""])


def test_nothing() -> None:
    """What is absent is null or empty, and there are no contents."""
    parsed, *rest = view(ParsedMessage(), "p", with_contents=True)
    assert rest == [None, None, None]
    found = json.loads(parsed)
    assert found.pop("parser") == "p"
    assert found.pop("list_unsubscribe_post") is False
    assert not any(found.values())


def test_without_contents() -> None:
    """The attachments are described, and their contents left out."""
    parsed, *_, contents = view(WHOLE, "p", with_contents=False)
    assert contents is None
    assert json.loads(parsed)["attachments"] == EXPECTED["attachments"]


def test_characters_are_themselves() -> None:
    """Text beyond ASCII is not escaped, which would take up to three times the room."""
    assert "é漢" in view(ParsedMessage(subject="é漢"), "p", with_contents=True)[0]


@pytest.mark.parametrize("place", ["header", "file_name", "content_id", "disposition", "content_location",
                                   "content_description", "parameters"])  # fmt: skip
def test_wide(place: str) -> None:
    """From a million characters on the header and the attachments travel as arrays, one for each column."""

    def of(size: int) -> ParsedMessage:
        text = "\1" * size
        if place == "header":
            return replace(WHOLE, header=[("X", text)], attachments=[])
        value = {"k": text} if place == "parameters" else text
        return ParsedMessage(attachments=[Attachment("1", "a/b", b"", **{place: value})])  # type: ignore[arg-type]

    small, wide = of(1_000_000), of(1_000_001)
    assert expression(small) == "%s::jsonb"
    assert len(view(small, "p", with_contents=True)) == 4
    arguments = view(wide, "p", with_contents=True)
    assert expression(wide).count("%s") == 13 == len(arguments) - 3
    whole = json.loads(arguments[0])
    assert not {"header", "attachments"} & whole.keys()
    assert arguments[1] == [list(field) for field in wide.header]
    described = json.loads(view(of(1), "p", with_contents=True)[0])["attachments"]
    for index, column in enumerate(arguments[2:13]):
        assert len(column) == len(described)
        if described:
            (name, value) = list(described[0].items())[index]
            if name == "parameters":
                assert json.loads(column[0]) == ({"k": "\1" * 1_000_001} if place == name else value)
            else:
                assert column[0] == ("\1" * 1_000_001 if place == name else value)
