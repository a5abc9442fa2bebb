"""The envelope of a message (RFC 5321 2.3.1) as pipe(8) passes it: in argv, one option for each macro.

master.cf writes --name=${macro}, so that an empty value and one that begins with a dash both survive. The recipients
follow a bare "--". Addresses come in their internal form, unquoted. Bytes that are not UTF-8 are escaped, never
dropped, so that two different recipients stay different. A number that the database cannot hold does not fail the
delivery: it is left out and named in `left_out`. (pipehandler.stored_recipient in SQL shortens a recipient too
long to index.)
"""

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from .outcome import MISCONFIGURED, Undelivered

OPTIONS = (
    "config",
    "socket",
    "sender",
    "queue-id",
    "size",
    "original-recipient",
    "client-address",
    "client-hostname",
    "client-helo",
    "client-port",
    "client-protocol",
    "sasl-username",
)
"""The options of `deliver`: the macro names of pipe(8) with dashes, the configuration file and the socket of the workers."""


_IPV6 = "ipv6:"
"""The prefix of an IPv6 address in an envelope, in upper or lower case (RFC 5321 4.1.3)."""

_LARGEST_PORT = 65_535
_LARGEST_SIZE = 2**63 - 1


class UsageError(Undelivered):
    """argv does not match postfix/master.cf.example; the text states what is wrong and what is expected."""

    def __init__(self, text: str) -> None:
        super().__init__(MISCONFIGURED, text)


class Envelope(NamedTuple):
    """The sender, the recipients and the client of a message; "" or None if Postfix has no value.

    sender: the reverse-path, "" for the null sender (RFC 5321 4.5.5).
    recipients: with the domain in lower case (RFC 5321 2.4). original_recipients: the same before aliasing, in the same
    order, "" for one that is not known, or ().
    size: octets of the queue file with CRLF line ends, before fields are prepended.
    left_out: the options whose value could not be kept.
    """

    sender: str
    recipients: tuple[str, ...]
    original_recipients: tuple[str, ...] = ()
    queue_id: str = ""
    size: int | None = None
    client_address: str | None = None
    client_hostname: str = ""
    client_helo: str = ""
    client_port: int | None = None
    client_protocol: str = ""
    sasl_username: str = ""
    left_out: tuple[str, ...] = ()


def from_argv(argv: Sequence[str]) -> Envelope:
    """Return the envelope from the arguments after `deliver`.

    Raises UsageError for an argument that master.cf should not contain.
    """
    values: dict[str, list[str]] = {}
    arguments = [os.fsencode(argument).decode("utf-8", "backslashreplace") for argument in argv]
    for index, argument in enumerate(arguments):
        if argument == "--":
            recipients = arguments[index + 1 :]
            break
        name, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or not equals or name not in OPTIONS:
            raise UsageError(
                f"argument {_shown(argument)}; expected --NAME=VALUE with NAME one of {', '.join(OPTIONS)}"
            )
        values.setdefault(name, []).append(value)
    else:
        raise UsageError("no recipients; expected -- RECIPIENT... at the end")
    if not all(recipients or [""]):
        empty = sum(not recipient for recipient in recipients)
        raise UsageError(
            f"{len(recipients)} recipients, {empty} of them empty; expected one or more after --, none empty"
        )

    originals = values.pop("original-recipient", [])
    if len(originals) not in (0, len(recipients)):
        raise UsageError(f"--original-recipient given {len(originals)} times for {len(recipients)} recipients")
    for name, given in values.items():
        if len(given) > 1:
            raise UsageError(f"--{name} given {len(given)} times; expected once")
    once = {name: given[0] for name, given in values.items()}
    if "sender" not in once:
        raise UsageError("--sender= is missing; expected once, empty for the null sender")

    left_out: list[str] = []
    return Envelope(
        sender=once["sender"],
        recipients=tuple(map(lower_domain, recipients)),
        original_recipients=tuple(originals),
        queue_id=once.get("queue-id", ""),
        size=_number("size", once, _LARGEST_SIZE, left_out),
        client_address=_address(once.get("client-address", "")),
        client_hostname=once.get("client-hostname", ""),
        client_helo=once.get("client-helo", ""),
        client_port=_number("client-port", once, _LARGEST_PORT, left_out),
        client_protocol=once.get("client-protocol", ""),
        sasl_username=once.get("sasl-username", ""),
        left_out=tuple(left_out),
    )


def _shown(argument: str) -> str:
    """Return an argument as the log may show it, without addresses."""
    return "with an address" if "@" in argument else repr(argument)


def lower_domain(address: str) -> str:
    """Return the address with its domain in lower case. RFC 5321 2.4: only the local part may be case-sensitive."""
    local, at, domain = address.rpartition("@")
    return local + at + domain.lower() if at else address


def _number(name: str, once: dict[str, str], largest: int, left_out: list[str]) -> int | None:
    """Return the value of a numeric macro; None if pipe(8) has none, and passes "" or "unknown"."""
    value = once.get(name, "")
    if value in ("", "unknown"):
        return None
    if not (value.isascii() and value.isdigit()):
        raise UsageError(f"--{name}={_shown(value)}; expected a number")
    if len(value) > len(str(largest)) or int(value) > largest:
        left_out.append(name)
        return None
    return int(value)


def _address(value: str) -> str | None:
    """Return the client's IP address, or None for anything else ("unknown", a local submission)."""
    if value[: len(_IPV6)].lower() == _IPV6:
        value = value[len(_IPV6) :]
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, value)
        except (OSError, ValueError):
            continue
        return value
    return None
