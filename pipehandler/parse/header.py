"""Interpret field bodies.

mail-parser parses the address lists (From, Sender, Reply-To, To, Cc, Bcc) strictly by RFC 5322, but for those that have
only one meaning (plain_address.py). It is given only field bodies that it parses without loss in bounded time: text,
not octets (it drops octets that are not UTF-8), short, with no encoded-words but UTF-8 (it follows wrong labels and
knows few of them). Its result is used if it reports no ambiguity.

Handled here instead: groups, which it drops (address.py); mailboxes that it rejects, such as MAILER-DAEMON; raw 8-bit
and repeated fields; encoded-words (encoded_word.py). Dates are parsed in date.py, because mail-parser rounds the
sender's zone and accepts only one format.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone

from pipehandler.mail.parsed import Address

from . import date, plain_address
from .charset import Hints, is_utf8, one_line
from .decoding import decode
from .defect import Notebook
from .encoded_word import decode_words
from .limits import Limits
from .part import Field, deciding

# Encoded-words that mail-parser reads without loss: in UTF-8 or ASCII, each complete in itself.
_PLAIN_WORD = re.compile(
    r"=\?(?:utf-8|us-ascii)\?(?:q\?(?:[^=?\s]|=[0-9A-F]{2})*|b\?(?:[A-Z0-9+/]{4})*(?:[A-Z0-9+/]{2}(?:==|[A-Z0-9+/]=))?)\?=",
    re.IGNORECASE,
)
_MESSAGE_ID = re.compile(r"<([^<>]*)>")
_COMMENT = re.compile(r"\([^()]*\)")
_FROM_WHOM = r"(?i)\bfrom\s[^<>]{0,200}<[^<>]*>(?=\s+(?:of|on|dated)\s)"  # an address within a phrase, before an id
_DESTINATIONS = frozenset({"to", "cc", "bcc"})  # RFC 5322 4.5.3: repeated fields form one list
_BEYOND_MAIL_PARSER = re.compile(r"[:;(]")  # groups and comments
_DAY = 24 * 60  # minutes
_MAIL_PARSER_SIZE = 4_096  # characters of one field: some of its code is quadratic


class Header:
    """The interpreted header of one message. `fields`: (name, body) in order, unfolded, encoded-words not decoded."""

    def __init__(self, fields: Sequence[Field], limits: Limits, hints: Sequence[str], notebook: Notebook) -> None:
        """`hints` are charsets of the message's parts, for raw 8-bit octets. Defects go to `notebook`."""
        self._limits, self._notebook = limits, notebook
        # Includes the charset guessed for unlabelled 8-bit octets in this header.
        self.hints = self._guessed_hints(fields, hints)
        self.fields = [(field.name, self._text(field)) for field in fields]
        self._bodies: dict[str, list[str]] = {}
        for name, body in self.fields:
            self._bodies.setdefault(name.lower(), []).append(body)

    def unstructured(self, name: str) -> str | None:
        """Return a field of free text, such as the subject (RFC 5322 2.2.1), decoded; None if absent."""
        body = self._once(name)
        if body is None:
            return None
        text, wrong = decode_words(body, self.hints)
        for reason in wrong:
            self._notebook.note("encoded-word-broken", name, reason)
        return self._notebook.storable(one_line(text).strip(), name)

    def addresses(self, name: str) -> list[Address]:
        """Return the mailboxes of an address field (RFC 5322 3.4)."""
        bodies = self._contents(name)
        found: list[Address] = []
        for body in bodies if name in _DESTINATIONS else bodies[:1]:
            strict = self._strict_addresses(name, body) if body is bodies[0] else None
            found += (
                self._lenient_addresses(name, body, self._limits.addresses - len(found)) if strict is None else strict
            )
        return found

    def date(self) -> tuple[datetime | None, int | None]:
        """Return the date and the sender's zone in minutes east of UTC (RFC 5322 3.3), as ParsedMessage defines them.

        Of several fields, the first that can be parsed counts. Encoded-words are decoded, against RFC 2047 5.
        """
        bodies = self._contents("date")
        readable = ((body, found) for body in bodies if (found := date.read(decode_words(body, self.hints)[0])))
        body, found = next(readable, (next(iter(bodies), ""), None))
        if not body:
            return None, None
        if found is None:
            self._notebook.note("date-invalid", "date", body)
            return None, None
        instant, offset, exact = found
        if not exact or "=?" in body:
            self._notebook.note("date-guessed", "date", body)
        if offset is None:
            return instant, None
        if abs(offset) >= _DAY:  # valid by RFC 5322 3.3, but no such zone exists, and datetime cannot represent it
            self._notebook.note("date-zone-implausible", "date", body)
            return instant, offset
        return instant.astimezone(timezone(timedelta(minutes=offset))), offset

    def message_ids(self, name: str) -> list[str]:
        """Return the message identifiers in a field (RFC 5322 3.6.4), without angle brackets and white space."""
        body = decode_words(self._once(name) or "", self.hints)[0]
        if name == "in-reply-to" and not body.startswith("<"):
            body = re.sub(_FROM_WHOM, " ", body)
        found = [re.sub(r"\s+", "", match[1]) for match in _MESSAGE_ID.finditer(body)]
        if not found:
            words = _COMMENT.sub(" ", body).replace(",", " ").split()
            found = [stripped for word in words if (stripped := word.strip("<>;\"'"))]
            if name == "message-id":
                found = [word for word in found if "@" in word][:1] or found[:1]
            elif not all("@" in word for word in found):
                found = []  # RFC 5322 4.5.4: a phrase
        return [self._notebook.storable(word, name) for word in found if word]

    def list_id(self) -> str | None:
        """Return the identifier of the mailing list (RFC 2919) without its description; None if absent."""
        body = self._once("list-id") or ""
        found = _MESSAGE_ID.findall(body) or _MESSAGE_ID.findall(body := decode_words(body, self.hints)[0])
        return self._notebook.storable(one_line(found[-1] if found else body).strip(), "list-id") or None

    def _once(self, name: str) -> str | None:
        """Return the body of a field that may occur only once (RFC 5322 3.6): the first that is not empty."""
        return next(iter(self._contents(name)), None)

    def _contents(self, name: str) -> list[str]:
        """Return the bodies of a field that may occur only once: those that are not empty, else one that is."""
        bodies = self._bodies.get(name, [])
        if len(bodies) < 2:
            return bodies
        self._notebook.note("field-repeated", name)
        return [body for body in bodies if decode_words(body, self.hints)[0].strip()] or bodies[:1]

    def _guessed_hints(self, fields: Sequence[Field], hints: Sequence[str]) -> Hints:
        """Return likely charsets for 8-bit octets in this header. The fields are examined together: each is short."""
        eight_bit = [field.body for field in deciding(fields) if not field.body.isascii() and not is_utf8(field.body)]
        if not eight_bit:
            return Hints(hints)
        guess = decode(b"\n".join(eight_bit), None, hints)
        return Hints([guess.codec, *hints])

    def _text(self, field: Field) -> str:
        octets = field.body.strip()
        if octets.isascii() and b"\x1b" not in octets and b"~{" not in octets:
            return self._notebook.storable(octets.decode("ascii"), field.name)
        decoded = decode(octets, None, self.hints)
        if decoded.codec not in ("ascii", "utf_8"):
            self._notebook.note("charset-guessed", field.name, decoded.guessed)
        if decoded.replaced:
            self._notebook.note("charset-replaced", field.name, decoded.codec)
        # Decoding a stateful charset, or removing a byte order mark, may expose blanks and line ends.
        return self._notebook.storable(decoded.text.replace("\n", " ").strip(" \t\r\n"), field.name)

    def _suits_mail_parser(self, body: str) -> bool:
        return (
            0 < len(body) <= _MAIL_PARSER_SIZE
            and body.replace("\t", " ").isprintable()
            and ("=?" not in body or self._has_plain_words(body))
        )

    def _has_plain_words(self, body: str) -> bool:
        """Whether mail-parser decodes the encoded-words of `body` as we do: a broken one makes it fail on all fields."""
        return "=?" not in _PLAIN_WORD.sub("", body) and not decode_words(body, self.hints)[1]

    def _lenient_addresses(self, name: str, body: str, limit: int) -> list[Address]:
        if not body:
            return []
        from . import address  # few fields need it

        single = name not in _DESTINATIONS
        found = address.parse(body, limit, self.hints, single)
        if "=?" in body and not any("@" in each.address for each in found.addresses):
            found = address.parse_encoded(body, limit, self.hints, single) or found
        for reason in found.broken_words:
            self._notebook.note("encoded-word-broken", name, reason)
        if found.wrong:
            self._notebook.note("address-guessed", name, "; ".join(dict.fromkeys(found.wrong)))
        if not found.complete:
            self._notebook.note("addresses-left-out", name)
        if not found.addresses and found.wrong:
            self._notebook.note("address-missing", name)
        return found.addresses

    def _strict_addresses(self, name: str, body: str) -> list[Address] | None:
        """Return the mailboxes that mail-parser finds, or None if its result may be incomplete.

        It omits groups and names that equal their address, takes comments for names, and reports what it could not
        recover.
        """
        if _BEYOND_MAIL_PARSER.search(body) or not self._suits_mail_parser(body):
            return None
        pairs = self._pairs(name, body.replace("\t", " "))
        found = [("" if text == mailbox else text, mailbox) for text, mailbox in pairs or () if mailbox]
        if not found or any(
            "=?" in text + mailbox or mailbox.startswith("'") or not text.isprintable() for text, mailbox in found
        ):
            return None
        if any("@" in text for text, _ in found):
            return None  # a name, or a mailbox after a missing comma
        if any(not text and ("=?" in body or body.count(mailbox) > 1) for text, mailbox in found):
            return None
        return [Address(" ".join(text.split()), mailbox) for text, mailbox in found]

    def _pairs(self, name: str, body: str) -> list[tuple[str, str]] | None:
        """Return the names and mailboxes of a list, None if its strict reading may be incomplete."""
        plain = plain_address.read(body)
        if plain is not None:
            return [(decode_words(text, self.hints)[0] if "=?" in text else text, mailbox) for text, mailbox in plain]
        from . import strict_address  # loads mail-parser

        try:
            return strict_address.read(body)
        except MemoryError:
            raise  # the caller's limit
        except Exception as error:  # noqa: BLE001 # whatever mail-parser raises is a defect of the message
            self._notebook.note("decoder-failed", name, f"mail-parser: {type(error).__name__}")
            return None
