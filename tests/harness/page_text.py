"""A page as a browser reads it."""

from collections.abc import Mapping
from html.parser import HTMLParser


class PageText(HTMLParser):
    """The texts of a page, with the attributes that people read, and its elements.

    Raises AssertionError for an element that is not closed.
    """

    _VOID = frozenset({"meta", "link", "input", "br", "hr", "img", "source", "wbr"})
    _READ = frozenset({"title", "aria-label", "placeholder", "alt"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.elements: list[tuple[str, Mapping[str, str | None]]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.texts += [value for name, value in attrs if name in self._READ and value]
        if tag == "meta" and ("name", "description") in attrs:
            self.texts.append(dict(attrs)["content"] or "")
        if tag not in self._VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if data.strip() and self._open[-1:] not in (["style"], ["script"]):
            self.texts.append(data.strip())
