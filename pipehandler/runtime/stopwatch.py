"""How long each phase of a delivery took: start (the process, its imports, waiting for a worker), read, parse, store."""

import time

PHASES = ("start", "read", "parse", "store")
"""The phases, in the order in which a message first comes to them."""


class Stopwatch:
    """Adds up the seconds of each phase; `started` is time.monotonic at the begin of the first one, start."""

    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = {}
        self._phase = PHASES[0]
        self._since = started
        self._stopped = False

    def enter(self, phase: str) -> None:
        """The phase that went on until now is over, or interrupted; `phase` begins, or goes on."""
        now = time.monotonic()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def stop(self) -> None:
        """The phase that went on until now was the last one; from the second time on nothing."""
        if not self._stopped:
            self.enter(self._phase)
        self._stopped = True
