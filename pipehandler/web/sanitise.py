"""The policy for hostile HTML, and the program of the child process that applies it (runtime/confined.py).

What is left of a mail: elements that format text, style sheets, links to http, https, mailto and tel, and images. What
can run, submit, embed, or change how the rest is parsed is removed: script, handlers, forms, frames, SVG, MathML, link,
meta and base. A style sheet may name remote content; the header of the response blocks it (headers.py).

The HTML is parsed as a browser does (html5ever), changed as a tree, and written again. Nothing changes it afterwards.
"""

import base64
import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import nh3

from ..parse.html_text import to_text
from ..runtime.confined import Fields, serve
from .codes import OneTimeCode
from .findings import findings, packed, unpacked
from .images import MAX_INLINE, image_type
from .links import links_of_html

MEMORY = 256_000_000
"""Octets that a child may use for one message."""
SECONDS = 2
"""Seconds for one message, with the time that its answer takes."""
MAX_HTML = 2_000_000
"""Characters of HTML that are sanitised."""
_MAX_RESULT = 6_000_000  # characters; links and `&` become longer

_TAGS = frozenset({
    "a", "abbr", "acronym", "address", "article", "aside", "b", "bdi", "bdo", "big", "blockquote", "br", "caption", "center",
    "cite", "code", "col", "colgroup", "data", "dd", "del", "details", "dfn", "dir", "div", "dl", "dt", "em", "figcaption",
    "figure", "font", "footer", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "i", "img", "ins", "kbd", "li",
    "main", "map", "mark", "menu", "nav", "ol", "p", "picture", "pre", "q", "rp", "rt", "ruby", "s", "samp", "section",
    "small", "span", "strike", "strong", "style", "sub", "summary", "sup", "table", "tbody", "td", "tfoot", "th", "thead",
    "time", "tr", "tt", "u", "ul", "var", "wbr",
})  # fmt: skip
# Removed with all that is in them: what is no text, or is parsed by other rules than its surroundings.
_REMOVED = frozenset({
    "applet", "audio", "canvas", "datalist", "embed", "frameset", "iframe", "math", "noembed", "noframes", "noscript",
    "object", "plaintext", "script", "select", "svg", "template", "textarea", "title", "video", "xmp",
})  # fmt: skip
_CELL = frozenset({"align", "background", "bgcolor", "char", "charoff", "height", "nowrap", "valign", "width"})
_ATTRIBUTES = {
    "*": {"align", "aria-hidden", "aria-label", "class", "dir", "id", "lang", "role", "style", "title"},
    "a": {"href", "name"},
    "bdo": {"dir"},
    "blockquote": {"type"},
    "br": {"clear"},
    "col": {"span", *_CELL},
    "colgroup": {"span", *_CELL},
    "data": {"value"},
    "del": {"datetime"},
    "details": {"open"},
    "div": {"background"},
    "font": {"color", "face", "size"},
    "hr": {"color", "noshade", "size", "width"},
    "img": {"alt", "border", "height", "hspace", "src", "vspace", "width"},
    "ins": {"datetime"},
    "li": {"type", "value"},
    "ol": {"reversed", "start", "type"},
    "pre": {"width"},
    "style": {"media", "type"},
    "table": {"border", "bordercolor", "cellpadding", "cellspacing", "frame", "rules", "summary", *_CELL},
    "tbody": set(_CELL),
    "td": {"abbr", "axis", "colspan", "headers", "rowspan", "scope", *_CELL},
    "tfoot": set(_CELL),
    "th": {"abbr", "axis", "colspan", "headers", "rowspan", "scope", *_CELL},
    "thead": set(_CELL),
    "time": {"datetime"},
    "tr": set(_CELL),
    "ul": {"type"},
}
_SCHEMES = {"cid", "data", "http", "https", "mailto", "tel"}  # each attribute admits some of them

_IGNORED = re.compile(r"[\t\n\r]")  # by browsers, anywhere in a URL
_AROUND = "".join(map(chr, range(0x21)))
_REMOTE = re.compile(r"(?:https?:)?[/\\]{2}(?=[^/\\])", re.IGNORECASE)
_LINK = re.compile(r"(?:https?:[/\\]*[^/\\]|mailto:|tel:|#)", re.IGNORECASE)
_DATA = re.compile(r"data:image/[a-z.+-]+;base64,", re.IGNORECASE)
_CSS_IMAGE = re.compile(r"url\(\s*['\"]?\s*((?:https?:)?//[^'\")\s]+)", re.IGNORECASE)
_CSS_NOT_IMAGE = re.compile(r"@import[^;}]*|@font-face\s*\{[^}]*|@namespace[^;}]*", re.IGNORECASE)
_STYLE = re.compile(r"<style\b[^>]*>(.*?)</style>", re.IGNORECASE | re.DOTALL)
_BODY = re.compile(r"<body\b((?:[^<>\"']|\"[^\"]*\"|'[^']*')*)>", re.IGNORECASE)
_BGCOLOR = re.compile(r"\bbgcolor\s*=\s*[\"']?\s*(#?[a-z0-9]{3,20})\b", re.IGNORECASE)


class Sanitised(NamedTuple):
    """HTML without and with remote images, and the numbers of images that a click shows, and that cannot be shown."""

    blocked: str
    with_images: str
    images: int
    not_shown: int


class TooLarge(Exception):
    """The result would be larger than a page should be."""


def sanitise(html: str, inline: dict[str, bytes]) -> Sanitised:
    """Apply the policy to `html`, of a message whose parts with these Content-IDs are images that may be shown."""
    html = _with_body(html)
    pass_without = _Filter(inline, remote=False)
    blocked = _clean(html, pass_without)
    images = len(pass_without.remote_images | _css_images(blocked))
    with_images = _clean(html, _Filter(inline, remote=True)) if pass_without.remote_images else blocked
    return Sanitised(blocked, with_images, images, pass_without.not_shown)


def _clean(html: str, attribute_filter: "_Filter") -> str:
    cleaned = nh3.clean(
        html,
        tags=set(_TAGS),
        clean_content_tags=set(_REMOVED),
        attributes=_ATTRIBUTES,
        attribute_filter=attribute_filter,
        url_schemes=_SCHEMES,
        url_relative="pass_through",
        link_rel="noopener noreferrer nofollow",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )
    if len(cleaned) > _MAX_RESULT:
        raise TooLarge
    return cleaned


class _Filter:
    """The rule for each attribute. nh3 calls it in the order of the document; an element's `target` comes last."""

    def __init__(self, inline: dict[str, bytes], remote: bool) -> None:
        self._inline, self._remote = inline, remote
        self._room = MAX_INLINE
        self._within = False  # the last href leads to another place of the same mail
        self.remote_images: set[str] = set()
        self.not_shown = 0

    def __call__(self, element: str, attribute: str, value: str) -> str | None:
        if attribute == "href":
            value = _IGNORED.sub("", value).strip(_AROUND)
            if value[:2] in ("//", "\\\\", "/\\", "\\/"):
                value = f"https:{value}"
            self._within = value.startswith("#")
            return value if _LINK.match(value) else None
        if attribute == "target":  # ours; it would open the mail itself in a new window
            within, self._within = self._within, False
            return None if within else value
        if attribute in ("src", "background"):
            return self._image(_IGNORED.sub("", value).strip(_AROUND))
        return value

    def _image(self, url: str) -> str | None:
        if _REMOTE.match(url):
            url = _REMOTE.sub("https://", url, count=1)
            self.remote_images.add(url)
            return url if self._remote else None
        shown = None
        if url[:4].lower() == "cid:":
            shown = self._inlined(self._inline.get(content_id(url)))
        elif scheme := _DATA.match(url):
            try:
                shown = self._inlined(base64.b64decode(url[scheme.end() :] + "=="))
            except ValueError:
                shown = None
        if shown is None:
            self.not_shown += 1
        return shown

    def _inlined(self, content: bytes | None) -> str | None:
        """Return a data: URL whose type is that of the content, not the one that the sender states."""
        found = image_type(content) if content and len(content) <= self._room else None
        if not content or not found or not found.showable:
            return None
        self._room -= len(content)  # each mention counts: one image may be named thousands of times
        return f"data:{found.media_type};base64,{base64.b64encode(content).decode()}"


def _css_images(html: str) -> set[str]:
    """Return the URLs of the remote images that style sheets and style attributes of sanitised HTML name."""
    if "url(" not in html.lower():
        return set()
    text = _CSS_NOT_IMAGE.sub("", html.replace("&quot;", '"'))
    return {re.sub(r"^(?:https?:)?//", "https://", url, flags=re.IGNORECASE) for url in _CSS_IMAGE.findall(text)}


def _with_body(html: str) -> str:
    """Return `html` within a `div` that looks as its `body` does, which the policy knows nothing of."""
    body = _BODY.search(html)
    if not body:
        return html
    colour = _BGCOLOR.search(body[1])
    around = f'<div style="background-color:{colour[1]}">' if colour else ""
    return f"{around}<div{body[1]}>{html[: body.start()]}{html[body.end() :]}"


_CID = re.compile(r"cid:([^\"'\s<>)]{1,500})", re.IGNORECASE)
_MOST_CIDS = 2000  # this is looked for in the process of the page


def content_id(url: str) -> str:
    """Return the Content-ID that a cid: URL names (RFC 2392): without angle brackets, decoded."""
    from urllib.parse import unquote

    return unquote(url[4:]).strip("<> ")


def content_ids(html: str) -> list[str]:
    """Return the Content-IDs that `html` names, each once, in their order: the parts that the sanitiser needs."""
    from html import unescape

    return list(dict.fromkeys(content_id(unescape(url[0])) for url in islice(_CID.finditer(html), _MOST_CIDS)))


HTML, TEXT = b"html", b"text"
"""The first field of a request."""


def _answers(fields: list[bytes]) -> Iterator[Fields]:
    kind, *rest = fields
    yield from _of_text(rest) if kind == TEXT else _of_html(rest)


def _of_text(fields: list[bytes]) -> Iterator[Fields]:
    """Answer a request for what a reader takes from a message: its subject, its text, its plain text, the links of its HTML."""
    subject, text, plain, links = fields
    result = findings(subject.decode(), text.decode(), plain.decode(), unpacked(links))
    code, link = "", b""
    if isinstance(result.found, OneTimeCode):
        code = result.found.code
    elif result.found is not None:
        link = packed([result.found.link])
    yield packed(result.links), code.encode(), link


def _of_html(fields: list[bytes]) -> Iterator[Fields]:
    """Answer a request to make HTML safe: the HTML, a list of Content-IDs in JSON, and the images.

    First the text with the targets of its links, which is quickly made whatever the HTML is; then, unless that is too
    large, everything else.
    """
    html, names, *images = fields
    text = html.decode()
    yield (to_text(text[:MAX_HTML]).encode(),)
    if len(text) > MAX_HTML:
        yield ()
        return
    try:
        result = sanitise(text, dict(zip(json.loads(names), images, strict=True)))
    except TooLarge:
        yield ()
        return
    facts = {"images": result.images, "not_shown": result.not_shown}
    links = packed(links_of_html(result.blocked))
    with_images = "" if result.with_images == result.blocked else result.with_images
    without_links = to_text(text, links=False)
    yield json.dumps(facts).encode(), links, without_links.encode(), result.blocked.encode(), with_images.encode()


if __name__ == "__main__":
    sanitise('<p style="color:red"><a href="https://example.org">ready</a>', {})  # all that is loaded at first use
    to_text("<p>ready</p>")
    findings("", "your code is 123456", "https://example.org", ())
    serve(_answers, MEMORY, SECONDS)
