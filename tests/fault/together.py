"""Concurrent events, in any order: the same message by twenty handlers at once; deliveries, kills, truncations and
expiry in orders chosen by Hypothesis, checked against a model; and expiry at the very moment of a delivery.

Each whole message is stored exactly once for each recipient that it was delivered to, and nothing else is stored.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import psycopg
from harness import account
from harness.database import Database
from harness.handler import Ended, Handler
from harness.postgresql import FAST, PostgreSQL
from harness.service import Service
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from . import core, expiry
from .any_order import ResidentWorld, World, machine
from .ledger import Mode, Row, Scale
from .mailbox import clear, stored
from .pool import only_resident

HANDLERS = 20
WORKERS = 4
FIRST, SECOND, THIRD = "first@example.com", "second@example.com", "third@example.com"
MESSAGE = b"From: a@example.org\nTo: b@example.com\nMessage-ID: <together@example.org>\nSubject: at once\n\nbody\n"
ANONYMOUS = MESSAGE.replace(b"Message-ID: <together@example.org>\n", b"")
LARGE = MESSAGE + b"a line of seventy-six octets, as many messages have them in their bodies...\n" * 20_000


class Meeting(NamedTuple):
    """What twenty handlers deliver at once: `delivery` returns the message and the recipients of each."""

    name: str
    delivery: Callable[[int], tuple[bytes, tuple[str, ...]]]


def _rotated(number: int) -> tuple[str, ...]:
    everybody = (FIRST, SECOND, THIRD)
    return (everybody[number % 3 :] + everybody[: number % 3])[: 1 + number % 3]


def _transmitted(number: int) -> bytes:
    """The sending host transmitted it twice: the Received field of our host differs."""
    return b"Received: by mx%d.example.com\n" % (number // 2 % 2) + MESSAGE


MEETINGS = (
    Meeting(
        "transmitted twice, two recipients in opposite orders",
        lambda n: (_transmitted(n), (FIRST, SECOND) if n % 2 else (SECOND, FIRST)),
    ),
    Meeting("two recipients in opposite orders", lambda n: (MESSAGE, (FIRST, SECOND) if n % 2 else (SECOND, FIRST))),
    Meeting("one recipient", lambda n: (MESSAGE, (FIRST,))),
    Meeting(
        "without Message-ID, two line ends", lambda n: (ANONYMOUS.replace(b"\n", (b"\n", b"\r\n")[n % 2]), (FIRST,))
    ),
    Meeting("some of three recipients", lambda n: (MESSAGE, _rotated(n))),
    Meeting("a recipient each", lambda n: (b"Delivered-To: %d@example.com\n" % n + MESSAGE, (f"{n}@example.com",))),
    Meeting("a large message", lambda n: (LARGE, _rotated(n))),
)

_ROUNDS = {Scale.SHORT: (1, MEETINGS[:1]), Scale.THIN: (1, MEETINGS), Scale.FULL: (6, MEETINGS)}
_EXPIRIES = {Scale.SHORT: 20, Scale.THIN: 200, Scale.FULL: 1_000}
_EXAMPLES = {Scale.SHORT: (3, 25), Scale.THIN: (10, 50), Scale.FULL: (60, 50)}
"""The number of examples of the state machine, and the most steps of each."""


def run(scale: Scale, mode: Mode) -> Row:
    """Run all three, one after the other; expiry has no mode."""
    row = mode.row("together")
    with account.folder("pipehandler-together-") as folder:
        server = PostgreSQL(folder / "16", 16, FAST).start()
        try:
            with Database.fresh(server) as database:
                handler_folder = folder / "handler"
                handler_folder.mkdir()
                handler = Handler(handler_folder, database.conninfo, serve={"workers": WORKERS})
                with Service(handler) if mode is Mode.RESIDENT else nullcontext() as service:
                    rounds, meetings = _ROUNDS[scale]
                    for meeting in meetings * rounds:
                        _meet(meeting, handler, service, database, row)
                    _in_any_order(scale, handler, service, database, folder, row)
                if service:
                    only_resident(row, handler)
                else:
                    expiry.run(_EXPIRIES[scale], database, row)
        finally:
            server.stop()
    return row


def _meet(meeting: Meeting, handler: Handler, service: Service | None, database: Database, row: Row) -> None:
    """Twenty handlers, held back until all of them wait for the table, or for the workers that do."""
    allowed: dict[str, set[bytes]] = {}
    deliveries = [meeting.delivery(number) for number in range(HANDLERS)]
    for raw, recipients in deliveries:
        for recipient in recipients:
            allowed.setdefault(recipient, set()).add(raw)
    with psycopg.connect(database.admin) as gate, ThreadPoolExecutor(HANDLERS) as pool:
        gate.execute("LOCK TABLE pipehandler.delivery IN SHARE ROW EXCLUSIVE MODE")
        ends = [pool.submit(handler.deliver, raw, *recipients) for raw, recipients in deliveries]
        waiting = _wait_for_handlers(database, service)
        gate.commit()
        for (raw, recipients), end in zip(deliveries, ends, strict=True):
            ended = end.result()
            if _status(ended, row) != 0 and _status(handler.deliver(raw, *recipients), row) != 0:
                row.note(f"{meeting.name}: {ended.output!r}, and again when no other handler delivered")
    if waiting < HANDLERS:
        row.note(f"{meeting.name}: only {waiting} handlers came together")
    row.points += HANDLERS
    there = stored(database)
    for recipient, raws in allowed.items():
        row.sent += 1
        count = sum(there.pop((recipient, raw), 0) for raw in raws)
        row.lost += count == 0
        row.doubled += max(0, count - 1)
    if there:
        row.note(f"{meeting.name}: {there.total()} deliveries that were never sent")
    clear(database)


def _status(ended: Ended, row: Row) -> int:
    row.statuses[ended.status] += 1
    row.bounced += ended.status not in (0, 71, 75) and ended.status >= 0
    return ended.status


def _wait_for_handlers(database: Database, service: Service | None, seconds: float = 8) -> int:
    """Wait until all handlers wait for the table or for a worker, but not until their lock_timeout; returns how many
    do."""
    until = time.monotonic() + seconds
    while True:
        waiting = int(
            database.value(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'pipehandler.delivery'::regclass"
            )
        )
        if service:
            waiting += service.status()["waiting"]
        if waiting == HANDLERS or time.monotonic() > until:
            return waiting
        time.sleep(0.02)


def _in_any_order(
    scale: Scale, handler: Handler, service: Service | None, database: Database, folder: Path, row: Row
) -> None:
    """Run the state machine: always the same steps in the short form, different ones each time in the full form."""
    examples, steps = _EXAMPLES[scale]
    with core.core(database, folder) as inside:
        world = ResidentWorld(handler, database, row, service) if service else World(handler, database, row, inside)
        try:
            run_state_machine_as_test(
                machine(world),
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    derandomize=scale.short,
                    database=None,
                    deadline=None,
                    phases=(Phase.generate,),
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except Exception as error:  # noqa: BLE001 # the row reports it, and the campaign continues
            row.note(f"in any order: {type(error).__name__}: {error}")
