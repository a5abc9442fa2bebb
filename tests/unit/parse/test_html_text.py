"""html_text and preview: what a reader sees of HTML, and the first words of a message, at a bounded cost."""

import time
from collections.abc import Callable

import pytest

from pipehandler.parse.html_text import to_text
from pipehandler.parse.preview import LENGTH, preview

NEWSLETTER = """<!DOCTYPE html><html><head><title>Title</title><style>p { color: red }</style></head><body>
<div style="display:none; max-height:0px">Look inside!&zwnj;&nbsp;&zwnj;&nbsp;</div>
<h1>Hello&nbsp; Ann</h1>
<p>Your code is
  <b>47</b><i>11</i>, see <a href="https://x.example/c?a=1&amp;b=2">here</a>.<br>Next line</p>
<table><tr><td>Name</td><td>Price</td></tr><tr><td>Tea<td>3 &euro;</table>
<ul><li>one<li><p>two</p></ul>
<blockquote>quoted<p>more</blockquote>
<pre>a  b
  c</pre>
<a href="https://y.example/"><img src="x.png" alt="Logo"></a><script>evil()</script><!-- no --> &lt;b&gt;
</body></html>"""


def test_text_of_a_newsletter() -> None:
    """Blocks become lines, paragraphs are separated, invisible content is left out."""
    assert to_text(NEWSLETTER).split("\n") == [
        "Hello Ann", "", "Your code is 4711, see here <https://x.example/c?a=1&b=2>.", "Next line", "",
        "Name Price", "Tea 3 €", "", "- one", "", "- two", "", "> quoted", ">", "> more", "",
        "a  b", "  c", "", "Logo <https://y.example/> <b>",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("", ""),
        ("no markup", "no markup"),
        ("a<div>b</div>c", "a\nb\nc"),
        ('<a href="https://x.example">https://x.example</a>', "https://x.example"),
        ('<a href="https://x.example/">https://x.example</a>', "https://x.example"),
        ('<a href="mailto:a@x.example">a@x.example</a>', "a@x.example"),
        ('<a href="javascript:x()">a</a> <a href="#top">b</a>', "a b"),
        ('<a href=" https://x.example/long\n\tpath ">a</a>b', "a <https://x.example/longpath>b"),
        ('<a href="https://x.example">a </a>b', "a <https://x.example> b"),
        ('<td>a<td> <a href="https://x.example"></a>b', "a <https://x.example> b"),
        ('<a href="https://x.example"><div>a</div></a>b', "a\n<https://x.example>b"),
        ('<pre>\n<a href="https://x.example">a  b</a>  c\n\n d</pre>', "\na  b <https://x.example>  c\n\n d"),
        ("a<b> b</b>\n<i>c </i> d", "a b c d"),
        ('<p style="font-size:0"><span style="font-size:16px">seen</span></p>', "seen"),
        ('<p style="mso-hide:all">seen</p>', "seen"),
        ('<p style="color:red; DISPLAY : none !important">no</p>yes', "yes"),
        ('<p style="visibility:hidden">no</p><p style="opacity:0">no</p><p hidden>no <b>no</b></p>yes', "yes"),
        ('<p style="max-height:0pt; overflow:hidden">no</p><p style="max-height:0.5em">yes</p>', "yes"),
        ('<p style="height:0;overflow:hidden">no</p><p style="height:0">yes</p>', "yes"),
        (
            '<p style="overflow:hidden;max-width:0px">no</p><p style="overflow:hidden;line-height:0;width:50px">yes</p>',
            "yes",
        ),
        ('<p style="opacity:0.5">seen</p>', "seen"),
        ('<img style="display:none" alt="no">yes<br style="display:none">yes', "yesyes"),
        ("<ul><li>a<ul><li>b</ul></ul>", "- a\n\n- b"),
        ("<blockquote>a<blockquote>b</blockquote></blockquote>c", "> a\n>\n> > b\n\nc"),
        ("<p>unclosed <b>tags <i>everywhere", "unclosed tags everywhere"),
        ("</p></div>x", "x"),
        ("\ud800\0x", "?\ufffdx"),
        ("<p>Grüße 日本</p>", "Grüße 日本"),
        ('<meta charset="koi8-r"><p>Grüße</p>', "Grüße"),
        (f'<img src="data:image/png;base64,{"A" * 200_000}">after', "after"),
    ],
)
def test_text(html: str, text: str) -> None:
    """One rule per case."""
    assert to_text(html) == text


def test_preview_is_one_short_line() -> None:
    """White space is folded; hidden text and padding are removed; no more than 200 characters, cut between words."""
    assert (
        preview(None, to_text(NEWSLETTER))
        == "Hello Ann Your code is 4711, see here. Next line Name Price Tea 3 € one two quoted more a b c Logo <b>"
    )
    assert preview("a  b\n\n\tc") == "a b c"
    long = preview("word " * 100)
    assert (long[-5:], len(long) <= LENGTH) == ("word…", True)
    assert len(preview("x" * 1_000)) == LENGTH


@pytest.mark.parametrize(
    ("text", "html", "expected"),
    [
        ("text", "<p>html", "text"),
        (" \n", "<p>html", "html"),
        (None, None, ""),
        ("\u200c\u00a0\u034f\u200c \ufeff", "<p>html", "html"),
        ("a\x1b[31mb\x07\u2028c", None, "a[31mb c"),
        ("\u200c " * 10_000 + "text", None, "text"),
        (None, "<p>a - b<p><a href='https://x.example/y'></a>c", "a - b c"),
        (None, "<p>Hi" + "&#847;&zwnj;&nbsp;&#8199;" * 50 + "<p>there", "Hi there"),
        ("می\u200cخواهم", None, "می\u200cخواهم"),
        ("👨\u200d👩\u200d👧 family", None, "👨\u200d👩\u200d👧 family"),
    ],
)
def test_preview(text: str | None, html: str | None, expected: str) -> None:
    """The text takes precedence over the HTML; invisible characters are kept only inside words, where they have a
    meaning."""
    assert preview(text, html and to_text(html)) == expected


HOSTILE: dict[str, Callable[[int], str]] = {
    "nested blocks": lambda size: "<div>" * (size // 5) + "x",
    "nested inline elements": lambda size: "<b>" * (size // 3) + "x",
    "nested quotes": lambda size: "<blockquote>x" * (size // 13),
    "nested tables": lambda size: "<table><tr><td>" * (size // 15),
    "quoted lines": lambda size: "<blockquote>" * 200 + "<br>x" * (size // 5),
    "formatting elements": lambda size: "".join(f"<font a={n}>" for n in range(size // 28)) + "<p>x" * (size // 8),
    "links": lambda size: "<a href=http://x>y</a>" * (size // 22),
    "links in links": lambda size: "<a href=http://x><b>y" * (size // 50) + "</a>" * (size // 50),
    "attributes": lambda size: "<p " + " ".join(f"a{n}=1" for n in range(size // 8)) + ">x",
    "elements with attributes": lambda size: (
        ("<p " + " ".join(f"a{n}=1" for n in range(3_500)) + ">x") * (size // 30_000)
    ),
    "styles": lambda size: ('<i style="display' + " " * 3_000 + '">x') * (size // 3_000),
    "brackets": lambda size: "<" * size,
    "lines": lambda size: "<pre>" + "x\n" * (size // 2),
    "entities": lambda size: "&zwnj;&nbsp;" * (size // 12),
    "data": lambda size: '<img src="data:' + "A" * size + '">z',
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_html_is_costly(kind: str) -> None:
    """However large, HTML takes at most a second and is read no further than the limit."""
    html = HOSTILE[kind](10_000_000)
    begin = time.process_time()
    text = to_text(html)
    assert len(text) < 4_000_000
    assert len(preview(None, text)) <= LENGTH
    assert time.process_time() - begin < 2
