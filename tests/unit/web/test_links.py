"""Links: their real hosts, texts that name another one, and hosts that imitate others."""

import time

import pytest

from pipehandler.web.links import MAX_LINKS, link, links_of_html, links_of_text
from pipehandler.web.sanitise import sanitise


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://bank.example", "https://evil.example/"),
        ("bank.com", "https://evil.example/bank.com"),
        ("www.bank.com", "https://evil.example"),
        ("Log in at bank.com now", "https://evil.example"),
        ("BANK.COM", "https://evil.example"),
        ("https://bank.com/login", "https://bank.com.evil.example/login"),
        ("https://bank.com/login", "https://evil-bank.com/login"),
        ("https://bank.com/login", "https://bank.com@evil.example/login"),
        ("Log in", "https://bank.com@evil.example/login"),
        ("Log in", "https://bank.com%40x@evil.example/login"),
        ("https://bank.com", "https:\\\\evil.example\\bank.com"),
        ("https://bank.com", "https:evil.example"),
        ("https://bank.com", "https://evil.example\\@bank.com"),
        ("https://bank.com", "https://192.0.2.7/bank.com"),
        ("https://bank.com", "https://[2001:db8::7]/"),
        ("b\u200bank.com", "https://evil.example"),
        ("bank\u00ad.com", "https://evil.example"),
        ("bank。com", "https://evil.example"),
        ("ｂａｎｋ．ｃｏｍ", "https://evil.example"),
        ("bank.com", "https://b\u0430nk.com"),  # a Cyrillic letter
        ("b\u0430nk.com", "https://bank.com"),
        ("bank.рф", "https://evil.example"),
        ("银行.中国", "https://evil.example"),
        ("xn--bcher-kva.example", "https://evil.example"),
        ("login.bank.com", "https://bank.com.evil.example"),
        ("help@bank.com", "mailto:help@evil.example"),
        ("help@bank.com", "https://evil.example"),
        ("https://bank.com/ and https://evil.example/", "https://evil.example/"),
        ("https:// bank.com", "https://evil.example"),
    ],
)
def test_mismatch(text: str, url: str) -> None:
    """A text that names a host which does not own the target."""
    assert link(text, url).mismatch


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://bank.com", "https://bank.com/login?x=1"),
        ("bank.com", "https://www.bank.com/"),
        ("www.bank.com", "https://bank.com/"),
        ("bank.com", "https://click.news.bank.com/3f2a"),
        ("bücher.example", "https://xn--bcher-kva.example/"),
        ("xn--bcher-kva.example", "https://bücher.example/"),
        ("Log in", "https://evil.example"),
        ("Bank.Com", "HTTPS://BANK.COM:443/"),
        ("help@bank.com", "mailto:help@bank.com?subject=x"),
        ("Version 1.2.3", "https://example.org"),
        ("Learn Node.js", "https://example.org"),
        ("Read more ...", "https://example.org"),
        ("Dr.Smith says hello.Then he leaves.", "https://example.org"),
        ("+1 800 555", "tel:+1800555"),
        ("bank.com", "tel:+1800555"),
    ],
)
def test_match(text: str, url: str) -> None:
    """A text that names no host, or one that owns the target."""
    assert not link(text, url).mismatch


@pytest.mark.parametrize(
    ("host", "mixed"),
    [
        ("b\u0430nk.com", True),
        ("\u0430\u0440\u0440\u04cf\u0435.com", True),  # all Cyrillic, looks like apple.com
        ("g\u03bf\u03bfgle.com", True),
        ("пример.рф", False),
        ("пример.com", False),
        ("bücher.example", False),
        ("日本語ドメイン.jp", False),
        ("東京abc.jp", False),
        ("한국어abc.kr", False),
        ("مثال.example", False),
        ("example.com", False),
        ("caf\u00e9-24.example", False),
    ],
)
def test_mixed_scripts(host: str, mixed: bool) -> None:
    """Letters of scripts that no language mixes in one word, and words that imitate Latin ones."""
    assert link("x", f"https://{host}/").mixed_scripts is mixed


def test_both_forms() -> None:
    """Punycode is shown in both forms, whichever the mail has."""
    for url in ("https://bücher.example/x", "https://xn--bcher-kva.example/x", "https://B%C3%BCcher.example:8443/x"):
        shown = link("books", url)
        assert (shown.host, shown.ascii_host) == ("bücher.example", "xn--bcher-kva.example")
    broken = link("", "https://xn--a-\u0378.example/x")
    assert broken.text == broken.url
    assert broken.host


def test_of_text() -> None:
    """URLs in a text end before what closes the sentence."""
    text = "See https://a.example/x(1), (www.b.example/y) <https://c.example/z>. 「https://d.example」 https://a.example/x(1) ahttps://e"
    assert [found.url for found in links_of_text(text)] == [
        "https://a.example/x(1)",
        "https://www.b.example/y",
        "https://c.example/z",
        "https://d.example",
    ]


def test_what_no_browser_follows() -> None:
    """A URL ends before a control character; what has no number for its port is none."""
    text = (
        "url(http://foo.example)\x10url(javascript:alert(93)) https://a.example\x7fb https://b.example:alert(1)/ "
        "www.c.example:x https://d.example:8443/x:y https://[::1]:80/ https://user:word@e.example/ https://f.example/a:b"
    )
    assert [found.url for found in links_of_text(text)] == [
        "http://foo.example",
        "https://a.example",
        "https://d.example:8443/x:y",
        "https://[::1]:80/",
        "https://user:word@e.example/",
        "https://f.example/a:b",
    ]


def test_of_html() -> None:
    """A link has the text that is read, also that of its images; links within the mail are none."""
    html = (
        '<style>a::after{content:"<a href=https://style.example>no</a>"}</style>'
        '<a title="a>b" href="https://a.example/?x=1&amp;y=2"><b>Ba</b>nk<br>&lt;now&gt; <img alt="logo" src="https://i.example/l.png"></a>'
        '<a href="#top">up</a><a name=x>anchor</a><a href="javascript:alert(1)">no</a>'
        '<a href="mailto:a@b.example">write</a><a href="https://a.example"></a><a href="/relative">no</a>'
        '<a href="https://outer.example">outer <a href="https://inner.example">inner</a></a>'
    )
    found = [(each.text, each.url) for each in links_of_html(sanitise(html, {}).blocked)]
    assert found == [
        ("Bank <now> logo", "https://a.example/?x=1&y=2"),
        ("write", "mailto:a@b.example"),
        ("https://a.example", "https://a.example"),
        ("outer", "https://outer.example"),
        ("inner", "https://inner.example"),
    ]


def test_costly_links() -> None:
    """A thousand links are listed, and the processor time is bounded."""
    hosts = ["a." * 2000 + "com", "\u0430" * 3000, "xn--" * 1000, "ü" * 5000, "%" * 9000, "-" * 9000]
    many = "".join(f'<a href="https://{number}.example">{number}.example</a>' for number in range(3000))
    assert len(links_of_html(many)) == MAX_LINKS
    for host in hosts:
        began = time.process_time()
        for _ in range(10):
            link(host[:500], f"https://{host}/")
        assert time.process_time() - began < 2, host[:20]
