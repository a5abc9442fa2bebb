"""Send mail with smtp-source, and read from Postfix's log how it was delivered."""

import re
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from harness.mailhost import MailHost

_ATTEMPT = re.compile(
    rb"postfix/\w+\[\d+\]: \w+: to=<[^>]*@(?P<domain>[^>]*)>, .*?delays=[^/]*/[^/]*/[^/]*/(?P<seconds>[^,]*), .*?status=(?P<status>\w+)"
)
_PATIENCE = 300  # seconds without any delivery
_SESSIONS = 8
_OTHERS = "example.org"  # the senders' domain: bounces are discarded

DISCARDED = f"inline:{{{_OTHERS}=discard:}}"
"""A table for transport_maps that discards bounces."""


class Attempt(NamedTuple):
    """One attempt: how it ended, and how long the transport's command ran (delays=a/b/c/d: d, two significant digits)."""

    status: str
    seconds: float


class Log:
    """What a Postfix logs from now on about its deliveries to one domain."""

    def __init__(self, host: MailHost, domain: str) -> None:
        self.attempts: list[Attempt] = []
        self._domain = domain.encode()
        self._file = host.maillog.open("rb")
        self._file.seek(0, 2)
        self._rest = b""

    @property
    def ended(self) -> int:
        """How many recipients Postfix has finished with."""
        return sum(each.status in ("sent", "bounced") for each in self.attempts)

    @property
    def statuses(self) -> Counter[str]:
        """How often each status was logged."""
        return Counter(each.status for each in self.attempts)

    def wait(self, count: int, *statuses: str) -> None:
        """Read on until `count` attempts have one of these statuses (default: sent or bounced)."""
        wanted = statuses or ("sent", "bounced")
        done, until = sum(each.status in wanted for each in self.attempts), time.monotonic() + _PATIENCE
        while done < count:
            new = self._read()
            self.attempts += new
            done += sum(each.status in wanted for each in new)
            if new:
                until = time.monotonic() + _PATIENCE
            elif time.monotonic() > until:
                raise TimeoutError(
                    f"{done} of {count} were {wanted} after {_PATIENCE} s without a delivery: {self.statuses}"
                )
            time.sleep(0.02)

    def close(self) -> None:
        """Stop reading."""
        self._file.close()

    def _read(self) -> list[Attempt]:
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        found = [match for line in lines if (match := _ATTEMPT.search(line)) and match["domain"] == self._domain]
        return [Attempt(match["status"].decode(), float(match["seconds"])) for match in found]


def send(
    host: MailHost,
    files: Sequence[Path],
    copies: int,
    name: str,
    domain: str,
    recipients: int = 1,
    sessions: int = _SESSIONS,
) -> None:
    """Send each file so many times with smtp-source, over so many concurrent sessions.

    Each copy has its own recipients, whose names contain `name`. Each is a distinct message, because Postfix prepends a
    Received field with another queue id.
    """

    def one(number: int) -> None:
        subprocess.run(
            [
                *("smtp-source", "-s", "1", "-m", str(copies), "-N", "-r", str(recipients), "-F", str(files[number])),
                *("-f", f"source@{_OTHERS}", "-t", f"{name}x{number}@{domain}", f"inet:127.0.0.1:{host.port}"),
            ],
            check=True,
            capture_output=True,
        )

    with ThreadPoolExecutor(sessions) as pool:
        for _ in pool.map(one, range(len(files))):
            pass
