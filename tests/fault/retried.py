"""Deliver a letter as Postfix does: again until its status is 0; then only the stored mail is compared."""

import time
from collections.abc import Callable

from harness.handler import Ended, Handler

from .injection import Letter
from .ledger import Ledger, Row

ALLOWED = frozenset({0, 71, 75})
"""The statuses of the outcome table that do not bounce mail; death by a signal also defers."""

REPORTS = {"status": (0, 1, 3), "check": (0, 1, 3)}
"""The exit statuses of commands whose status reports a problem or an unknown state; all others end with 0."""

_PATIENCE = 15.0
"""Seconds for a circuit breaker's pauses."""

Run = Callable[[Letter], Ended]


def count(ended: Ended, where: str, row: Row) -> None:
    """Count how one delivery ended; one that pipe(8) would bounce is a finding."""
    row.statuses[ended.status] += 1
    if ended.status > 0 and (ended.status not in ALLOWED or ended.output.startswith("5.")):
        row.bounced += 1
        row.note(f"{ended} at {where}")


def deliver(handler: Handler, sent: Letter) -> Ended:
    """One delivery without a fault."""
    return handler.run(sent.command(handler), sent.raw)


def stored(run: Run, sent: Letter, where: str, row: Row, ledger: Ledger, tries: int = 1) -> None:
    """Deliver `sent` by `run` until it is stored, and once more, which must find it stored. tries: after so many it
    must be stored; with more than one, those before the last are repeated for as long as the breaker pauses."""
    ledger.send(sent.raw, *sent.recipients)
    until = time.monotonic() + _PATIENCE
    while True:
        ended = run(sent)
        count(ended, where, row)
        tries -= 1
        if ended.status == 0:
            break
        if tries <= 0 or time.monotonic() > until:
            row.note(f"{ended} at {where}")
            return
        time.sleep(0.25)
    again = run(sent)
    count(again, where, row)
    if not again.output.startswith("2.0.0 stored before"):
        row.note(f"{ended} at {where}, and then {again}")
