"""parameter: Content-Type and Content-Disposition as found in mail."""

import pytest
from harness.cpu import cost

from pipehandler.parse.parameter import parse


@pytest.mark.parametrize(
    ("body", "value", "charset"),
    [
        (b" text/plain; charset=utf-8", "text/plain", "utf-8"),
        (b'TEXT / Plain (comment); Charset = "UTF-8" (comment)', "text/plain", "UTF-8"),
        (b"text/plain\n\tcharset=us-ascii; format=flowed", "text/plain", "us-ascii"),
        (b"text/plain;; ;charset='x'", "text/plain", "x"),
        (b'text/plain; charset="unclosed', "text/plain", "unclosed"),
        (b"text/plain; charset*=us-ascii''koi8-r", "text/plain", "koi8-r"),
        (b"text/plain; charset=", "text/plain", None),
        (b'text/plain; charset=; charset=""; charset=koi8-r', "text/plain", "koi8-r"),
        (b"text/plain; charset: koi8-r", "text/plain", "koi8-r"),
        (b'text/plain; name="a.txt; charset=koi8-r', "text/plain", "koi8-r"),
        (b'text/plain; charset=koi8-r"', "text/plain", "koi8-r"),
        (b"charset=koi8-r; format=flowed", "", "koi8-r"),
        (b"", "", None),
    ],
)
def test_value_and_token(body: bytes, value: str, charset: str | None) -> None:
    """The value in lower case without comments, and a parameter that is one word."""
    parsed = parse(body)
    assert (parsed.value, parsed.token("charset")) == (value, charset)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'a; name="x;y.txt"', "x;y.txt"),
        (rb'a; name="a\"b\\c"', 'a"b\\c'),
        (rb'a; name="C:\temp\x.txt"', "C:\\temp\\x.txt"),
        (b'a; name="the "big" one.pdf"', 'the "big" one.pdf'),
        (b'a; name="the "big" one.pdf"; size=3', 'the "big" one.pdf'),
        (b'a; name="the "big"; one.pdf"', 'the "big'),
        (b'a; name="x.pdf" size="3"', "x.pdf"),
        (b'a; name="x.pdf"size="3"', "x.pdf"),
        (b'a; name="x.pdf" (a comment); size="3"', "x.pdf"),
        (b'a; name="5" disk.txt"', '5" disk.txt'),
        (b'a; name=the "big" one.pdf', 'the "big" one.pdf'),
        (b"a; name=two words (1).pdf", "two words (1).pdf"),
        (b"a; name*=utf-8''%e2%82%ac.txt; name=EURO.txt", "€.txt"),
        (b"a; name*1*=%82%ac; name*0*=utf-8''%e2; name*2=\"x.txt\"", "€x.txt"),
        (b"a; name*0=abc; name*1=.txt", "abc.txt"),
        (b'a; name="=?utf-8?B?4oKsLnR4dA==?="', "€.txt"),
        (b'a; name*0="=?utf-8?B?4oKs"; name*1="LnR4dA==?="', "€.txt"),
        (b"a; name*=utf-8''=?iso-8859-1?Q?=E9?=", "é"),
        ("a; name=é.txt".encode(), "é.txt"),
        ("a; name=é.txt".encode("cp1252"), "é.txt"),
        (b"a; name*=x-none''%E9.txt", "é.txt"),
        (b'a; name="folded\n name"', "folded name"),
        (b'a; name="a\0b"', "a\ufffdb"),
        (b'a; name=""', None),
        (b'a; name=""; name=b.txt', "b.txt"),
        (b"a; name*=utf-8''; name=b.txt", "b.txt"),
        (b"a; name*=; name=b.txt", "b.txt"),
        (b"a; name*0*=utf-8''; name*1*=%C3%A9.txt", "é.txt"),
        (b'name="b.txt"', "b.txt"),
        (b'a; name="b.txt; size=3', "b.txt"),
        (b'a; name=b.txt"', "b.txt"),
        (b"a; name=x; y.txt; size=3", "x; y.txt"),
        (b"a; name=x.txt; y", "x.txt"),
        (b"a; name==?utf-8?Q?x;=C3=A9.txt?=", "x;é.txt"),
        (b"a; name=utf-8''%C3%A9.txt", "é.txt"),
        (b"a; name=it's a 'b' %20.txt", "it's a 'b' %20.txt"),
        (b"a", None),
    ],
)
def test_names(body: bytes, name: str | None) -> None:
    """RFC 2231, RFC 2047, both, and neither: the name that the sender meant."""
    assert parse(body).text("name")[0] == name


def test_guesses_are_told() -> None:
    """A name in octets that are not UTF-8 is guessed; one in UTF-8 is not."""
    assert parse("a; name=é".encode("cp1252")).text("name")[1]
    assert not parse("a; name=é".encode()).text("name")[1]
    assert parse(b'a; name="=?x-none?Q?=E9?="').text("name")[1]


@pytest.mark.parametrize(
    "body",
    [b";" * 98_000, b"; a" * 30_000, b"a " * 49_000, b"(" * 98_000, b"()" * 49_000, b'x;a="' + b'\\"' * 49_000 + b"\\",
     b';a="' * 25_000, b"; a*0*=a''" * 10_000, b";a*1*1*1=2" * 9_000, b"; \t" * 30_000, b";a" + b" " * 98_000 + b";",
     b'a;name="x;y=' * 8_000, b"a;name=b;." * 9_000, b"a;name=b;" * 10_000 + b".", b";a=utf-8''" + b"%" * 98_000,
     b'x;a="' + b'"' * 98_000, b'x;a="' + b'" ' * 49_000, b'x;a="' + b'" b' * 30_000, b'x;a="' + b'";' * 49_000],
)  # fmt: skip
def test_cost_is_bounded(body: bytes) -> None:
    """A field as long as Postfix lets through costs little."""

    def read() -> None:
        parsed = parse(body)
        parsed.text("a"), parsed.token("a")

    assert cost(read) < 20
