"""SQLSTATEs: named as in PostgreSQL, in one module only; what they mean; which are retried."""

import ast
import errno
import os
import re
from pathlib import Path

import psycopg
import pytest

import pipehandler
from pipehandler.mail.outcome import EXHAUSTED, STORE_FULL, STORE_UNAVAILABLE
from pipehandler.store import errors
from pipehandler.store.errors import (
    DataRefused,
    NotConnected,
    StoreError,
    concerns_data,
    is_permanent,
    retried,
    translated,
)

PACKAGE = Path(pipehandler.__file__).parent
CODES: set[str] = {
    error.sqlstate for error in vars(psycopg.errors).values() if isinstance(getattr(error, "sqlstate", None), str)
}
CLASSES = {code[:2] for code in CODES}

NAMED = {
    name: value
    for name, value in vars(errors).items()
    if re.fullmatch("[A-Z_]+", name) and isinstance(value, str) and value in CODES
}


@pytest.mark.parametrize("name", NAMED)
def test_named_as_in_postgresql(name: str) -> None:
    """Each constant has the name of its condition in appendix A of PostgreSQL's documentation, as in psycopg."""
    words = re.findall("[A-Z][a-z]*", psycopg.errors.lookup(NAMED[name]).__name__)
    assert name == "_".join(words).upper()


def test_no_sqlstate_elsewhere() -> None:
    """No other module contains a SQLSTATE, or a class of them, as a literal."""
    literals = {
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value}"
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "store" / "errors.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in CODES | CLASSES
    }
    assert len(NAMED) > 15
    assert not literals


class Statement:
    """A function that fails with each of these SQLSTATEs in turn, and then returns."""

    def __init__(self, *sqlstates: str) -> None:
        self.left = list(sqlstates)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.left:
            raise StoreError(STORE_UNAVAILABLE, "fault", self.left.pop(0))
        return "done"


def test_retried_until_it_succeeds() -> None:
    """A conflict is retried, as often as there are tries."""
    statement = Statement("40001", "40P01")
    assert retried(statement, errors.CONFLICTS, 3, (0, 0)) == "done"
    assert statement.calls == 3


@pytest.mark.parametrize(
    ("sqlstates", "calls", "last"),
    [(("40001", "40001", "23503"), 3, "23503"), (("40001", "57014"), 2, "57014"), (("55P03",), 1, "55P03")],
)
def test_retried_no_longer(sqlstates: tuple[str, ...], calls: int, last: str) -> None:
    """The last error is raised: after the last try, or if a retry is useless."""
    statement = Statement(*sqlstates)
    with pytest.raises(StoreError) as raised:
        retried(statement, errors.CONFLICTS, 3, (0, 0))
    assert (raised.value.sqlstate, statement.calls) == (last, calls)


def test_no_pause_beyond_the_deadline() -> None:
    """A pause longer than the remaining time of the delivery is not started."""
    statement = Statement("40001")
    with pytest.raises(StoreError):
        retried(statement, errors.CONFLICTS, 3, (60, 60), lambda: 1.0)
    assert statement.calls == 1


@pytest.mark.parametrize("sqlstate", sorted(CODES))
def test_every_sqlstate(sqlstate: str) -> None:
    """Whatever a server sends has one meaning: only data is refused, everything else is temporary, and not the fault of
    the row."""
    error = psycopg.errors.lookup(sqlstate)("first line\nDETAIL: secret")
    with pytest.raises(StoreError) as raised, translated():
        raise error
    refused = (sqlstate[:2] in ("22", "54", "0A") and sqlstate != "2200H") or sqlstate in ("23502", "23514")
    assert isinstance(raised.value, DataRefused) == refused
    assert raised.value.outcome == (STORE_FULL if sqlstate == "53100" else STORE_UNAVAILABLE)
    assert raised.value.sqlstate == sqlstate
    assert "secret" not in str(raised.value)
    if refused:
        assert concerns_data(sqlstate)
        assert not raised.value.outage
    assert not (is_permanent(sqlstate) and raised.value.stale)


@pytest.mark.parametrize(
    "text",
    [
        "out of memory",
        "cannot allocate memory for input buffer",
        *(os.strerror(number) for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)),
    ],
)
def test_shortage_of_this_host(text: str) -> None:
    """A resource that libpq lacks is not a fault of the database: without a SQLSTATE its message decides. A shortage on
    the server has a SQLSTATE, or (while it has no process to send one) the message that it could not fork."""
    for error, outcome in (
        (psycopg.OperationalError(f"connection failed: {text}\n"), EXHAUSTED),
        (psycopg.OperationalError(f"could not fork new process for connection: {text}\n"), STORE_UNAVAILABLE),
        (psycopg.errors.OutOfMemory(text), STORE_UNAVAILABLE),
        (psycopg.OperationalError("the connection is lost"), STORE_UNAVAILABLE),
    ):
        with pytest.raises(StoreError) as raised, translated(NotConnected):
            raise error
        assert (type(raised.value), raised.value.outcome) == (NotConnected, outcome)
        assert raised.value.outage == (outcome == STORE_UNAVAILABLE)


def test_text_that_psycopg_refuses() -> None:
    """NUL and a lone surrogate never reach the server, and are refused as it would refuse them."""
    for error in (
        psycopg.DataError("PostgreSQL text fields cannot contain NUL"),
        UnicodeEncodeError("utf-8", "\udc80", 0, 1, ""),
    ):
        with pytest.raises(DataRefused) as raised, translated():
            raise error
        assert raised.value.sqlstate == "22021"


def test_partition_is_missing() -> None:
    """A row without a partition is not an error in the data: another message fails the same way."""
    for text, refused in (("no partition of relation found for row", False), ("violates check constraint", True)):
        with pytest.raises(StoreError) as raised, translated():
            raise psycopg.errors.CheckViolation(text)
        assert isinstance(raised.value, DataRefused) == refused
        assert raised.value.sqlstate == ("23514" if refused else "40001")


CONNECTION_LOST = {"", "57P01", "57P02", "57P03"}
MESSAGE_MAY_CAUSE = {"", "08P01", "53200", "53400", "25P04", "XX000"}
CLASSES_MESSAGE_MAY_CAUSE = {"21", "23", "2F", "38", "39", "P0"}


@pytest.mark.parametrize("sqlstate", ["", *sorted(CODES)])
def test_consequences(sqlstate: str) -> None:
    """What follows from an error: whether a new connection may help, whether the breaker opens, whether the message is
    suspected, whether it fails again."""
    error = StoreError(STORE_UNAVAILABLE, "reason", sqlstate)
    assert error.stale == (sqlstate in CONNECTION_LOST or sqlstate == "25006" or sqlstate[:2] == "08")
    assert error.outage == (sqlstate not in ("40001", "40P01", "23503", "55P03", "57014"))
    assert error.result == (STORE_UNAVAILABLE, "", "reason", sqlstate, None, error.outage, None)
    assert not error.by_message, "the database has not answered"
    error.answered = True
    assert not error.outage
    may_cause = sqlstate in MESSAGE_MAY_CAUSE or (sqlstate[:2] in CLASSES_MESSAGE_MAY_CAUSE and sqlstate != "23503")
    assert error.by_message == may_cause
    error.timed_out = True
    assert error.by_message
    assert error.permanent == (sqlstate[:2] in ("0A", "22", "28", "3D", "3F", "42", "P0", "PH"))
    assert concerns_data(sqlstate) == (sqlstate[:2] in ("0A", "22", "23", "54") and sqlstate != "2200H")


def test_our_own_shortage_is_no_outage() -> None:
    """Only what another message would meet as well is one: the database, or its disk."""
    assert StoreError(STORE_FULL, "reason").outage
    assert not StoreError(EXHAUSTED, "reason").outage


def test_pauses_become_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th pause is n times as long as the first; one that just fits is made."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    assert retried(Statement("40001", "40001", "40001"), errors.CONFLICTS, 4, (0.5, 0.5), lambda: 1.5) == "done"
    assert pauses == [0.5, 1.0, 1.5]
