"""The exact headers of each kind of response."""

import pytest

from pipehandler.web.headers import HEADERS, KINDS, response_headers, safe_file_name, shown_file_name

MAIL = (
    "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; {images}; style-src 'unsafe-inline'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors {ancestors}"
)
BLOCKED, SHOWN = "img-src data:", "img-src data: https:; upgrade-insecure-requests"
FILE = "sandbox; default-src 'none'; frame-ancestors 'none'"
POLICIES = {
    "page": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "frame-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "mail": MAIL.format(images=BLOCKED, ancestors="'self'"),
    "mail_with_images": MAIL.format(images=SHOWN, ancestors="'self'"),
    "print": MAIL.format(images=BLOCKED, ancestors="'none'"),
    "print_with_images": MAIL.format(images=SHOWN, ancestors="'none'"),
    "attachment": FILE,
    "thumbnail": FILE,
    "static": FILE,
    "json": FILE,
}


def test_policies() -> None:
    """Each kind has exactly this policy, and there is no other kind."""
    assert {kind: response_headers(kind)["Content-Security-Policy"] for kind in KINDS} == POLICIES
    assert set(HEADERS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_always(kind: str) -> None:
    """No type is guessed, no address leaves, and what is private is not stored."""
    headers = response_headers(kind)  # type: ignore[arg-type]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert headers["Cache-Control"] == ("public, max-age=31536000, immutable" if kind == "static" else "no-store")
    assert ("X-DNS-Prefetch-Control" in headers) == (kind.startswith(("page", "mail", "print")))
    assert all("\n" not in value and value.isascii() for value in headers.values())


def test_attachments_are_files() -> None:
    """Whatever a sender calls a file, a browser saves it."""
    headers = response_headers("attachment", file_name='in\r\nvo"ice\u202efdp.html')
    assert headers["Content-Type"] == "application/octet-stream"
    assert (
        headers["Content-Disposition"] == "attachment; filename=\"invo_icefdp.html\"; filename*=UTF-8''invo_icefdp.html"
    )
    assert response_headers("attachment", file_name="Käse €.pdf")["Content-Disposition"] == (
        "attachment; filename=\"K_se _.pdf\"; filename*=UTF-8''K%C3%A4se%20%E2%82%AC.pdf"
    )
    assert response_headers("thumbnail", media_type="image/png")["Content-Type"] == "image/png"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("report.pdf", "report.pdf"),
        ("../../etc/passwd", "_._etc_passwd"),
        ("C:\\Windows\\x.exe", "C__Windows_x.exe"),
        (".bashrc", "bashrc"),
        ("", "attachment"),
        ("...", "attachment"),
        ("\0\n\t", "attachment"),
        ("con.txt", "_con.txt"),
        ("nul", "_nul"),
        ("請求書.xlsx", "請求書.xlsx"),
        ("a" * 300 + ".pdf", "a" * 196 + ".pdf"),
        ("é" * 300, "é" * 100),
        ("x." + "y" * 300, ("x." + "y" * 300)[:200]),
        ("\ud800.txt", "_.txt"),
    ],
)
def test_file_names(name: str, safe: str) -> None:
    """No folder, no control character, no device, at most 200 octets, and the extension stays."""
    assert safe_file_name(name) == safe


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("a\u2066b\u2069\u200b\x00\n.pdf", "ab.pdf"),
        ("می\u200cخواهم.pdf", "می\u200cخواهم.pdf"),
        (" \u202e ", ""),
    ],
)
def test_a_name_is_shown_without_what_turns_or_hides_it(name: str, shown: str) -> None:
    assert shown_file_name(name) == shown


@pytest.mark.parametrize("control", "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
def test_nothing_turns_the_name_of_a_file(control: str) -> None:
    """Neither the name that is shown nor the one to save under has a character of UAX 9 that moves its parts."""
    assert safe_file_name(f"a{control}b") == shown_file_name(f"a{control}b") == "ab"
