"""The commands of LMTP, one line at a time: octets in, values out (RFC 2033, RFC 5321, RFC 3461, XFORWARD_README).

What cannot be understood is refused for now (Refused), never for good: a bounce is left to a configured policy. An
address comes out in its internal form, without quotes, as pipe(8) passes it. What does not matter for storing a message
(BODY, RET, ENVID, NOTIFY) is accepted and ignored; so is a value that is not well-formed where it may be left out.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

# Possessive, so that no line takes more than one pass.
_PATH = re.compile(rb'[ \t]*+<(?:@[^:<>" \t]*+:)?+((?:"(?:[^"\\]|\\.)*+"|[^"<>])*+)>(?:[ \t]++|$)', re.DOTALL)
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_XTEXT = re.compile(rb"\+([0-9A-Fa-f]{2})")
_UTF8_XTEXT = re.compile(rb"\\x\{([0-9A-Fa-f]{1,6})\}")

_MAIL_PARAMETERS = (b"SIZE", b"BODY", b"SMTPUTF8", b"RET", b"ENVID")
_RCPT_PARAMETERS = (b"NOTIFY", b"ORCPT")

FORWARDED = (b"NAME", b"ADDR", b"PORT", b"PROTO", b"HELO", b"IDENT", b"SOURCE")
"""The attributes of XFORWARD that LHLO announces."""

_UNKNOWN = (b"", b"[UNAVAILABLE]", b"[TEMPUNAVAIL]")
"""Values of XFORWARD that say that there is none."""


class Refused(Exception):
    """A command is refused; the text is the reply."""


class Mail(NamedTuple):
    """MAIL FROM. sender: b"" is the null sender. size: the octets that SIZE announces (RFC 1870), None without it."""

    sender: bytes
    size: int | None


class Recipient(NamedTuple):
    """RCPT TO. original: what ORCPT says, b"" without it. The sender of the message may have chosen it (RFC 3461 4.2)."""

    address: bytes
    original: bytes


def mail(argument: bytes) -> Mail:
    """Return what follows MAIL. Raises Refused."""
    sender, parameters = _path(b"FROM:", argument, "1.7 bad sender address")
    values = dict(_parameters(parameters, _MAIL_PARAMETERS))
    if values.get(b"BODY", b"8BITMIME").upper() not in (b"7BIT", b"8BITMIME"):
        raise Refused("455 4.5.4 BODY is 7BIT or 8BITMIME")  # RFC 6152; BINARYMIME needs BDAT
    size = values.get(b"SIZE", b"")
    return Mail(sender, int(size) if size.isdigit() and len(size) <= 20 else None)


def recipient(argument: bytes) -> Recipient:
    """Return what follows RCPT. Raises Refused."""
    address, parameters = _path(b"TO:", argument, "1.3 bad recipient address")
    if not address:
        raise Refused("451 4.1.3 bad recipient address")
    return Recipient(address, _original(dict(_parameters(parameters, _RCPT_PARAMETERS)).get(b"ORCPT", b"")))


def forwarded(argument: bytes) -> dict[bytes, bytes]:
    """Return the attributes that follow XFORWARD, b"" for one that is unknown; those we do not announce are left out."""
    found = {}
    for word in argument.split():
        name, _, value = word.partition(b"=")
        if name.upper() in FORWARDED:
            value = _without_nul(_decoded(value))
            found[name.upper()] = b"" if value.upper() in _UNKNOWN else value
    return found


def _path(keyword: bytes, argument: bytes, refusal: str) -> tuple[bytes, bytes]:
    """Return the address of a path (RFC 5321 4.1.2), without a source route (appendix C), and the parameters."""
    found = _PATH.match(argument, len(keyword)) if argument[: len(keyword)].upper() == keyword else None
    if not found:
        raise Refused(f"451 4.{refusal}")
    address = _QUOTED.sub(lambda quoted: _ESCAPED.sub(rb"\1", quoted[1]), found[1])
    return address, argument[found.end() :]


def _parameters(text: bytes, allowed: tuple[bytes, ...]) -> Iterator[tuple[bytes, bytes]]:
    for word in text.split():
        name, _, value = word.partition(b"=")
        if name.upper() not in allowed:
            raise Refused("455 4.5.4 parameter not supported")  # RFC 5321 4.1.1.11 has 555, which bounces
        yield name.upper(), value


def _original(value: bytes) -> bytes:
    """Return the address of ORCPT=TYPE;ADDRESS (RFC 3461 4.2, RFC 6533 3); b"" for one that is not of mail."""
    kind, _, address = value.partition(b";")
    if kind.lower() == b"rfc822":
        return _without_nul(_decoded(address))
    if kind.lower() == b"utf-8":
        return _without_nul(_UTF8_XTEXT.sub(_character, _decoded(address)))
    return b""


def _character(found: re.Match[bytes]) -> bytes:
    number = int(found[1], 16)
    return chr(number).encode() if number < 0x110000 and not 0xD800 <= number < 0xE000 else found[0]


def _decoded(xtext: bytes) -> bytes:
    return _XTEXT.sub(lambda found: bytes.fromhex(found[1].decode("ascii")), xtext)


def _without_nul(value: bytes) -> bytes:
    """Return the value, or b"" for one that no argument can hold."""
    return b"" if b"\0" in value else value
