"""The defects a message can have: their codes, and the notebook in which the parser records them."""

from collections.abc import Mapping
from types import MappingProxyType

from pipehandler.mail.parsed import Defect

from .charset import storable

DEFECTS: Mapping[str, str] = MappingProxyType(
    {
        # Header
        "field-malformed": "The header ends at a line that is no field and no empty line; what follows is the body.",
        "field-repeated": "A field that may stand once stands again; the first one counts, of To, Cc and Bcc each one.",
        "field-too-long": "A field body is longer than the limit; only its beginning was decoded.",
        "fields-left-out": "There are more header fields than the limit; the rest was not decoded.",
        "address-guessed": "An address list does not follow RFC 5322; its mailboxes were guessed.",
        "address-missing": "An address list is not empty, but no mailbox was found in it.",
        "addresses-left-out": "An address list is longer than the limit; the rest was not decoded.",
        "file-name-guessed": "A file name does not follow RFC 2231; it was decoded as well as possible.",
        "date-guessed": "The date does not follow RFC 5322; it was read leniently.",
        "date-invalid": "The date makes no sense and was left out.",
        "date-zone-implausible": "The zone of the date is 24 hours or more away from UTC; the date is kept in UTC.",
        "encoded-word-broken": "An encoded-word (RFC 2047) could not be fully decoded.",
        "parameters-left-out": "A field has more parameters than are decoded.",
        # Text
        "charset-guessed": "The charset is missing, unknown or wrong; it was guessed.",
        "charset-replaced": "Octets that mean nothing in their charset became U+FFFD.",
        "nul-replaced": "NUL characters or lone surrogates in the text became U+FFFD.",
        # Structure
        "boundary-missing": "A multipart names no boundary; it was taken for text.",
        "boundary-guessed": "The boundary is missing or wrong; the first line that looks like one was taken.",
        "boundary-not-found": "The boundary of a multipart stands nowhere in it; it was taken for text.",
        "boundary-not-closed": "A multipart ends without its closing boundary.",
        "epilogue-ignored": "There is something after the end of a multipart; it belongs to no part.",
        "content-type-invalid": "The Content-Type cannot be understood; text/plain was assumed (RFC 2045 5.2).",
        "depth-left-out": "Multiparts are nested deeper than the limit; the inner ones were not decoded.",
        "parts-left-out": "There are more parts than the limit; the rest was not decoded.",
        "multipart-encoded": "A multipart is encoded as a whole, which RFC 2045 6.4 forbids; it was decoded and divided.",
        "container-broken": "A signed message or a winmail.dat is broken; what could be read of its inside was.",
        "container-left-out": "Signed messages or winmail.dat are nested deeper or hold more than the limit; the rest was not opened.",
        "report-left-out": "A delivery report or complaint is longer than the limit; the rest of it was not read.",
        "text-is-binary": "A part that calls itself text is not text; it was kept as an attachment.",
        # Transfer encodings
        "base64-broken": "Base64 holds characters of another alphabet or text above it, is text, ends twice, or has a wrong length.",
        "base64-after-padding": "Something other than base64 follows the end of base64; it was left out.",
        "quoted-printable-broken": "Quoted-printable holds an = that begins no escape; it was left as it is.",
        "uuencode-broken": "Uuencoded content is broken; what could be read was kept.",
        "transfer-encoding-unknown": "The transfer encoding is unknown; the octets were left as they are.",
        # Delivery
        "smaller-than-declared": "Postfix declared a greater size: a Milter changed the message, or it was cut short.",
        "envelope-value": "Postfix passed a value that cannot be stored: a number was left out, a recipient shortened.",
        # Our own bounds
        "decoder-failed": "A library failed on this field or part; it was left out.",
        "defects-left-out": "There are more defects than are kept.",
    }
)


class Notebook:
    """A collector of defects in order of discovery: each once, with a short detail, and at most `size` of them."""

    def __init__(self, size: int = 100) -> None:
        self._size = size
        self._entries: dict[Defect, None] = {}
        self._left_out = 0

    def note(self, code: str, where: str = "", detail: str = "") -> None:
        """Record one defect. Raises KeyError if `code` is not a key of DEFECTS."""
        DEFECTS[code]
        defect = Defect(code, storable(where[:100]), storable(detail[:200]))
        if defect in self._entries:
            return
        if len(self._entries) < self._size:
            self._entries[defect] = None
        else:
            self._left_out += 1

    def storable(self, text: str, where: str) -> str:
        """Return `text` as it can be stored, and record a defect if that changed it."""
        kept = storable(text)
        if kept != text:
            self.note("nul-replaced", where)
        return kept

    def close(self) -> list[Defect]:
        """Return all recorded defects; if there were too many, the last entry counts those left out."""
        defects = list(self._entries)
        if self._left_out:
            defects.append(Defect("defects-left-out", "", str(self._left_out)))
        return defects
