"""authentication: only the results of a trusted host count."""

import pytest

from pipehandler.parse.authentication import read

MX = ("mx.example.org", "mx2.example.org")
RESULTS = "Authentication-Results"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("mx.example.org; spf=pass smtp.mailfrom=x; dkim=fail", {"spf": "pass", "dkim": "fail"}),
        ("MX.Example.org 1; DMARC=Pass (p=none; sp=x); arc/1 = none", {"dmarc": "pass", "arc": "none"}),
        ("mx.example.org; dkim=fail header.d=a; dkim=pass header.d=b; dkim=neutral", {"dkim": "pass"}),
        ("mx.example.org; dkim=neutral; dkim=fail", {"dkim": "neutral"}),
        ("mx.example.org; spf=hardfail; dmarc=excellent; iprev=pass", {"spf": "fail"}),
        ("mx.example.org (dkim=pass); none", {}),
        ('"mx.example.org"; (x (y) ; dkim=pass) spf=none', {"spf": "none"}),
        ("mx.example.com; spf=pass", {}),
        ("mx.example.org.evil.example; spf=pass", {}),
        ("mx.exam(no word goes on after a comment)ple.org; spf=pass", {}),
        ("mx.example.org(x); spf(x)=(x)pass(x)smtp.mailfrom=y", {"spf": "pass"}),
        ("spf=pass; mx.example.org", {}),
        ("", {}),
    ],
)
def test_authentication_results(body: str, expected: dict[str, str]) -> None:
    """RFC 8601 2.2, of a trusted authserv-id only."""
    assert read([(RESULTS, body)], MX) == expected


def test_nothing_without_trust() -> None:
    """Without trusted hosts nothing is read."""
    assert read([(RESULTS, "mx.example.org; spf=pass")], ()) == {}


def test_topmost_counts() -> None:
    """A host prepends its results, so the first result for a method is the latest."""
    fields = [
        (RESULTS, "evil.example; dmarc=pass"),
        (RESULTS, "mx.example.org; spf=fail"),
        (RESULTS, "mx2.example.org; spf=pass; dkim=pass"),
    ]
    assert read(fields, MX) == {"spf": "fail", "dkim": "pass"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass (x) client-ip=192.0.2.1; receiver=mx.example.org; identity=mailfrom", {"spf": "pass"}),
        ('SoftFail receiver="mx.example.org"', {"spf": "softfail"}),
        ("pass receiver=mx.example.com", {}),
        ("great receiver=mx.example.org", {}),
        ("", {}),
    ],
)
def test_received_spf(body: str, expected: dict[str, str]) -> None:
    """RFC 7208 9.1: the receiver is the host that has to be trusted."""
    assert read([("Received-SPF", body)], MX) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            [
                ("X-Spam-Checker-Version", "SpamAssassin 3.4.6 (2021-04-09) on mx.example.org"),
                ("X-Spam-Status", "Yes, score=7.3 required=5.0 tests=A,B"),
                ("X-Spam-Flag", "NO"),
            ],
            {"spam": "yes", "spam_score": "7.3"},
        ),
        (
            [
                ("X-Rspamd-Server", "mx.example.org"),
                ("X-Spamd-Result", "default: False [-1.50 / 15.00]; A(0.00)[]"),
            ],
            {"spam": "no", "spam_score": "-1.50"},
        ),
        (  # Rspamd's field names the action "reject" alone; X-Spam stands for "add header"
            [
                ("X-Rspamd-Server", "mx.example.org"),
                ("X-Spamd-Result", "default: False [11.00 / 15.00]; R_SPF_FAIL(1.00)[-all]"),
                ("X-Spam", "Yes"),
            ],
            {"spam": "yes", "spam_score": "11.00"},
        ),
        (
            [
                ("X-Spam-Status", "No, score=0.1 required=5.0"),
                ("X-Rspamd-Server", "mx.example.org"),
                ("X-Spamd-Result", "default: True [20.00 / 15.00]; A(0.00)[]"),
            ],
            {"spam": "yes", "spam_score": "0.1"},
        ),
        (
            [
                ("X-Virus-Scanned", "Debian amavisd-new at mx2.example.org"),
                ("X-Spam-Flag", "YES"),
                ("X-Spam-Score", "12.1"),
            ],
            {"spam": "yes", "spam_score": "12.1"},
        ),
        ([("X-Spam-Checker-Version", "SpamAssassin on evil.example"), ("X-Spam-Flag", "NO")], {}),
        ([("X-Spam-Flag", "NO")], {}),
    ],
)
def test_spam(fields: list[tuple[str, str]], expected: dict[str, str]) -> None:
    """A verdict counts if the filter that gave it names a trusted host."""
    assert read(fields, MX) == expected
