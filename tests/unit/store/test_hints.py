"""The hints for an operator."""

import psycopg
import pytest

from pipehandler.store.hints import hint

CODES = sorted(
    error.sqlstate for error in vars(psycopg.errors).values() if isinstance(getattr(error, "sqlstate", None), str)
)


def test_hints() -> None:
    """A code's own hint takes precedence over that of its class; the group role that has the privilege is named."""
    assert hint("42501", "pipehandler_reader") == "the role lacks a right: it must be a member of pipehandler_reader"
    assert "older" in hint("42883")
    assert hint("42P01") == hint("42703") != ""
    assert hint("") == hint("XX000") == ""


@pytest.mark.parametrize(
    ("sqlstate", "words"),
    [
        ("28P01", "pg_hba.conf"),
        ("3D000", "create the database"),
        ("3F000", "no schema pipehandler"),
        ("42P01", "migrate"),
        ("40001", "trying again resolves it"),
        ("42501", "member of pipehandler_ingest; `pipehandler check`"),
        ("42883", "older than this program"),
        ("25006", "target_session_attrs=read-write"),
        ("25P04", "transaction_timeout"),
        ("53100", "disk"),
        ("53300", "max_connections"),
        ("55P03", "holds a lock"),
        ("57014", "slow"),
        ("57P03", "starting or recovering"),
    ],
)
def test_every_hint(sqlstate: str, words: str) -> None:
    """What an operator can do about each error that has a way out."""
    assert words in hint(sqlstate)


@pytest.mark.parametrize("sqlstate", CODES)
def test_no_gap(sqlstate: str) -> None:
    """Whatever a server sends, a hint is whole: it has no placeholder."""
    assert "{" not in hint(sqlstate)
