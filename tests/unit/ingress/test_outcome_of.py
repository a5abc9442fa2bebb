"""Every exception, at every stage of a delivery, ends in the outcome that outcome_of names."""

import errno
import os
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pipehandler import fence
from pipehandler.delivery import deliver
from pipehandler.delivery.circuit_breaker import CircuitBreaker
from pipehandler.ingress import lmtp, pipe
from pipehandler.ingress.single import Finished, Resident
from pipehandler.mail import identity
from pipehandler.mail.envelope import UsageError
from pipehandler.mail.outcome import (
    DEADLINE,
    EXHAUSTED,
    EXHAUSTED_ERRORS,
    FAULT,
    MISCONFIGURED,
    STORE_UNAVAILABLE,
    Outcome,
    folded,
    outcome_of,
)
from pipehandler.record.attempt import Attempt
from pipehandler.record.journal import Journal
from pipehandler.runtime import deadline, limits
from pipehandler.runtime.deadline import TimeUp
from pipehandler.settings.config import Config, Database, Limits, Log, State
from pipehandler.settings.config_file import ConfigError
from pipehandler.store.errors import StoreError
from pipehandler.store.message_store import MessageStore

STAGES: dict[str, tuple[object, str]] = {
    "configuration": (pipe, "load"),
    "argv": (pipe, "from_argv"),
    "deadline": (pipe, "Deadline"),
    "limits": (limits, "apply"),
    "journal": (Attempt, "begin"),
    "circuit breaker": (CircuitBreaker, "refuses"),
    "message": (pipe, "read_message"),
    "identity": (identity, "identify"),
    "truncation": (pipe, "is_smaller"),
    "session": (deliver, "Session"),
    "parser": (deliver, "guarded_parse"),
    "store": (MessageStore, "ingest"),
}
"""Each stage of a cold delivery, and the function that is made to raise there."""


def subclasses(kind: type[BaseException]) -> Iterator[type[BaseException]]:
    """`kind` and its subclasses in the interpreter and psycopg."""
    yield kind
    for inner in kind.__subclasses__():
        if inner.__module__ in ("builtins", "psycopg", "psycopg.errors"):
            yield from subclasses(inner)


def raised() -> Iterator[tuple[BaseException, Outcome]]:
    """Exceptions, and the outcome of each."""
    for number in sorted(errno.errorcode):
        yield OSError(number, os.strerror(number)), EXHAUSTED if number in EXHAUSTED_ERRORS else FAULT
    for kind in {kind for kind in subclasses(BaseException) if not issubclass(kind, (OSError, ExceptionGroup))}:
        try:
            error = kind("text")
        except TypeError:  # BaseExceptionGroup, the errors of Unicode: they need other arguments
            continue
        missing = MISCONFIGURED if isinstance(error, ModuleNotFoundError) else FAULT
        yield error, EXHAUSTED if isinstance(error, MemoryError) else missing
    yield ImportError(f"libpq.so.5: cannot open shared object file: {os.strerror(errno.EMFILE)}"), EXHAUSTED
    yield ImportError("libpq.so.5: failed to map segment from shared object"), EXHAUSTED
    yield ImportError("libpq.so.5: failed to map segment from shared object: Operation not permitted"), FAULT
    yield SystemError("error return without exception set"), EXHAUSTED
    yield TimeUp(), DEADLINE
    yield UsageError("argument"), MISCONFIGURED
    yield ConfigError("key"), MISCONFIGURED
    yield StoreError(STORE_UNAVAILABLE, "away", "57P01"), STORE_UNAVAILABLE


RAISED = list(raised())


@pytest.fixture
def run(tmp_path: Path) -> Callable[[], Finished]:
    """Deliver one small message in this process, with its own state directory and log file."""
    config = tmp_path / "pipehandler.toml"
    config.write_text(f"""
        database.conninfo = "host={tmp_path}"
        state.directory = "{tmp_path}"
        limits.memory = {1 << 40}
        log = {{ syslog = false, file = "{tmp_path}/log" }}
    """)

    def deliver_one() -> Finished:
        reading, writing = os.pipe()
        os.write(writing, b"Subject: one\n\nbody\n")
        os.close(writing)
        before = [(kind, resource.getrlimit(kind)) for kind in limits._KINDS]
        try:
            finished = pipe.run(
                [f"--config={config}", "--sender=", "--", "user@example.com"], time.monotonic(), reading
            )
            if finished._attempt.journal is not None:
                finished._attempt.journal.close()
            return finished
        finally:
            deadline.clear()
            for kind, values in before:
                resource.setrlimit(kind, values)
            os.close(reading)

    return deliver_one


@pytest.mark.parametrize("stage", STAGES)
def test_every_exception_at_every_stage(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], Finished], stage: str
) -> None:
    """Whatever is raised at any stage, the result is that of outcome_of; it never bounces, and it can be recorded."""
    assert len(RAISED) > 200
    owner, name = STAGES[stage]
    for error, expected in RAISED:

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(owner, name, fail)
            result = run().results[0]
        assert result.outcome == expected, (stage, error, result)
        assert result.outcome.status in (71, 75)


LMTP_STAGES = {
    **{stage: STAGES[stage] for stage in ("limits", "journal", "circuit breaker", "parser", "store")},
    **{name: (lmtp, name) for name in ("from_argv", "Deadline", "read_message", "identify", "Session")},
}
"""The stages of a message that came by LMTP."""


@pytest.mark.parametrize("stage", LMTP_STAGES)
def test_every_exception_at_every_stage_of_lmtp(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stage: str) -> None:
    """The same for LMTP, once for each recipient: there are as many results as recipients, whatever is raised."""
    config = Config(
        Database(f"host={tmp_path}"), state=State(str(tmp_path)), log=Log(False), limits=Limits(memory=1 << 40)
    )
    resident = Resident(config, MessageStore(config.database.conninfo), Journal(str(tmp_path)))
    file = os.memfd_create("message")
    os.write(file, b"Subject: one\n\nbody\n")
    before = [(kind, resource.getrlimit(kind)) for kind in limits._KINDS]
    owner, name = LMTP_STAGES[stage]
    try:
        for error, expected in RAISED:

            def fail(*_: object, error: BaseException = error, **__: object) -> None:
                raise error

            os.lseek(file, 0, os.SEEK_SET)
            with monkeypatch.context() as patched:
                patched.setattr(owner, name, fail)
                finished = lmtp.run(["--sender=", "--", "a@b", "c@d", "a@b"], time.monotonic(), file, resident)
            assert [result.outcome for result in finished.results] == [expected] * 3, (stage, error)
    finally:
        deadline.clear()
        for kind, values in before:
            resource.setrlimit(kind, values)
        resident.journal.close()
        os.close(file)


def test_the_fence_agrees() -> None:
    """The fence's copy of the table, used when nothing can be imported, equals the table."""
    assert (FAULT.status, FAULT.line()) == fence._FAULT
    assert (EXHAUSTED.status, EXHAUSTED.line()) == fence._EXHAUSTED
    assert (MISCONFIGURED.status, MISCONFIGURED.line()) == fence._MISCONFIGURED
    assert set(fence._EXHAUSTED_ERRORS) == EXHAUSTED_ERRORS


def test_the_fence_means_the_same() -> None:
    """An exception outside `run` has the same status and line as inside, as far as the fence can determine."""
    compared = 0
    for error, expected in RAISED:
        # The texts of libraries are only distinguished inside; these classes are only raised inside.
        known_outside = not isinstance(error, (UsageError, ConfigError, StoreError, TimeUp))
        if known_outside and not (isinstance(error, ImportError) and expected == EXHAUSTED):
            assert fence._meaning(error) == (expected.status, expected.line()), error
            compared += 1
    assert compared > 200


def test_errors_of_psycopg_are_no_bounce() -> None:
    """An untranslated error of psycopg is a fault, not a bounce."""
    assert outcome_of(psycopg.OperationalError("x")).outcome == FAULT


def test_nothing_to_fold() -> None:
    """A delivery without results is a fault of the program, not a success."""
    with pytest.raises(IndexError):
        folded([])
