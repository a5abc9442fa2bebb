"""Entities enclosed in an undivided part: the content of an opaque signature, and a multipart encoded as a whole."""

from . import content_type, mime, transfer_encoding
from .defect import Notebook
from .limits import Limits
from .parameter import parse
from .part import Part

_SIGNED = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})  # RFC 8551 3.2
_NESTING = 4  # nested signatures; RFC 2634 1.1 defines three levels


def open_all(root: Part, limits: Limits, notebook: Notebook) -> None:
    """Set `inside` of each part that encloses an entity. Together they have at most twice the message's octets."""
    leaves = list(root.leaves())
    waiting = [(part, 0) for part in leaves if _may_enclose(part)]
    budget, count = 2 * len(root.raw), len(leaves)
    while waiting:
        part, nesting = waiting.pop()
        if nesting >= _NESTING or part.depth >= limits.depth or part.end - part.start > budget:
            notebook.note("container-left-out", part.number, part.content_type)
            continue
        content = _decoded(part)
        budget -= len(content)
        octets = _entity(part, content, notebook)
        if octets is None:
            continue
        part.inside = mime.scan(octets, limits, notebook, part, count)
        inner = list(part.inside.leaves())
        count += len(inner)
        waiting += [(each, nesting + 1) for each in inner if _may_enclose(each)]


def _may_enclose(part: Part) -> bool:
    kind = part.content_type
    if kind.startswith("multipart/"):
        return not part.skipped and part.is_encoded
    if kind == "application/octet-stream":  # some gateways replace the media type (RFC 8551 3.2.1)
        disposition = part.first("content-disposition") or b""
        names = [part.parameters.octets("name")]
        names += [parse(disposition).octets("filename")] if b".p7m" in disposition.lower() else []
        return any((name or b"").strip().lower().endswith(b".p7m") for name in names)
    return kind in _SIGNED


def _decoded(part: Part) -> bytes:
    return transfer_encoding.decode(part.raw, part.start, part.end, part.transfer_encoding, lambda code, detail: None)


def _entity(part: Part, content: bytes, notebook: Notebook) -> bytes | None:
    """Return the enclosed entity, header and body; None if there is none."""
    if not part.content_type.startswith("multipart/"):
        from . import cms

        try:
            return cms.signed_content(content)
        except cms.Broken as error:
            notebook.note("container-broken", part.number, str(error))
            return None
    boundary = content_type.boundary_of(part.parameters)
    if not boundary or b"--" + boundary not in content:
        notebook.note("boundary-not-found" if boundary else "boundary-missing", part.number)
        return None
    # Forbidden by RFC 2045 6.4, but at least one system sends it.
    notebook.note("multipart-encoded", part.number, part.transfer_encoding)
    return b"Content-Type:%s\n\n%s" % ((part.first("content-type") or b"").rstrip(b"\r\n"), content)
