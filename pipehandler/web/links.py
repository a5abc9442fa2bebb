"""The links of a message, and where they really lead. Nothing is ever fetched."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import unescape
from urllib.parse import unquote

from .hosts import forms, has_mixed_scripts, named_hosts, owns

MAX_LINKS = 1000
"""Links of one message that are listed."""
_LONGEST_TEXT = 500  # characters of a link's text that are kept and searched


@dataclass(frozen=True, slots=True)
class Link:
    """One link.

    text: what a reader sees; the URL if nothing. url: where it leads. host, ascii_host: its host in Unicode and as it is
    asked for (A-labels, RFC 5890), or the domain of an address (mailto), or "" (tel). mismatch: the text names another
    host; one below the named host belongs to the same owner and is no mismatch. mixed_scripts: the host may look like
    another, because it mixes scripts or imitates Latin letters.
    """

    text: str
    url: str
    host: str
    ascii_host: str
    mismatch: bool
    mixed_scripts: bool


def link(text: str, url: str) -> Link:
    """Return the link that shows `text` and leads to `url`."""
    text = " ".join(text.split())[:_LONGEST_TEXT]
    host, ascii_host = forms(_host(url))
    return Link(
        text=text or url[:_LONGEST_TEXT],
        url=url,
        host=host,
        ascii_host=ascii_host,
        mismatch=bool(ascii_host) and _deceives(text, url, ascii_host),
        mixed_scripts=has_mixed_scripts(host),
    )


_PLAIN_URL = re.compile(
    r"(?<![\w@./-])(?:https?://|www\.(?=\w))[^\s\x00-\x1f\x7f<>\"'«»“”„`|\\^{}]{1,2000}", re.IGNORECASE
)
# What stands where a port belongs and is none: browsers do not follow it.
_NO_PORT = re.compile(r"(?:https?://)?[^/?#@:\[]+:(?!\d{0,5}(?:[/?#]|$))[^/?#@]*(?:[/?#]|$)", re.IGNORECASE)
_CLOSING = {")": "(", "]": "[", "}": "{", "）": "（", "】": "【", "」": "「"}
_TRAILING = ".,;:!?…。，、；：！？*_'’"


def links_of_text(text: str) -> tuple[Link, ...]:
    """Return the links of a plain text, each URL once, in their order."""
    return _each_once((url, url) for url in _plain_urls(text))


def _plain_urls(text: str) -> Iterable[str]:
    for found in _PLAIN_URL.finditer(text):
        url = found[0]
        while url and (url[-1] in _TRAILING or _is_unopened(url[-1], url)):
            url = url[:-1]
        if _NO_PORT.match(url):
            continue
        yield url if url[:4].lower() == "http" else f"https://{url}"


def _is_unopened(letter: str, url: str) -> bool:
    """Whether `letter` closes a bracket that stands before the URL, as in (https://example.org)."""
    return letter in _CLOSING and url.count(_CLOSING[letter]) < url.count(letter)


_RAW_STYLE = re.compile(r"<style\b[^>]*>.*?</style>", re.DOTALL)
_TAG = r"(?:[^>\"]|\"[^\"]*\")*"
_ANCHOR = re.compile(rf"<a ({_TAG})>(.*?)</a>", re.DOTALL)
_HREF = re.compile(r'(?:^| )href="([^"]*)"')
_ALT = re.compile(r' alt="([^"]*)"')
_BLOCK = re.compile(r"</?(?:br|div|h[1-6]|hr|li|p|t[a-z]+)\b")
_ANY_TAG = re.compile(rf"<{_TAG}>")


def links_of_html(html: str) -> tuple[Link, ...]:
    """Return the links of HTML that was sanitised (sanitise.py), whose tags and quotes are therefore well-formed."""
    return _each_once(_anchors(_RAW_STYLE.sub("", html)))


def _anchors(html: str) -> Iterable[tuple[str, str]]:
    for anchor in _ANCHOR.finditer(html):
        href = _HREF.search(anchor[1])
        if href and not href[1].startswith("#"):
            yield unescape(_ANY_TAG.sub(_shown, anchor[2])), unescape(href[1])


def _shown(tag: re.Match[str]) -> str:
    """Return the text that a tag within a link stands for."""
    alt = _ALT.search(tag[0]) if tag[0].startswith("<img") else None
    return f" {alt[1]} " if alt else " " if _BLOCK.match(tag[0]) else ""


def _each_once(found: Iterable[tuple[str, str]]) -> tuple[Link, ...]:
    links: dict[tuple[str, str], Link] = {}
    for text, url in found:
        if len(links) >= MAX_LINKS:
            break
        if (text, url) not in links:
            links[text, url] = link(text, url)
    return tuple(links.values())


_AUTHORITY = re.compile(r"https?:[/\\]*([^/\\?#]*)", re.IGNORECASE)  # as browsers read it, not as RFC 3986 does
_USERINFO = re.compile(r"https?:[/\\]*([^/\\?#]*)@", re.IGNORECASE)


def _host(url: str) -> str:
    """Return the host of a URL, or the domain of the first address of mailto: one; "" if there is none."""
    if found := _AUTHORITY.match(url):
        host = found[1].rpartition("@")[2]
        return host if host.startswith("[") else host.partition(":")[0]
    if url[:7].lower() == "mailto:":
        return unquote(url[7:].partition("?")[0]).partition(",")[0].rpartition("@")[2]
    return ""


def _deceives(text: str, url: str, ascii_host: str) -> bool:
    """Whether `text`, or what stands before the host in `url`, names a host that does not own `ascii_host`."""
    names = named_hosts(text)
    if userinfo := _USERINFO.match(url):
        names |= named_hosts(unquote(userinfo[1]))
    return any(not owns(name, ascii_host) for name in names)
