"""What is recorded of one attempt at a message: a line in the log, a record in the journal, and perhaps a report to Sentry.

The log is for finding one message, the journal for counting them. Neither changes how the attempt ends.
"""

import os
import time
from collections.abc import Sequence

from ..mail.outcome import Result
from ..runtime.stopwatch import Stopwatch
from ..settings.config import Config
from . import log
from .journal import Journal


class Attempt:
    """One attempt, from `started` (time.monotonic) on. ingress: the entry path; mode: cold or resident.

    `config` is the default one until the real one is known; `journal` is opened for the attempt unless one is open already;
    `recipients` and `size` (octets that were read) are set when they are known.
    """

    def __init__(self, ingress: str, mode: str, queue_id: str, started: float) -> None:
        self.stopwatch = Stopwatch(started)
        self.config = Config()
        self.journal: Journal | None = None
        self.recipients: int | None = None
        self.size: int | None = None
        self._ingress = ingress
        self._mode = mode
        # As in the envelope: octets of argv that are not UTF-8 can be neither logged nor recorded.
        self._queue_id = os.fsencode(queue_id).decode("utf-8", "backslashreplace")
        self._started = started
        self._entry: int | None = None
        self._begun = False

    def begin(self, pid: int | None = None) -> None:
        """Record that it has begun, so that it leaves a trace even if it is killed. `pid`: the dead process that began it."""
        self._begun = True
        journal = self.journal = self.journal or Journal(self.config.state.directory)
        self._entry = (pid and journal.find_unfinished(pid, self._queue_id)) or journal.begin(
            self._ingress, self._mode, self._queue_id, self._started
        )

    def finish(self, *results: Result) -> None:
        """Record how it ended, in the log, in the journal, and for Sentry if it was a fault.

        results: one for each recipient, or a single one for all. There is a line for each outcome; the journal has the
        attempt with a failure, if there was one, and counts all of them.
        """
        self.stopwatch.stop()
        if not self._begun:
            self.begin()
        entry, size, seconds = self._entry, self.size, self.stopwatch.seconds
        for result, recipients in self._grouped(results):
            dropped = log.write(self._line(result, recipients), self.config.log, failed=result.outcome.status != 0)
            if self.journal is not None:
                self.journal.end(entry, self._ingress, self._mode, result, size, seconds, dropped)
                entry, size, seconds = None, None, {}  # the message was read once
                self._report(result, self.journal)

    def _grouped(self, results: Sequence[Result]) -> list[tuple[Result, int | None]]:
        """Return one result for each outcome, failures first, and the number of its recipients."""
        if len(results) == 1:
            return [(results[0], self.recipients)]
        grouped: dict[str, list[Result]] = {}
        for result in sorted(results, key=lambda result: result.outcome.status == 0):
            grouped.setdefault(result.outcome.name, []).append(result)
        return [(group[0], len(group)) for group in grouped.values()]

    def _report(self, result: Result, journal: Journal) -> None:
        left = self._started + self.config.limits.deadline - time.monotonic()
        if not self.config.sentry.dsn:
            return
        from . import sentry

        sentry.report(self.config, journal, result, left, mode=self._mode, size=self.size)

    def _line(self, result: Result, recipients: int | None) -> str:
        return log.line(
            result.outcome.name,
            status=result.outcome.status,
            code=result.outcome.code,
            queue_id=self._queue_id or None,
            recipients=recipients,
            size=self.size,
            mode=self._mode,
            seconds=sum(self.stopwatch.seconds.values()),
            message=result.message or None,
            message_id=result.message_id or None,
            sqlstate=result.sqlstate or None,
            reason=result.reason or None,
        )


def write_log(config: Config, outcome: str, failed: bool = False, **values: object) -> None:
    """Log a line that belongs to no message, and count it if it was dropped."""
    dropped = log.write(log.line(outcome, **values), config.log, failed)
    if dropped:
        journal = Journal(config.state.directory)
        journal.count_dropped(dropped)
        journal.close()  # before this process forks
