"""Convert an HTML body to text, for mail that has no text body.

This is done once, when the message is stored, so that any SQL client can read the text (docs/design/cost.md). Time and
memory are bounded by the sizes below, whatever the HTML: libxml2 reads it once and builds no tree.
"""

import re
from collections.abc import Mapping

_SIZE = 1_000_000  # characters of HTML that are read
STORED_SIZE = 300_000
"""Characters of HTML whose text is stored with the message. Newsletters rarely have a third of that."""
_CHUNK = 16_384
_LONG_DATA = re.compile(r"data:[^\"'\s<>]{1000,}")  # images in attributes
_LONG_TAG = re.compile(r"<[^<>]{32768,}>?")  # libxml2 compares each attribute with the others of its element

_NOT_SHOWN = frozenset({"head", "script", "style", "template", "title", "object", "iframe", "datalist"})
_BLOCKS = frozenset({
    "address", "article", "aside", "body", "caption", "center", "dd", "div", "dt", "fieldset", "figcaption", "figure", "footer",
    "form", "header", "html", "li", "main", "nav", "section", "tbody", "tfoot", "thead", "tr",
})  # fmt: skip
_PARAGRAPHS = frozenset({"blockquote", "dl", "h1", "h2", "h3", "h4", "h5", "h6", "ol", "p", "pre", "table", "ul"})
# Elements that begin and end a line, and whether an empty line surrounds them.
_BREAKS = dict.fromkeys(_BLOCKS, False) | dict.fromkeys(_PARAGRAPHS, True)
_EMPTY = frozenset({"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "wbr"})
# Styles that hide an element in every client. A font size of 0 does not: it closes gaps between blocks, which set their
# own size.
_HIDDEN = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden|opacity\s*:\s*0(?:\.0*)?"
    r"|max-height\s*:\s*0(?:px|pt|em|rem|%)?|font-size\s*:\s*1px)\s*(?:!\s*important\s*)?(?:;|$)",
    re.IGNORECASE,
)
_NO_SIZE = re.compile(
    r"(?:^|;)\s*(?:max-)?(?:height|width)\s*:\s*0(?:px|pt|em|rem|%)?\s*(?:!\s*important\s*)?(?:;|$)", re.IGNORECASE
)
_CLIPPED = re.compile(r"overflow\s*:\s*hidden", re.IGNORECASE)
_LINE_ENDS = dict.fromkeys(map(ord, "\t\n\r"))  # they do not count in a link target (WHATWG URL 4.4)
_LINK_PIECES = 100  # of a link whose text is compared with its target; links can be nested without end
_QUOTE = "> " * 10  # before quoted lines, by their level


def to_text(html: str, links: bool = True, size: int = _SIZE) -> str:
    """Return the visible text of `html`. Never raises for content.

    Each block is on its own line, with an empty line around paragraphs, `- ` before list items and `> ` before quoted
    lines. With `links` the target of a link follows its text in angle brackets. Only the first `size` characters of the
    HTML are read; the text has at most that many, or slightly more.
    """
    return _read(html, size, _Text(links, size))


def _read(html: str, size: int, target: "_Text") -> str:
    from lxml import etree

    html = _LONG_TAG.sub(" ", _LONG_DATA.sub("data:", html[: 10 * size])[:size])
    parser = etree.HTMLParser(target=target, encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        for start in range(0, len(html), _CHUNK):
            parser.feed(html[start : start + _CHUNK].encode("utf-8", "replace"))
            if target.has_enough():
                return target.text()
        parser.close()
    except etree.LxmlError:
        pass  # no content, or no more of it: keep what was read
    return target.text()


class _Styles(dict[str | None, bool]):
    """Whether a style hides its element, by the style. Many elements have the same."""

    def __missing__(self, style: str | None) -> bool:
        hides = self[style] = bool(
            style and (_HIDDEN.search(style) or (_CLIPPED.search(style) and _NO_SIZE.search(style)))
        )
        return hides


class _Text:
    """A target for lxml's parser, which calls start, data and end in document order.

    Most of the cost is in these calls, so they collect pieces, and the white space is folded once for each line.
    """

    def __init__(self, links: bool, enough: int) -> None:
        self._links, self._enough = links, enough
        self._size = 0
        self._lines: list[str] = []
        self._line: list[str] = []  # as it was read; outside <pre>, the first piece is not blank
        self._gap: int | None = None  # an empty line is pending, at this quote depth
        self._space = False  # white space was read since the line began, and nothing else
        self._item = False  # the next line begins a list item
        self._quotes = self._verbatim = 0
        self._hidden: list[str] = []  # the open elements from the outermost hidden one inwards
        self._targets: list[tuple[str, int, int]] = []  # of open links, with the lines and pieces before each
        self._hides = _Styles()

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if (
            self._hidden
            or tag in _NOT_SHOWN
            or (attributes and ("hidden" in attributes or self._hides[attributes.get("style")]))
        ):
            if tag not in _EMPTY:
                self._hidden.append(tag)
            return
        gap = _BREAKS.get(tag)
        if gap is not None:
            self._break(gap)
            if tag == "li":
                self._item = True
            elif tag == "blockquote":
                self._quotes += 1
            elif tag == "pre":
                self._verbatim += 1
        elif tag == "a":
            self._targets.append((attributes.get("href") or "", len(self._lines), len(self._line)))
        elif tag == "br":
            self._break()
        elif tag in ("td", "th"):
            if not self._verbatim:
                self.data(" ")
        elif tag == "img":
            if alt := (attributes.get("alt") or "").strip():
                self.data(f" {alt} ")
        elif tag == "hr":
            self._break(gap=True)

    def end(self, tag: str) -> None:
        if self._hidden:
            if tag == self._hidden[-1]:
                self._hidden.pop()
            return
        gap = _BREAKS.get(tag)
        if gap is not None:
            self._break(gap)
            if tag == "li":
                self._item = False
            elif tag == "blockquote":
                self._quotes -= 1
            elif tag == "pre":
                self._verbatim -= 1
        elif tag == "a" and self._targets:
            self._end_link(*self._targets.pop())

    def data(self, text: str) -> None:
        if self._hidden:
            return
        if self._verbatim:
            first, *others = text.split("\n")
            if first:
                self._line.append(first)
            for line in others:
                self._break(keep=True)
                if line:
                    self._line.append(line)
        elif self._line or not text.isspace():
            self._line.append(text)
        else:
            self._space = True

    def close(self) -> None:
        """Accept the end of the document, as lxml requires."""

    def has_enough(self) -> bool:
        """Whether the text has reached its limit. It can outgrow the HTML, because each quoted line is marked."""
        return self._size > self._enough

    def text(self) -> str:
        """Return the text read so far."""
        self._break()
        return "\n".join(self._lines)

    def _break(self, gap: bool = False, keep: bool = False) -> None:
        self._space = False
        if self._line or keep:
            line = "".join(self._line)
            self._line.clear()
            if not self._verbatim:
                # Text that is printable has no white space but blanks; this takes half as long as to divide it into words.
                folded = line.isprintable() and "  " not in line
                self._end_line(line.strip() if folded else " ".join(line.split()))
            elif keep or line.strip():
                self._end_line(line.rstrip())
        if gap and (self._gap is None or self._gap > self._quotes):
            self._gap = self._quotes

    def _end_line(self, line: str) -> None:
        if self._gap is not None:
            if self._lines:
                self._lines.append(_QUOTE[: 2 * min(self._gap, self._quotes)].rstrip())
            self._gap = None
        if self._item:
            line, self._item = f"- {line}".rstrip(), False
        if self._quotes:
            line = (_QUOTE[: 2 * self._quotes] + line).rstrip()
        self._lines.append(line)
        self._size += len(line)

    def _end_link(self, target: str, lines: int, pieces: int) -> None:
        target = target.strip().translate(_LINE_ENDS)
        if self._links and target.lower().startswith(("http://", "https://", "mailto:")):
            shown = ""
            if lines == len(self._lines) and len(self._line) - pieces <= _LINK_PIECES:
                shown = " ".join("".join(self._line[pieces:]).split())
            if target not in (shown, f"mailto:{shown}", f"{shown}/"):
                # White space that ends the text of the link separates its target from what follows.
                space = self._line[-1][-1].isspace() if self._line else self._space
                after = " " if space and not self._verbatim else ""
                self._line.append(f" <{target}>{after}" if self._line else f"<{target}>{after}")
