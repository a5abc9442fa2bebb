"""When the service reads its configuration again, and tries another program."""

import time
from collections.abc import Callable
from selectors import DefaultSelector
from typing import Any

import pytest

from pipehandler.workers import renewal as module
from pipehandler.workers.renewal import Renewal


class Files:
    """A watch whose answers the test sets."""

    def __init__(self) -> None:
        self.is_changed = False
        self.is_settled = True
        self.content = 1

    def changed(self) -> bool:
        """As set."""
        return self.is_changed

    def settled(self) -> bool:
        """As set."""
        return self.is_settled

    def look(self) -> int:
        """As set."""
        return self.content

    def accept(self) -> None:
        """The files as they are."""
        self.is_changed = False


class Trial:
    """A trial that ends when the test says so."""

    def __init__(self, path: str, _: object, done: Callable[[int | None, str], None]) -> None:
        assert path == "/config"
        self.done = done
        self.until = time.monotonic() + 60
        self.killed = self.abandoned = 0

    def kill(self) -> None:
        """Count."""
        self.killed += 1

    def abandon(self) -> None:
        """Count."""
        self.abandoned += 1


class Service:
    """A renewal with watches and trials of the test; `calls` of the supervisor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.configuration, self.program = Files(), Files()
        self.trials: list[Trial] = []
        self.calls: list[tuple[str, ...]] = []
        monkeypatch.setattr(module, "Watch", lambda path: self.configuration)
        monkeypatch.setattr(module, "code_watch", lambda: self.program)
        monkeypatch.setattr(module, "Trial", self._trial)
        with DefaultSelector() as selector:
            self.renewal = Renewal(
                "/config",
                42,
                selector,
                lambda: self.calls.append(("reload",)),
                lambda: self.calls.append(("become",)),
                lambda reason: self.calls.append(("stay", reason)),
            )

    def _trial(self, *values: Any) -> Trial:
        self.trials.append(Trial(*values))
        return self.trials[-1]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    """Nothing has changed."""
    return Service(monkeypatch)


def test_nothing(service: Service) -> None:
    """Nothing is due, and nothing is done."""
    service.renewal.look()
    service.renewal.act(time.monotonic())
    assert (service.renewal.at, service.calls, service.trials, service.renewal.expected) == (
        float("inf"),
        [],
        [],
        False,
    )


@pytest.mark.parametrize("which", ["configuration", "program"])
def test_half_written(service: Service, which: str) -> None:
    """What has just changed is looked at again half a second later."""
    files = getattr(service, which)
    files.is_changed, files.is_settled = True, False
    before = time.monotonic()
    service.renewal.look()
    assert before + 0.5 <= service.renewal.at <= time.monotonic() + 0.5
    assert (service.calls, service.trials) == ([], [])
    service.renewal.act(service.renewal.at - 0.01)
    assert service.calls == []
    files.is_settled = True
    service.renewal.act(service.renewal.at)
    assert (len(service.calls), len(service.trials)) == ((1, 0) if which == "configuration" else (0, 1))


def test_new_configuration(service: Service) -> None:
    """It is read once it is whole, and no longer new when it was read."""
    service.configuration.is_changed = True
    service.renewal.look()
    assert service.calls == [("reload",)]
    assert service.renewal.at == float("inf")
    service.renewal.configuration_read()
    service.renewal.look()
    assert service.calls == [("reload",)]


def test_new_program(service: Service) -> None:
    """One trial at a time; the service becomes a program with other code."""
    service.program.is_changed = True
    assert service.renewal.expected
    service.renewal.look()
    service.renewal.look()
    (trial,) = service.trials
    assert service.renewal.at == trial.until
    trial.done(43, "{}")
    assert service.calls == [("become",)]
    assert service.renewal.at == float("inf")


def test_same_program(service: Service) -> None:
    """Where only other files are new, the service stays, without a reason to report."""
    service.program.is_changed = True
    service.renewal.look()
    service.trials[0].done(42, "{}")
    assert service.calls == [("stay", "")]
    assert not service.renewal.expected


def test_failed_trial(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that fails its trial is tried again ten seconds later; another one at once."""
    service.program.is_changed = True
    service.renewal.look()
    service.trials[0].done(None, "a reason")
    assert service.calls == [("stay", "a reason")]
    now = time.monotonic()
    service.renewal.look()
    assert len(service.trials) == 1
    assert now + 0.5 <= service.renewal.at <= time.monotonic() + 0.5
    monkeypatch.setattr(time, "monotonic", lambda: now + 9)
    service.renewal.look()
    assert len(service.trials) == 1
    monkeypatch.setattr(time, "monotonic", lambda: now + 11)
    service.renewal.look()
    assert len(service.trials) == 2
    service.trials[1].done(None, "a reason")
    service.program.content = 2
    service.renewal.look()
    assert len(service.trials) == 3


def test_no_process_for_the_trial(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a trial that failed."""

    def fail(*_: object) -> None:
        raise OSError(11, "no process")

    monkeypatch.setattr(module, "Trial", fail)
    service.program.is_changed = True
    service.renewal.look()
    assert service.calls == [("stay", "[Errno 11] no process")]


def test_trial_that_takes_too_long(service: Service) -> None:
    """It is killed when its time is up, and not before."""
    service.program.is_changed = True
    service.renewal.look()
    (trial,) = service.trials
    service.renewal.act(trial.until - 0.01)
    assert trial.killed == 0
    service.renewal.act(trial.until)
    assert trial.killed == 1


def test_stopped(service: Service) -> None:
    """Nothing is due any more, and a trial is given up."""
    service.program.is_changed = service.configuration.is_changed = True
    service.configuration.is_settled = False
    service.renewal.look()
    service.renewal.stop()
    assert service.renewal.at == float("inf")
    assert service.trials[0].abandoned == 1
    service.renewal.stop()
    assert service.trials[0].abandoned == 1
