"""Sort the parts that have content into body texts and attachments.

Modules that few messages need are imported on use: imports are most of the cost of a cold delivery.
"""

from typing import TYPE_CHECKING

from pipehandler.mail.parsed import Attachment

from . import body, content_type, transfer_encoding
from .body import Place, Text
from .charset import Hints, one_line, storable
from .decoding import decode
from .defect import Notebook
from .encoded_word import decode_words
from .flowed import unflow
from .limits import Limits
from .parameter import Parameters, parse
from .part import Part

if TYPE_CHECKING:
    from . import tnef, uuencode

_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x08\x1b")) + b"\x7f"
_CONTROLS_BUT_SHIFTS = _CONTROLS.translate(None, b"\x0e\x0f")
_SAMPLE = 4_096  # octets examined to tell text from binary
_NONE = parse(b"")
_PARAMETERS = 30  # kept of one attachment; real ones have a handful
_PARAMETERS_SIZE = 2_000  # characters in total
_TNEF_NESTING = 3  # levels of nested attached messages


class Leaves:
    """The parts of one message, added in their order. `attachments` is complete after the last one."""

    def __init__(self, hints: Hints, limits: Limits, notebook: Notebook) -> None:
        """`hints` are charsets for unlabelled text. Defects go to `notebook`."""
        self.attachments: list[Attachment] = []
        self._texts: dict[str, Text] = {}
        self._tnef: list[tuple[str, tnef.Contents]] = []
        self._hints, self._limits, self._notebook = hints, limits, notebook

    def add(self, part: Part, place: Place) -> None:
        """Add a part to the body texts or to the attachments."""
        if body.is_other_version(part, place) or (
            part.inside is not None and part.content_type.startswith("multipart/")
        ):
            return
        field = part.first("content-disposition")
        disposition = parse(field) if field else _NONE
        if not disposition.complete:
            self._notebook.note("parameters-left-out", part.number, "Content-Disposition")
        file_name = self._file_name(part, disposition)
        if body.is_body(part, place, file_name is not None, disposition.value):
            text = self._text(part)
            if not _is_binary(text, part.parameters.token("charset")):
                self._add_text(part, text)
                return
            self._notebook.note("text-is-binary", part.number, part.content_type)
        content = self._decoded(part, part.raw, part.start, part.end)
        self.attachments.append(
            Attachment(
                part=part.number,
                content_type=self._storable(part.content_type, part),
                content=content,
                file_name=file_name,
                content_id=self._storable(_token(part, "content-id").strip("<>"), part) or None,
                content_location=self._location(part),
                content_description=self._description(part),
                disposition=self._storable(disposition.value, part) or None,
                parameters=self._parameters(part),
            )
        )
        if content_type.is_tnef(part.content_type, content):
            self._add_tnef(part.number, content, 0)

    def _text(self, part: Part) -> bytes:
        """Return the octets of a text with the line ends that the fingerprint sees (mail/fingerprint.py), so that those of a
        copy decide about no charset."""
        raw, start, end = part.raw, part.start, part.end
        if raw.find(b"\r\n", start, end) >= 0:
            raw = raw[start:end].replace(b"\r\n", b"\n")
            start, end = 0, len(raw)
        return self._decoded(part, raw, start, end)

    def _decoded(self, part: Part, raw: bytes, start: int, end: int) -> bytes:
        def note(code: str, detail: str) -> None:
            self._notebook.note(code, part.number, detail)

        return transfer_encoding.decode(raw, start, end, part.transfer_encoding, note)

    def bodies(self, root: Part) -> tuple[str | None, str | None]:
        """Return the text and the HTML body of the message; those of a winmail.dat if it has no others."""
        text, html = body.join(root, self._texts)
        for number, contents in self._tnef if text is None and html is None else ():
            text, html = (self._body(each, number) for each in contents.bodies())
            if text or html:
                break
        return text, html

    def _body(self, text: str | None, number: str) -> str | None:
        if text is None or body.is_blank(text):
            return None
        return self._notebook.storable(text.replace("\r\n", "\n"), number)

    def _storable(self, text: str, part: Part) -> str:
        return self._notebook.storable(text, part.number)

    def _location(self, part: Part) -> str | None:
        """Return the Content-Location, a URI; encoded-words are allowed in it (RFC 2557 4.4.1)."""
        text = decode_words(_token(part, "content-location"), self._hints)[0]
        return self._storable("".join(text.split()), part) or None

    def _description(self, part: Part) -> str | None:
        """Return the Content-Description (RFC 2045 8), which is free text."""
        octets = part.first("content-description")
        if not octets:
            return None
        text = decode_words(one_line(decode(octets.strip(), None, self._hints).text), self._hints)[0]
        return self._storable(one_line(text).strip(), part) or None

    def _parameters(self, part: Part) -> dict[str, str]:
        """Return the parameters of the media type (RFC 2045 5.1) as text."""
        found: dict[str, str] = {}
        size = 0
        for name in part.parameters.sections:
            text = part.parameters.text(name, self._hints)[0]
            size += len(name) + len(text or "")
            if len(found) == _PARAMETERS or size > _PARAMETERS_SIZE:
                self._notebook.note("parameters-left-out", part.number, "Content-Type")
                break
            if text is not None:
                found[self._storable(name, part)] = text
        return found

    def _file_name(self, part: Part, disposition: Parameters) -> str | None:
        """Return the file name of RFC 2183 2.3, or the older one of RFC 2046 4.5.1; each also in the other's field."""
        for source, name in (
            (disposition, "filename"), (part.parameters, "name"), (disposition, "name"), (part.parameters, "filename"),
        ):  # fmt: skip
            text, wrong = source.text(name, self._hints) if name in source.sections else (None, [])
            if text:
                for reason in wrong:
                    self._notebook.note("file-name-guessed", part.number, reason)
                return text
        return None

    def _add_text(self, part: Part, content: bytes) -> None:
        html = part.content_type == "text/html"
        if not html:
            content = self._without_uuencoded(part.number, content)
        decoded = decode(content, part.parameters.token("charset"), self._hints, html)
        if decoded.guessed:
            self._notebook.note("charset-guessed", part.number, decoded.guessed)
        if decoded.replaced:
            self._notebook.note("charset-replaced", part.number, f"{decoded.replaced} in {decoded.codec}")
        text = decoded.text.replace("\r\n", "\n")
        if part.content_type == "text/plain" and part.parameters.word("format") == "flowed":
            text = unflow(text, part.parameters.word("delsp") == "yes")
        if not body.is_blank(text):
            self._texts[part.number] = Text(self._storable(text, part), html)

    def _without_uuencoded(self, number: str, content: bytes) -> bytes:
        """Return the octets of a text without the uuencoded files in it, which become attachments."""
        if b"begin" not in content:
            return content
        from . import uuencode

        content, files = uuencode.split(content, self._limits.parts - len(self.attachments))
        self._add_uuencoded(number, files)
        return content

    def _add_uuencoded(self, number: str, files: "list[uuencode.File]") -> None:
        for index, file in enumerate(files, 1):
            name = decode_words(decode(file.name, None, self._hints).text, self._hints)[0]
            if not file.complete:
                self._notebook.note("uuencode-broken", f"{number}.{index}", "no end line")
            self.attachments.append(
                Attachment(
                    f"{number}.{index}", "application/octet-stream", file.content, storable(name).strip() or None
                )
            )

    def _add_tnef(self, number: str, content: bytes, nesting: int) -> None:
        """Add the contents of a winmail.dat as attachments that are numbered below it."""
        room = self._limits.parts - len(self.attachments)
        if nesting >= _TNEF_NESTING or room <= 0:
            self._notebook.note("container-left-out", number, "application/ms-tnef")
            return
        from . import tnef

        try:
            contents = tnef.read(content, room)
        except tnef.Broken as error:
            self._notebook.note("container-broken", number, str(error))
            return
        if not contents.complete:
            self._notebook.note("container-broken", number, "it ends too early, or has too many files")
        if not nesting:
            self._tnef.append((number, contents))
        for index, file in enumerate(contents.files, 1):
            inner = f"{number}.{index}"
            kind = "application/ms-tnef" if file.message else file.content_type or "application/octet-stream"
            self.attachments.append(
                Attachment(
                    inner,
                    storable(kind.strip().lower()),
                    file.content,
                    storable((file.name or "").strip("\0 ")) or None,
                    storable((file.content_id or "").strip("<>\0 ")) or None,
                )
            )
            if file.message:
                self._add_tnef(inner, file.content, nesting + 1)


def _token(part: Part, name: str) -> str:
    """Return a one-word field without the blanks that folding leaves in it."""
    return "".join((part.first(name) or b"").decode("utf-8", "replace").split())


def _is_binary(content: bytes, label: str | None) -> bool:
    """Whether octets labelled as text are binary: at least one control character in ten."""
    sample = content[:_SAMPLE]
    sample = sample.rstrip(b"\0\r\n") or sample  # some programs send the end of a C string as well
    few = len(sample) // 10
    if len(sample) - len(sample.translate(None, _CONTROLS)) <= few:
        return False
    from . import stateful, utf_16

    if utf_16.is_wide(content, label):
        return False
    return not stateful.shifts(sample, label) or len(sample) - len(sample.translate(None, _CONTROLS_BUT_SHIFTS)) > few
