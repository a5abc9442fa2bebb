"""The envelope in a file: written as fields, it is read back, and is not part of the message."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipehandler.mail.envelope_fields import EnvelopeFields, read_fields, with_fields
from pipehandler.mail.identity import identify

RAW = b"Received: by mx\nFrom: a@example.org\nMessage-ID: <1@example.org>\n\nbody\n"
TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0\r\n"), max_size=20)
ADDRESSES = st.one_of(TEXT, st.builds("{}@{}".format, TEXT, st.from_regex(r"[a-z0-9.\[\]-]{1,20}", fullmatch=True)))


@pytest.mark.parametrize(
    ("envelope", "head"),
    [
        (
            EnvelopeFields("a@example.org", "old@example.com", "new@example.com"),
            b"Return-Path: <a@example.org>\nX-Original-To: old@example.com\nDelivered-To: new@example.com\n",
        ),
        (EnvelopeFields("", None, "root"), b"Return-Path: <>\nDelivered-To: root\n"),
        (
            EnvelopeFields('we "ird\\@example.org', None, "we ird@example.net"),
            b'Return-Path: <"we \\"ird\\\\"@example.org>\nDelivered-To: "we ird"@example.net\n',
        ),
        (
            EnvelopeFields(".a@example.org", None, "a..b@x"),
            b'Return-Path: <".a"@example.org>\nDelivered-To: "a..b"@x\n',
        ),
        (EnvelopeFields("<>@x", None, "\u00fc@x"), b'Return-Path: <"<>"@x>\nDelivered-To: \xc3\xbc@x\n'),
    ],
)
def test_external_form(envelope: EnvelopeFields, head: bytes) -> None:
    """The fields look as Postfix writes them: a local part that needs quotes has them (RFC 5321 4.1.2)."""
    assert with_fields(b"", RAW, envelope) == head + RAW
    assert read_fields(head + RAW) == envelope


@given(
    ADDRESSES,
    st.none() | ADDRESSES,
    ADDRESSES.filter(bool),
    st.sampled_from([RAW, RAW.replace(b"\n", b"\r\n"), b"x", b"\n"]),
)
@example("\x85", " a@x", "\\", RAW)
@example("a@x ", "@", "a@ \t", RAW)
def test_round_trip(sender: str, original: str | None, recipient: str, raw: bytes) -> None:
    """Whatever the addresses, the fields contain exactly them and leave the message unchanged."""
    envelope = EnvelopeFields(sender, original, recipient)
    whole = with_fields(b"", raw, envelope)
    assert whole is not None
    assert read_fields(whole) == envelope
    assert identify(whole)[:2] == identify(raw)[:2]
    assert whole.endswith(raw)


def test_what_is_there_stays() -> None:
    """Fields prepended at the delivery are kept and not repeated; one with another value is placed below ours."""
    envelope = EnvelopeFields("a@example.org", None, "new@example.com")
    kept = b"Return-Path: <a@example.org>\nDelivered-To: new@example.com\n"
    assert with_fields(kept, RAW, envelope) == kept + RAW
    assert with_fields(b"From a@example.org Mon\n" + kept, RAW, envelope) == kept + RAW
    other = b"delivered-to: old@example.com\n"
    assert with_fields(other, RAW, envelope) == kept + other + RAW
    assert read_fields(kept + other + RAW) == envelope


def test_line_ends() -> None:
    """The fields have the line ends of the message, so that the file has only one kind."""
    raw = RAW.replace(b"\n", b"\r\n")
    whole = with_fields(b"", raw, EnvelopeFields("a@example.org", None, "b@example.com"))
    assert whole is not None
    assert whole.count(b"\n") == whole.count(b"\r\n")


@pytest.mark.parametrize(
    ("raw", "envelope"),
    [
        (b" x\n", EnvelopeFields("a", None, "b")),
        (b"\tx\n", EnvelopeFields("a", None, "b")),
        (RAW, EnvelopeFields("a", None, "b\nTo: c")),
        (RAW, EnvelopeFields("a\r\n b", None, "b")),
    ],
)
def test_what_fields_cannot_tell(raw: bytes, envelope: EnvelopeFields) -> None:
    """A message that would continue the field above it, and an address with a line end, get no fields."""
    assert with_fields(b"", raw, envelope) is None


def test_folded_and_foreign() -> None:
    """Fields are read wherever lines are folded; those below another field are not the envelope."""
    raw = b"Delivered-To:\r\n\tuser@example.com\r\nRETURN-PATH:<\xff@x>\r\nFrom: a@b\r\nX-Original-To: no@example.com\r\n\r\n"
    assert read_fields(raw) == EnvelopeFields("\\xff@x", None, "user@example.com")
    assert read_fields(b"") == read_fields(b"\n") == read_fields(b"From: x\n") == EnvelopeFields()
