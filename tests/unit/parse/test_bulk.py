"""What the header reveals about the program that sent a message."""

import pytest

from pipehandler.parse.message import parse


@pytest.mark.parametrize(
    ("body", "keyword"),
    [
        (b"auto-replied", "auto-replied"),
        (b" Auto-Generated (by cron)", "auto-generated"),
        (b'(vacation) auto-replied; owner-email="a@b"', "auto-replied"),
        (b"no", "no"),
        (b'"no"', "no"),
        (b"bulk, junk", "bulk"),
        (b"", None),
        (b";", None),
        (b"x" * 5_000, "x" * 100),
    ],
)
def test_keyword(body: bytes, keyword: str | None) -> None:
    """One word in lower case, without comments and parameters (RFC 3834 5)."""
    parsed = parse(b"Auto-Submitted: " + body + b"\nPrecedence: " + body + b"\n\n")
    assert (parsed.auto_submitted, parsed.precedence) == (keyword, keyword)


@pytest.mark.parametrize(
    ("body", "uris"),
    [
        (b"<mailto:l-off@x.example?subject=off>, <https://x.example/u?a=1,2>",
         ["mailto:l-off@x.example?subject=off", "https://x.example/u?a=1,2"]),
        (b"(Use this) <https://x.exam\r\n ple/u>,\r\n\t<mailto:a@x>", ["https://x.example/u", "mailto:a@x"]),
        (b"https://x.example/u", ["https://x.example/u"]),
        (b"<NO>", []),
        (b"<>", []),
        (b"<mailto:a@x>, <https://x/u", ["mailto:a@x", "https://x/u"]),
        (b"", []),
        (b"<https://x/>, <https://x/>", ["https://x/"]),
        (b",".join(b"<https://x/%d>" % n for n in range(1_000)), [f"https://x/{n}" for n in range(20)]),
    ],
)  # fmt: skip
def test_unsubscribe(body: bytes, uris: list[str]) -> None:
    """The URIs in their order (RFC 2369 2), each once."""
    assert parse(b"List-Unsubscribe: " + body + b"\n\n").list_unsubscribe == uris


@pytest.mark.parametrize(
    ("uri", "post", "is_one_click"),
    [
        (b"<https://x/>", b"List-Unsubscribe=One-Click", True),
        (b"<mailto:a@x>, <HTTPS://x/>", b" list-unsubscribe = one-click ", True),
        (b"<https://x/>", b"yes", False),
        (b"<http://x/>", b"List-Unsubscribe=One-Click", False),
        (b"<mailto:a@x>", b"List-Unsubscribe=One-Click", False),
    ],
)
def test_one_click(uri: bytes, post: bytes, is_one_click: bool) -> None:
    """RFC 8058 3.1: the field has one value, and needs an https: URI."""
    parsed = parse(b"List-Unsubscribe: %b\nList-Unsubscribe-Post: %b\n\n" % (uri, post))
    assert parsed.list_unsubscribe_post is is_one_click
