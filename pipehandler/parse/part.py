"""The elements of a message: header fields, and parts as positions in its octets (RFC 2045 2.4 to 2.6)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipehandler.mail.header_fields import DECIDING
from pipehandler.mail.parameters import token

from . import transfer_encoding
from .parameter import Parameters

ENCODED = ("base64", "quoted-printable")


class Field(NamedTuple):
    """One header field: its name as written, and its unfolded body without surrounding blanks."""

    name: str
    body: bytes


def deciding(fields: Sequence[Field]) -> list[Field]:
    """Return the fields that may decide how others, or the body, are read: those that the fingerprint covers."""
    return [field for field in fields if field.name.lower().encode() in DECIDING]


@dataclass(slots=True, eq=False)
class Part:
    """One entity (RFC 2045 2.4). Its body is raw[start:end]; a multipart that could be divided has `children`.

    `number` is the IMAP part number (RFC 3501 6.4.5), "" for a divided message itself. `content_type` is in lower case,
    with the defaults of RFC 2045 5.2 and RFC 2046 5.1.5. Of a part within the message only the Content- fields are kept
    (RFC 2046 5.1: the others have no meaning). `skipped` is true if the limits prevented scanning its inside.

    `raw` is the message, or the decoded content of the enclosing part. `inside` is the entity enclosed in an undivided
    part: the content of an opaque signature, or a multipart that was in base64.
    """

    number: str
    raw: bytes
    fields: list[Field]
    start: int
    end: int
    content_type: str
    parameters: Parameters
    depth: int = 0
    divided: bool = False
    skipped: bool = False
    children: list["Part"] = field(default_factory=list)
    inside: "Part | None" = None

    @property
    def transfer_encoding(self) -> str:
        """The Content-Transfer-Encoding (RFC 2045 6) in lower case; "" if there is none.

        Of several, the first that encodes counts: the octets of text stay as they are in it.
        """
        words = [
            transfer_encoding.named(token(entry.body).decode("ascii", "replace"))
            for entry in self.fields
            if entry.body and entry.name.lower() == "content-transfer-encoding"
        ]
        return next((word for word in words if word in ENCODED), words[0] if words else "")

    @property
    def is_encoded(self) -> bool:
        """Whether the body has to be decoded to get the content (RFC 2045 6.7 and 6.8)."""
        return self.transfer_encoding in ENCODED

    def first(self, name: str) -> bytes | None:
        """Return the body of the first field called `name` (in lower case) that is not empty; None if there is none."""
        return next((entry.body for entry in self.fields if entry.name.lower() == name and entry.body), None)

    def leaves(self) -> Iterator["Part"]:
        """Yield the parts that have content, in order, each before the parts enclosed in it."""
        waiting = [self]
        while waiting:
            part = waiting.pop()
            if part.divided:
                waiting.extend(reversed(part.children))
                continue
            if part.inside is not None:
                waiting.append(part.inside)
            yield part
