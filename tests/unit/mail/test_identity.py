"""Which octets count as the same message. The digests are stored, so a change of the rules needs a new version."""

import hashlib
import itertools

import pytest

from pipehandler.mail.fingerprint import VERSION
from pipehandler.mail.identity import identify, prepended

CONTENT = b"From: a@example.org\nMessage-ID: <1@example.org>\nContent-Type: text/plain; charset=utf-8\n\nbody\n"


@pytest.mark.parametrize(
    "above",
    [
        b"",
        b"From a@example.org Thu Jan  1 00:00:00 1970\n",
        b"Return-Path: <a@example.org>\nX-Original-To: b@example.com\nDelivered-To: b@example.com\n",
        b"return-path: <a@example.org>\r\nDelivered-To:\r\n b@example.com\r\n",
        b"From a@example.org Thu Jan  1 00:00:00 1970\nDelivered-To:\n\tb@example.com\n",
    ],
)
def test_prepended(above: bytes) -> None:
    """Fields that a delivery agent prepends are not part of the message."""
    assert prepended(above + CONTENT) == len(above)
    assert identify(above + CONTENT) == identify(CONTENT)._replace(prepended=len(above))


@pytest.mark.parametrize("first", [b" a line\n", b"\ta line\n", b"Received: x\n", b"From : a@b\n", b"\n", b""])
def test_not_prepended(first: bytes) -> None:
    """Everything else is, above all a line that would continue a field above it."""
    assert prepended(first + CONTENT) == 0
    assert prepended(b"From a@b Thu\n" + first + CONTENT) == 13


@pytest.mark.parametrize(
    ("raw", "expected", "former"),
    [
        (
            CONTENT,
            "789d7612a69e14a7c037381b92e6ac4696fe07eb017bfbf786ee9921f1e840fa",
            "77497cb5c07c380f3019a2b304c030e5ad43c0c7c70b4541c45a693ab99eac1a",
        ),
        (
            CONTENT.replace(b"\n", b"\r\n"),
            "789d7612a69e14a7c037381b92e6ac4696fe07eb017bfbf786ee9921f1e840fa",
            "77497cb5c07c380f3019a2b304c030e5ad43c0c7c70b4541c45a693ab99eac1a",
        ),
        (
            CONTENT.replace(b"Message-ID: <1@example.org>\n", b""),
            "3f14d0e5d57b4147df05845ea75a88460e453265622c6315e678c52731b7d751",
            "7dfb1ee5227ff51d7d5c3534b3750bae47facdfbbf90b1ed01af71a38ece6137",
        ),
        (
            CONTENT.replace(b"1@example.org", b""),
            "075970cba1bc5382fbed3247d9c3778460b85f53700c10adfa5d1aecb2add01c",
            "82ca4ba592c01a9476f7c67af13487fed53dda5d5f0b10ab31272ca539696359",
        ),
        (
            b"",
            "ef78d0b30d78e849461c5fda44043a3ac28a160885f875e82a7a3f4155310d24",
            "0cc453f63d3a9607875e49641d2de3eae619fe39bd53a58aa229adc5f1c08259",
        ),
    ],
    ids=["one Message-ID", "CRLF", "no Message-ID", "empty Message-ID", "nothing"],
)
def test_stored_fingerprints(raw: bytes, expected: str, former: str) -> None:
    """Mail that was stored by any release of a version is recognised by every other one."""
    found = identify(raw)
    assert (VERSION, found.fingerprint.hex(), found.former_fingerprint.hex()) == (2, expected, former)


def test_message_id() -> None:
    """The id is a UUID of version 8 (RFC 9562 5.8) from SHA-256 of the content."""
    digest = hashlib.sha256(CONTENT).hexdigest()
    found = identify(CONTENT).id
    assert found == f"{digest[:8]}-{digest[8:12]}-8{digest[13:16]}-{found[19]}{digest[17:20]}-{digest[20:32]}"
    assert found[19] in "89ab"


WHOLE = b"Return-Path: <a@example.org>\nX-Original-To: b\n\tc\nDelivered-To: b@example.com\n\tc\n"


def test_a_field_without_its_end_is_content() -> None:
    """Only whole fields are prepended: a message truncated inside one is distinct and not empty."""
    cuts = [WHOLE[:length] for length in range(len(WHOLE)) if not WHOLE[:length].endswith(b"\n")]
    assert all(prepended(raw) < len(raw) for raw in cuts[1:])
    assert prepended(WHOLE) == len(WHOLE)
    contents = [raw[prepended(raw) :] for raw in cuts]
    for (one, first), (other, second) in itertools.combinations(zip(cuts, contents, strict=True), 2):
        assert (identify(one).fingerprint == identify(other).fingerprint) == (first == second)
        assert (identify(one).id == identify(other).id) == (first == second)


def test_many_lines() -> None:
    """Megabytes of folded lines without an end are scanned once."""
    raw = b"Delivered-To: b" + b"\n\tc" * 1_000_000
    assert prepended(raw) == 0
    assert prepended(raw + b"\n") == len(raw) + 1


def test_many_line_feeds() -> None:
    """Megabytes of line feeds at the end are skipped quickly, and do not count, wherever they begin."""
    digest = identify(CONTENT).fingerprint
    for number in (1, 65_535, 65_536, 65_537 - len(CONTENT), 10_000_000):
        assert identify(CONTENT + b"\n" * number).fingerprint == digest
    assert identify(b"\n" * 200_000).fingerprint == identify(b"\n").fingerprint
