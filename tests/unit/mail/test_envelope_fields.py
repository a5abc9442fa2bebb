"""The envelope in a file: what is written as fields is read again, and is no part of the message."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipehandler.mail.envelope_fields import Told, told, with_fields
from pipehandler.mail.identity import identify

RAW = b"Received: by mx\nFrom: a@example.org\nMessage-ID: <1@example.org>\n\nbody\n"
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r\n"), max_size=20)
ADDRESSES = st.one_of(TEXT, st.builds("{}@{}".format, TEXT, st.from_regex(r"[a-z0-9.\[\]-]{1,20}", fullmatch=True)))


@pytest.mark.parametrize(
    ("envelope", "head"),
    [
        (
            Told("a@example.org", "old@example.com", "new@example.com"),
            b"Return-Path: <a@example.org>\nX-Original-To: old@example.com\nDelivered-To: new@example.com\n",
        ),
        (Told("", None, "root"), b"Return-Path: <>\nDelivered-To: root\n"),
        (
            Told('we "ird\\@example.org', None, "we ird@example.net"),
            b'Return-Path: <"we \\"ird\\\\"@example.org>\nDelivered-To: "we ird"@example.net\n',
        ),
        (Told(".a@example.org", None, "a..b@x"), b'Return-Path: <".a"@example.org>\nDelivered-To: "a..b"@x\n'),
        (Told("<>@x", None, "\u00fc@x"), b'Return-Path: <"<>"@x>\nDelivered-To: \xc3\xbc@x\n'),
    ],
)
def test_external_form(envelope: Told, head: bytes) -> None:
    """The fields look as Postfix writes them: a local part that needs quotes has them (RFC 5321 4.1.2)."""
    assert with_fields(b"", RAW, envelope) == head + RAW
    assert told(head + RAW) == envelope


@given(
    ADDRESSES,
    st.none() | ADDRESSES,
    ADDRESSES.filter(bool),
    st.sampled_from([RAW, RAW.replace(b"\n", b"\r\n"), b"x", b"\n"]),
)
@example("\x85", " a@x", "\\", RAW)
def test_round_trip(sender: str, original: str | None, recipient: str, raw: bytes) -> None:
    """Whatever the addresses are: either the fields tell exactly them and leave the message the same, or there are none."""
    envelope = Told(sender, original, recipient)
    whole = with_fields(b"", raw, envelope)
    if whole is not None:
        assert told(whole) == envelope
        assert identify(whole)[:2] == identify(raw)[:2]
        assert whole.endswith(raw)
    if all(each is None or (each.isprintable() and each.strip() == each and "\u3000" not in each) for each in envelope):
        assert whole is not None


def test_what_is_there_stays() -> None:
    """Fields that were prepended at the delivery are kept and not doubled; one that says something else goes below ours."""
    envelope = Told("a@example.org", None, "new@example.com")
    kept = b"Return-Path: <a@example.org>\nDelivered-To: new@example.com\n"
    assert with_fields(kept, RAW, envelope) == kept + RAW
    assert with_fields(b"From a@example.org Mon\n" + kept, RAW, envelope) == kept + RAW
    other = b"delivered-to: old@example.com\n"
    assert with_fields(other, RAW, envelope) == kept + other + RAW
    assert told(kept + other + RAW) == envelope


def test_line_ends() -> None:
    """The fields have the line ends of the message, so that an editor finds one kind."""
    raw = RAW.replace(b"\n", b"\r\n")
    whole = with_fields(b"", raw, Told("a@example.org", None, "b@example.com"))
    assert whole is not None
    assert whole.count(b"\n") == whole.count(b"\r\n")


@pytest.mark.parametrize(
    ("raw", "envelope"),
    [
        (b" x\n", Told("a", None, "b")),
        (b"\tx\n", Told("a", None, "b")),
        (RAW, Told("a", None, "b\nTo: c")),
        (RAW, Told("a\r\n b", None, "b")),
    ],
)
def test_what_fields_cannot_tell(raw: bytes, envelope: Told) -> None:
    """A message that would become a part of the field above it, and an address with a line end, get no fields."""
    assert with_fields(b"", raw, envelope) is None


def test_folded_and_foreign() -> None:
    """Fields are read wherever lines are folded; those below another field are not the envelope."""
    raw = b"Delivered-To:\r\n\tuser@example.com\r\nRETURN-PATH:<\xff@x>\r\nFrom: a@b\r\nX-Original-To: no@example.com\r\n\r\n"
    assert told(raw) == Told("\\xff@x", None, "user@example.com")
    assert told(b"") == told(b"\n") == told(b"From: x\n") == Told()
