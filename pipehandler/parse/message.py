"""Parse a message from octets to a ParsedMessage.

    parse(raw) -> mime.scan: header fields and parts -> enclosed: entities inside parts
               -> header: subject, addresses, date
               -> leaf: each part, its transfer encoding undone, as text of the body or as an attachment
               -> body: the texts joined; html_text: the visible text of HTML
               -> report: the contents of a bounce or a complaint -> ParsedMessage

Parsing is total and deterministic: any octets give a ParsedMessage, and always the same one. Its defects list whatever
was guessed, replaced or left out. A field or part that fails does not affect the others.
"""

from importlib.metadata import version

from pipehandler.mail.parsed import ParsedMessage

from . import body, bulk, enclosed, mime, transfer_encoding
from .charset import codec, is_utf8, storable
from .decoding import decode
from .defect import DEFECTS, Notebook
from .header import Header
from .leaf import Leaves
from .limits import DEFAULT, Limits
from .part import Part, deciding
from .preview import preview

__all__ = ["DEFECTS", "PARSER_VERSION", "Limits", "parse"]

# Stored with each message: our version, raised when the same octets may give another result, and mail-parser's.
PARSER_VERSION = f"2 mail-parser/{version('mail-parser')}"

_ASCII = bytes(range(128))


def parse(raw: bytes, limits: Limits = DEFAULT, trusted_authserv_ids: tuple[str, ...] = ()) -> ParsedMessage:
    """Parse one message. Never raises for its content; a BaseException such as TimeUp passes through.

    `raw` is a message in the format of RFC 5322, with LF or CRLF line ends. `limits` bound what is decoded.
    `trusted_authserv_ids` are the hosts, in lower case, whose authentication results count (RFC 8601).
    """
    notebook = Notebook()
    root = mime.scan(raw, limits, notebook)
    enclosed.open_all(root, limits, notebook)
    hints = _charsets(root)
    header = Header(root.fields, limits, hints, notebook)
    parsed = ParsedMessage(
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
        list_unsubscribe=bulk.unsubscribe(header.unstructured("list-unsubscribe")),
        auto_submitted=bulk.keyword(header.unstructured("auto-submitted")),
        precedence=bulk.keyword(header.unstructured("precedence")),
        header=header.fields,
    )
    parsed.date, parsed.date_offset = header.date()
    parsed.list_unsubscribe_post = bulk.is_one_click(
        header.unstructured("list-unsubscribe-post"), parsed.list_unsubscribe
    )
    leaves = Leaves(header.hints, limits, notebook)
    for part, place in body.places(root):
        if not part.skipped:
            leaves.add(part, place)
    parsed.text, parsed.html = leaves.bodies(root)
    parsed.attachments = leaves.attachments
    # Imported on use: a cold delivery of most mail needs none of them.
    if trusted_authserv_ids:
        from . import authentication

        parsed.authentication = authentication.read(header.fields, trusted_authserv_ids)
    if parsed.text is None and parsed.html is not None:
        from . import html_text

        parsed.text_from_html = storable(html_text.to_text(parsed.html, size=html_text.STORED_SIZE)) or None
    parsed.preview = storable(preview(parsed.text, parsed.text_from_html))
    if any(each.content_type.startswith("message/") for each in parsed.attachments):
        from . import report

        parsed.report = report.read(parsed.attachments, notebook)
    parsed.defects = notebook.close()
    return parsed


def _charsets(root: Part) -> list[str]:
    """Return the charsets of the labelled text parts, as hints for unlabelled text.

    If the header has unlabelled 8-bit octets, and an unlabelled text has more of them, the charset detected in that
    text comes first: the more octets, the surer the detection.
    """
    texts = [part for part in root.leaves() if part.content_type.startswith("text/")]
    labels = [part.parameters.token("charset") for part in texts]
    hints = list(dict.fromkeys(label for label in labels if label and codec(label)))[:4]
    fields = deciding(root.fields)
    if not all(field.body.isascii() for field in fields):
        in_header = sum(_beyond_ascii(field.body) for field in fields)
        for part, label in zip(texts, labels, strict=True):
            if codec(label) in (None, "ascii"):
                content = transfer_encoding.decode(
                    part.raw, part.start, part.end, part.transfer_encoding, lambda code, detail: None
                )
                if not is_utf8(content) and _beyond_ascii(content) > in_header:
                    return [decode(content, None, hints).codec, *hints]
    return hints


def _beyond_ascii(octets: bytes) -> int:
    return 0 if octets.isascii() else len(octets.translate(None, _ASCII))
