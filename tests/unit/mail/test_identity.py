"""The identity of messages that were cut short inside what Postfix prepended."""

import itertools

from pipehandler.mail.identity import identify, prepended

WHOLE = b"Return-Path: <a@example.org>\nX-Original-To: b\n\tc\nDelivered-To: b@example.com\n\tc\n"


def test_a_field_without_its_end_is_content() -> None:
    """Only whole fields are prepended: what is cut inside of one is a message of its own, like no other and not empty."""
    cuts = [WHOLE[:length] for length in range(len(WHOLE)) if not WHOLE[:length].endswith(b"\n")]
    assert all(prepended(raw) < len(raw) for raw in cuts[1:])
    assert prepended(WHOLE) == len(WHOLE)
    contents = [raw[prepended(raw) :] for raw in cuts]
    for (one, first), (other, second) in itertools.combinations(zip(cuts, contents, strict=True), 2):
        assert (identify(one).fingerprint == identify(other).fingerprint) == (first == second)
        assert (identify(one).id == identify(other).id) == (first == second)


def test_many_lines() -> None:
    """Megabytes of folded lines without an end are looked through once."""
    raw = b"Delivered-To: b" + b"\n\tc" * 1_000_000
    assert prepended(raw) == 0
    assert prepended(raw + b"\n") == len(raw) + 1
