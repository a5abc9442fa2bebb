"""Detect changes of the configuration and of the installed program while the service runs.

The files are checked when a connection arrives, and again while they have just changed. An idle service needs no timer.
"""

import time
from collections.abc import Callable
from selectors import BaseSelector

from .succession import Trial, Watch, code_watch

_LOOK_SECONDS = 0.5
_TRIAL_AGAIN_SECONDS = 10.0


class Renewal:
    """A watch on the configuration at `path` and on the installed program. `code`: the digest of the running code.

    reload: called for a new configuration. become: called for a new program that passed its trial. give_up: called with
    the reason if the trial failed; "" if the program turned out to be the same, and something else was installed.
    """

    def __init__(
        self,
        path: str,
        code: int,
        selector: BaseSelector,
        reload: Callable[[], None],
        become: Callable[[], None],
        give_up: Callable[[str], None],
    ) -> None:
        self._path = path
        self._code = code
        self._selector = selector
        self._reload = reload
        self._become = become
        self._give_up = give_up
        self._configuration, self._program = Watch(path), code_watch()
        self._trial: Trial | None = None
        self._trial_not_before = 0.0
        self._failed: object = None
        self._look_at = float("inf")

    @property
    def expected(self) -> bool:
        """Whether another program seems to be installed, which may soon replace this one."""
        return self._program.changed()

    @property
    def at(self) -> float:
        """The time at which `act` is to be called (time.monotonic)."""
        return min(self._look_at, self._trial.until if self._trial else float("inf"))

    def act(self, now: float) -> None:
        """Do what is due at `now`."""
        if now >= self._look_at:
            self.look()
        if self._trial and now >= self._trial.until:
            self._trial.kill()

    def look(self) -> None:
        """Check the files, and schedule another check of those that have just changed."""
        self._look_at = float("inf")
        if self._configuration.changed():
            if self._configuration.settled():
                self._reload()
            else:
                self._look_at = time.monotonic() + _LOOK_SECONDS
        if self._trial or not self._program.changed():
            return
        again = self._program.look() == self._failed  # a program that failed its trial is retried after a while
        if self._program.settled() and not (again and time.monotonic() < self._trial_not_before):
            try:
                self._trial = Trial(self._path, self._selector, self._tried)
            except OSError as error:  # no further process or descriptor
                self._tried(None, str(error))
        else:
            self._look_at = time.monotonic() + _LOOK_SECONDS

    def configuration_read(self) -> None:
        """Accept the configuration file as it is now."""
        self._configuration.accept()

    def stop(self) -> None:
        """Stop watching."""
        self._look_at = float("inf")
        if self._trial:
            self._trial.abandon()
            self._trial = None

    def failed(self) -> None:
        """Delay the next trial of the program that is installed now."""
        self._failed = self._program.look()
        self._trial_not_before = time.monotonic() + _TRIAL_AGAIN_SECONDS

    def _tried(self, code: int | None, reason: str) -> None:
        self._trial = None
        if code is None:
            self.failed()
            self._give_up(reason)
        elif code == self._code:
            self._program.accept()
            self._give_up("")
        else:
            self._become()
