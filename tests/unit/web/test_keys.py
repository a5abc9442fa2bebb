"""The visitor's keys: as text, in the cookie, in a request."""

import pytest
from starlette.datastructures import Headers

from pipehandler.web import keys

KEY = bytes(range(32))
TEXT = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


def test_text() -> None:
    """A key is 43 characters, and reads back; a whole link does as well."""
    assert keys.text_of(KEY) == TEXT
    assert keys.key_of(TEXT) == keys.key_of(f" https://inbox.example/en/open#{TEXT}\n") == KEY


@pytest.mark.parametrize(
    "text", ["", "#", TEXT[:-1], f"{TEXT}A", TEXT[:-1] + "9", f"{TEXT}=", "ü" * 43, "+" * 43, TEXT.replace("A", " ")]
)
def test_what_is_no_key(text: str) -> None:
    """Anything else is none, a second spelling of the same octets included."""
    assert keys.key_of(text) is None


def test_cookie() -> None:
    """Up to eight keys come back in their order; what is not a key, and repetitions, are left out."""
    many = [bytes([number]) * 32 for number in range(10)]
    field = keys.keys_cookie(many, True, 60)
    assert field.endswith("; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure")
    value = field.partition(";")[0]
    assert keys.keys_of_cookie(Headers({"cookie": value}), True) == tuple(many[: keys.MAX_KEYS])
    broken = f"a=1; bad cookie; {value.replace(keys.text_of(many[1]), 'x')}.{keys.text_of(many[0])}"
    assert keys.keys_of_cookie(Headers({"cookie": broken}), True) == (many[0], *many[2 : keys.MAX_KEYS])
    assert keys.keys_of_cookie(Headers({"cookie": value}), False) == ()
    assert "Max-Age=0;" in keys.keys_cookie([], True, 60)


def test_current() -> None:
    """The key that was used last is the first one; a ninth replaces the last."""
    many = tuple(bytes([number]) * 32 for number in range(8))
    assert keys.with_current(many, many[3])[:2] == (many[3], many[0])
    assert keys.with_current(many, KEY) == (KEY, *many[:7])
    assert keys.without(many, *many[1:]) == many[:1]


def test_bearer() -> None:
    """A program's key is in Authorization (RFC 6750)."""
    assert keys.bearer_key(Headers({"authorization": f"bearer {TEXT}"})) == KEY
    assert keys.bearer_key(Headers({"authorization": f"Basic {TEXT}"})) is None
    assert keys.bearer_key(Headers({})) is None
