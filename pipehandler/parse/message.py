"""A message from octets to meaning: the story of parsing, from top to bottom.

    parse(raw) -> mime.scan: header fields and parts -> header: subject, addresses, date
               -> each part: transfer encoding undone -> a body (text, html) or an attachment -> ParsedMessage

Parsing is total and deterministic: whatever the octets are, a ParsedMessage comes out, and the same one each time. What
was guessed, replaced or left out on the way stands in its defects. A field or a part that fails costs no other.
"""

from pipehandler.mail.parsed import Attachment, ParsedMessage

from . import authentication, mime, stateful, transfer_encoding
from .charset import codec
from .decoding import decode
from .defect import DEFECTS, Notebook
from .header import MAIL_PARSER_VERSION, Header
from .limits import DEFAULT, Limits
from .parameter import Parameters
from .parameter import parse as parse_parameters
from .part import Part
from .utf_8 import is_utf8
from .utf_16 import is_wide

__all__ = ["DEFECTS", "PARSER_VERSION", "Limits", "parse"]

# What a stored ParsedMessage was made by: ours, raised when the same octets may give another ParsedMessage; and mail-parser's.
PARSER_VERSION = f"2 mail-parser/{MAIL_PARSER_VERSION}"

_SAVED_TEXT = frozenset({"text/calendar", "text/x-vcalendar", "text/vcard", "text/x-vcard", "text/directory"})
_ASCII = bytes(range(128))
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x08\x1b")) + b"\x7f"
_CONTROLS_BUT_SHIFTS = _CONTROLS.translate(None, b"\x0e\x0f")
_SAMPLE = 4_096  # octets by which text is told from binary


def parse(raw: bytes, limits: Limits = DEFAULT, trusted_authserv_ids: tuple[str, ...] = ()) -> ParsedMessage:
    """Parse one message. Does not raise for its content; exceptions that are no Exception pass through.

    `raw` is the message in the form of RFC 5322, with LF or CRLF line ends; `limits` bound what is decoded;
    `trusted_authserv_ids` are the hosts, in lower case, whose authentication results count (RFC 8601).
    """
    notebook = Notebook()
    root = mime.scan(raw, limits, notebook)
    hints = _charsets(raw, root)
    header = Header(root.fields, limits, hints, notebook)
    document = ParsedMessage(
        message_id=next(iter(header.message_ids("message-id")), None),
        in_reply_to=header.message_ids("in-reply-to"),
        references=header.message_ids("references"),
        subject=header.unstructured("subject"),
        from_=header.addresses("from"),
        sender=header.addresses("sender"),
        reply_to=header.addresses("reply-to"),
        to=header.addresses("to"),
        cc=header.addresses("cc"),
        bcc=header.addresses("bcc"),
        list_id=header.list_id(),
        header=header.fields,
        authentication=authentication.read(header.fields, trusted_authserv_ids),
    )
    document.date, document.date_offset = header.date()
    texts: list[str] = []
    htmls: list[str] = []
    for part in root.leaves():
        if not part.skipped:
            _Leaf(raw, part, root, header.hints, notebook).into(texts, htmls, document.attachments)
    document.text = "\n".join(texts) or None
    document.html = "\n".join(htmls) or None
    document.defects = notebook.close()
    return document


def _charsets(raw: bytes, root: Part) -> list[str]:
    """The charsets that the text parts name: likely ones for what names none. Before them that of the first text that
    names none, if it holds more than the header of what no label explains: of few octets little can be known."""
    texts = [part for part in root.leaves() if part.content_type.startswith("text/")]
    labels = [part.parameters.token("charset") for part in texts]
    hints = list(dict.fromkeys(label for label in labels if label and codec(label)))[:4]
    if not all(field.body.isascii() for field in root.fields):
        in_header = sum(_beyond_ascii(field.body) for field in root.fields)
        for part, label in zip(texts, labels, strict=True):
            if codec(label) in (None, "ascii"):
                content = _content(raw, part, lambda code, detail: None)
                if not is_utf8(content) and _beyond_ascii(content) > in_header:
                    return [decode(content, None, hints).codec, *hints]
    return hints


def _beyond_ascii(octets: bytes) -> int:
    return 0 if octets.isascii() else len(octets.translate(None, _ASCII))


class _Leaf:
    """One part with content, on its way to being a body or an attachment."""

    def __init__(self, raw: bytes, part: Part, root: Part, hints: list[str], notebook: Notebook) -> None:
        self.raw, self.part, self.hints, self.notebook = raw, part, hints, notebook
        self.alone = part is root
        self.disposition: Parameters = parse_parameters(part.first("content-disposition") or b"")
        if not self.disposition.complete:
            notebook.note("parameters-left-out", part.number, "Content-Disposition")

    def into(self, texts: list[str], htmls: list[str], attachments: list[Attachment]) -> None:
        """Add the part where it belongs."""
        part = self.part
        file_name = self._file_name()
        content = _content(self.raw, part, lambda code, detail: self.notebook.note(code, part.number, detail))
        if self._is_body(file_name):
            if not _is_binary(content, part.parameters.token("charset")):
                html = part.content_type == "text/html"
                text = self._text(content, html)
                if text:
                    (htmls if html else texts).append(text)
                return
            self.notebook.note("text-is-binary", part.number, part.content_type)
        content_id = (part.first("content-id") or b"").decode("utf-8", "replace")
        attachments.append(
            Attachment(
                part=part.number,
                content_type=self.notebook.storable(part.content_type, part.number),
                content=content,
                file_name=file_name,
                content_id=self.notebook.storable("".join(content_id.split()).strip("<>"), part.number) or None,
                disposition=self.notebook.storable(self.disposition.value, part.number) or None,
            )
        )

    def _file_name(self) -> str | None:
        """RFC 2183 2.3, or the older name of RFC 2046 4.5.1."""
        for source, name in ((self.disposition, "filename"), (self.part.parameters, "name")):
            text, wrong = source.text(name, self.hints)
            if text:
                for reason in wrong:
                    self.notebook.note("file-name-guessed", self.part.number, reason)
                return text
        return None

    def _is_body(self, file_name: str | None) -> bool:
        """Text that is read in place: RFC 2183 2.1. A multipart that could not be divided is shown as text."""
        kind = self.part.content_type
        if kind.startswith("multipart/"):
            return True
        if file_name or self.disposition.value == "attachment":
            return False
        return kind in ("text/plain", "text/html") or (
            self.alone and kind.startswith("text/") and kind not in _SAVED_TEXT
        )

    def _text(self, content: bytes, html: bool) -> str:
        decoded = decode(content, self.part.parameters.token("charset"), self.hints, html)
        if decoded.guessed:
            self.notebook.note("charset-guessed", self.part.number, decoded.guessed)
        if decoded.replaced:
            self.notebook.note("charset-replaced", self.part.number, f"{decoded.replaced} in {decoded.codec}")
        return self.notebook.storable(decoded.text.replace("\r\n", "\n"), self.part.number)


def _content(raw: bytes, part: Part, note: transfer_encoding.Note) -> bytes:
    """What a part holds after its transfer encoding was undone."""
    words = (part.first("content-transfer-encoding") or b"").lower().split()
    encoding = words[0].strip(b";\"'").decode("ascii", "replace") if words else ""
    return transfer_encoding.decode(raw, part.start, part.end, encoding, note)


def _is_binary(content: bytes, label: str | None) -> bool:
    """Whether octets that are called text are something else: one control character in ten, or more."""
    sample = content[:_SAMPLE]
    few = len(sample) // 10
    if len(sample) - len(sample.translate(None, _CONTROLS)) <= few or is_wide(content, label):
        return False
    return not stateful.shifts(sample, label) or len(sample) - len(sample.translate(None, _CONTROLS_BUT_SHIFTS)) > few
