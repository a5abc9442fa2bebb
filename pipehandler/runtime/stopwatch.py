"""Seconds per phase of a delivery: start (the process, its imports, the wait for a worker), read, parse, store."""

import time

PHASES = ("start", "read", "parse", "store")
"""The phases, in the order in which a message first enters them."""


class Stopwatch:
    """A sum of seconds for each phase. `started`: time.monotonic at the beginning of the phase "start"."""

    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = {}
        self._phase = PHASES[0]
        self._since = started
        self._stopped = False

    def enter(self, phase: str) -> None:
        """End the current phase and begin, or resume, `phase`."""
        now = time.monotonic()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._since
        self._phase, self._since = phase, now

    def stop(self) -> None:
        """End the last phase; further calls do nothing."""
        if not self._stopped:
            self.enter(self._phase)
        self._stopped = True
