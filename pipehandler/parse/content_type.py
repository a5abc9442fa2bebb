"""The media type of a part (RFC 2045 5, RFC 2046 5.1): its Content-Type, or the best guess if that is in doubt."""

import re
from collections.abc import Sequence

from . import parameter
from .parameter import Parameters

_MEDIA_TYPE = re.compile(r"[^\s/;=()<>@,:\\\"\[\]?']+/[^\s/;=()<>@,:\\\"\[\]?']+")  # RFC 2045 5.1
# Compiled on first use (re caches them): few messages are wrong here.
_KNOWN = r"\b(text|image|audio|video|application|multipart|message|model|font)[/\\]+([a-z0-9][a-z0-9!#$^_.+-]*[a-z0-9]|[a-z0-9])"
_HTML_AND_MORE = ("text/html.", "text/html&", "text/html-", "text/html_")
_HTML_ALONE = r"[^a-z0-9]html\Z"  # as in text-html
_LOOKS_LIKE_HTML = (
    rb"(?i)<(?:!doctype html|html|head|body|div|p|table|br|a|span|font|center|img|style|h[1-6])\b"
    rb"|(?-i:\A\s*(?:PGh0bW|PEhUTU|PCFET0N|PCFkb2N|PGhlYW|PGJvZH|PGRpd|PHRhYm|PGNlbn))"  # the same in base64
)
_DELIMITER_AND_FIELD = rb"(?i)\n--(\S[^\n]{0,200}?)[ \t]*\r?\nContent-[A-Za-z-]+:"
TNEF_SIGNATURE = b"\x78\x9f\x3e\x22"  # MS-OXTNEF: TNEFSignature
_TNEF = frozenset({"application/ms-tnef", "application/vnd.ms-tnef"})
_REPEATED = 10  # Content-Type fields read of one part
_NEAR = 65_536  # octets of a part in which a delimiter has to appear; the message itself has no such limit


def read(bodies: Sequence[bytes], default: str, raw: bytes, start: int, whole: bool) -> tuple[str, Parameters, str]:
    """Return the media type and parameters of a part, and what was wrong with its Content-Type, "" if nothing was.

    `bodies` are those of its Content-Type fields. Of several, the one that fits the part's body counts, else the first.
    The body begins at `raw[start:]`, which is the body of the message if `whole`.
    """
    bodies = [body for body in bodies[:_REPEATED] if body.strip()]
    candidates = [_valid(parameter.parse(body), default) for body in bodies]
    if len(candidates) < 2:
        return candidates[0] if candidates else (default, parameter.parse(b""), "")
    fitting = [each for each in candidates if _fits(each[0], each[1], raw, start, whole)]
    multipart = [each for each in fitting if each[0].startswith("multipart/")]
    best = multipart or fitting or candidates
    same = (each for each in best if each[0] == best[0][0] and each[1].token("charset"))
    return next(same, best[0])


def boundary_of(parameters: Parameters) -> bytes:
    """Return the boundary (RFC 2046 5.1.1); b"" if there is none."""
    return (parameters.octets("boundary") or b"").rstrip()


def guess_boundary(raw: bytes, start: int) -> bytes | None:
    """Return what looks like the boundary of a multipart whose boundary parameter is wrong or missing."""
    found = re.compile(_DELIMITER_AND_FIELD).search(raw, max(0, start - 1))
    return found[1] if found else None


def is_tnef(content_type: str, content: bytes) -> bool:
    """Whether a part is a winmail.dat, by its media type or its signature."""
    return content_type in _TNEF or content.startswith(TNEF_SIGNATURE)


def _fits(content_type: str, parameters: Parameters, raw: bytes, start: int, whole: bool) -> bool:
    if content_type.startswith("multipart/"):
        boundary = boundary_of(parameters)
        end = len(raw) if whole else start + _NEAR
        return bool(boundary) and raw.find(b"--" + boundary, start, end) >= 0
    html = re.search(_LOOKS_LIKE_HTML, raw[start : start + 1_000]) is not None
    return (content_type == "text/html") == html


def _valid(parameters: Parameters, default: str) -> tuple[str, Parameters, str]:
    value = parameters.value
    if not value:
        return "application/octet-stream" if _names_a_file(parameters) else default, parameters, ""
    if _MEDIA_TYPE.fullmatch(value) and not value.startswith(_HTML_AND_MORE):
        return value, parameters, ""
    found = re.search(_KNOWN, value.partition("charset")[0])  # as when quoted, or followed by a comma
    if found:
        return f"{found[1]}/{found[2]}", parameters, value
    if re.search(_HTML_ALONE, value):
        return "text/html", parameters, value
    # RFC 2045 5.2 suggests text/plain, which a file with a name of its own is not.
    file = _names_a_file(parameters) and not value.startswith("text")
    return "application/octet-stream" if file else "text/plain", parameters, value


def _names_a_file(parameters: Parameters) -> bool:
    """Whether there is a name, other than that of a text."""
    name = (parameters.octets("name") or b"").strip().lower()
    return bool(name) and not name.endswith((b".txt", b".htm", b".html"))
