"""Replace the running watcher by the program that is installed now, or by itself with a new configuration.

It passes nothing on: new/ has all the state, and the locks end with the old program (execve(2)). So it first finishes the
messages under way.
"""

import os
from collections.abc import Callable
from selectors import BaseSelector

from ..runtime.installation import code_digest
from ..settings.config_file import ConfigError, load
from ..workers.renewal import Renewal
from ..workers.succession import begin_again


class Replacement:
    """A watch on the configuration at `path` and on the installed program.

    log: writes a line about the watcher. finish: called when a replacement is decided, to begin no further message.
    """

    def __init__(
        self, path: str, selector: BaseSelector, log: Callable[..., object], finish: Callable[[], object]
    ) -> None:
        self._path = path
        self._log = log
        self._finish = finish
        self._renewal = Renewal(
            path, code_digest(), selector, self._reload, lambda: self._decide("program"), self._stay
        )
        self._refused = ""  # why the installed program did not replace this one
        self.decided = False

    @property
    def at(self) -> float:
        """The time at which `act` is to be called (time.monotonic)."""
        return self._renewal.at

    def act(self, now: float) -> None:
        """Do what is due at `now`."""
        self._renewal.act(now)

    def look(self) -> None:
        """Check the files."""
        self._renewal.look()

    def stop(self) -> None:
        """Stop watching."""
        self._renewal.stop()

    def make(self) -> bool:
        """Become the installed program, with SIGNALS blocked. Returns False if that fails: the watcher goes on."""
        try:
            begin_again()
        except OSError as error:
            self._renewal.failed()
            self._stay(str(error))
            self.decided = False
        return self.decided

    def _reload(self) -> None:
        try:
            load(self._path)
        except ConfigError as error:
            self._renewal.configuration_read()
            self._log("not reloaded", failed=True, reason=str(error))
        else:
            self._decide("configuration")

    def _decide(self, reason: str) -> None:
        if not self.decided:
            self._log("replaced", pid=os.getpid(), reason=f"another {reason}")
            self.decided = True
            self._finish()

    def _stay(self, reason: str) -> None:
        if reason and reason != self._refused:
            self._log("not replaced", failed=True, reason=reason)
        self._refused = reason
