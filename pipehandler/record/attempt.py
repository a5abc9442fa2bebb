"""What is written down of one attempt at a message: a line in the log, a record in the journal, and perhaps a word to Sentry.

The log is for whoever looks for one message, the journal for whoever counts them. Neither changes how the attempt ends.
"""

import time
from contextlib import suppress

from ..mail.outcome import Result
from ..runtime.stopwatch import Stopwatch
from ..settings.config import Config
from . import log, sentry
from .journal import Journal


class Attempt:
    """One attempt, from `started` (time.monotonic) on. ingress: the way in; mode: cold or resident.

    `config` is the default one until the real one is known, `journal` one that is open already; `recipients` and `size` are
    set when they are known.
    """

    def __init__(
        self,
        ingress: str,
        mode: str,
        queue_id: str,
        started: float,
        config: Config | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.stopwatch = Stopwatch(started)
        self.config = config or Config()
        self.recipients: int | None = None
        self.size: int | None = None
        self._ingress = ingress
        self._mode = mode
        self._queue_id = queue_id
        self._started = started
        self._journal = journal
        self._entry: int | None = None

    def begin(self, pid: int | None = None) -> None:
        """Write down that it has begun, so that it leaves a trace even if it is killed.

        `pid`: the process that had begun it, and is dead.
        """
        journal = self._journal = self._journal or Journal(self.config.state.directory)
        self._entry = (pid and journal.lost(pid, self._queue_id)) or journal.begin(
            self._ingress, self._mode, self._queue_id, self._started
        )

    def record(self, result: Result) -> None:
        """Write down how it ended."""
        self.stopwatch.stop()
        if self._entry is None:
            self.begin()
        how = result.outcome
        with suppress(OSError):
            text = log.line(
                how.name,
                status=how.status,
                code=how.code,
                queue_id=self._queue_id or None,
                recipients=self.recipients,
                size=self.size,
                mode=self._mode,
                seconds=sum(self.stopwatch.seconds.values()),
                message=result.message or None,
                message_id=result.message_id or None,
                sqlstate=result.sqlstate or None,
                reason=result.reason or None,
            )
            log.write(text, self.config.log, failed=how.status != 0)
        assert self._journal  # noqa: S101 # see above
        self._journal.end(
            self._entry,
            self._ingress,
            self._mode,
            how,
            size=self.size,
            sqlstate=result.sqlstate,
            message=result.message,
            reason=result.reason,
            seconds=self.stopwatch.seconds,
        )
        left = self._started + self.config.limits.deadline - time.monotonic()
        sentry.tell(self.config, self._journal, result, left, mode=self._mode, size=self.size)
