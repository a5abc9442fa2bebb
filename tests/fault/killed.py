"""Killed anywhere: SIGKILL at every system call of the entrypoint, from its first read of stdin to its exit.

Each point has a message of its own: its delivery is killed as it is about to make that call, and it is delivered again as Postfix
would, by the same command. Then it must be there once for each recipient (every third has two), byte for byte, and parsed:
a kill while the message is parsed leaves a mark, and the probe that follows must find the message innocent. In some
points the second delivery is killed as well, while its probe runs.
"""

from typing import NamedTuple

from real import account
from real.handler import Ended, Handler

from .injection import Call, Crew, Letter, fresh_database, kill, letter, redeliver, sample, since, trace
from .ledger import Ledger, Row, Scale

_SAMPLE = 18
"""Points of the short form: half of them in what is not importing."""


class _Point(NamedTuple):
    """A letter, and the call at which each of its deliveries but the last is killed."""

    sent: Letter
    calls: tuple[Call, ...]


def run(scale: Scale) -> Row:
    """Kill and deliver again, at all points or at a sample of them."""
    row, ledger = Row("killed"), Ledger()
    with fresh_database() as database, account.folder("pipehandler-") as folder:
        crew = Crew(folder, database.conninfo)
        with crew.member() as handler:
            chosen = _delivery(handler, ledger, scale) + _probe(handler, ledger, scale)
        points = [_point(number, calls) for number, calls in enumerate(chosen)]
        for point in points:
            ledger.send(point.sent.raw, *point.sent.recipients)
        for point, attempts in zip(points, crew.each(_attempts, points), strict=True):
            _judge(point, attempts, row)
        # A few calls depend on time, and are not made in every delivery; nearly all are.
        if row.points < 0.9 * len(points):
            row.note(f"only {row.points} of {len(points)} kills happened")
        ledger.check(database, row)
        for name, state in database.rows(
            "SELECT d.recipient, m.state FROM pipehandler.delivery d JOIN pipehandler.message m ON m.id = d.message"
            " WHERE m.state <> 'parsed'"
        ):
            row.note(f"the message for {name} is {state}")
    return row


def _delivery(handler: Handler, ledger: Ledger, scale: Scale) -> list[tuple[Call, ...]]:
    """Each call of a delivery, from the first read of stdin."""
    sent = letter("delivery")
    ledger.send(sent.raw, *sent.recipients)
    _, calls = trace(handler, sent.command(handler), sent.raw)
    calls = since(calls, lambda each: each.name == "read" and each.said.startswith("0,"))
    return [(each,) for each in (calls if scale is Scale.FULL else sample(calls, _SAMPLE))]


def _probe(handler: Handler, ledger: Ledger, scale: Scale) -> list[tuple[Call, ...]]:
    """A call while the message is parsed, and then each call of the next delivery while its probe runs and it parses itself."""
    sent = _slow("probe")
    ledger.send(sent.raw, *sent.recipients)
    _, calls = trace(handler, sent.command(handler), sent.raw)
    (parsed,) = (each for each in calls if each.name == "ftruncate")  # the end of its mark
    kill(handler, sent.command(handler), sent.raw, parsed)
    _, calls = trace(handler, sent.command(handler), sent.raw)
    calls = since(calls, lambda each: each.name == "clone")
    during = calls[: calls.index(parsed) + 1]
    return [(parsed, each) for each in (during if scale is Scale.FULL else sample(during, _SAMPLE // 4))]


def _slow(name: str, *recipients: str) -> Letter:
    """A letter that takes some time to parse: long enough to kill whoever waits for that."""
    return letter(name, *recipients, more="--=\nContent-Type: text/plain\n\n=\n" * 900)


def _point(number: int, calls: tuple[Call, ...]) -> _Point:
    name = f"{number:05}"
    recipients = (f"{name}@example.com", f"{name}@example.net")[: 1 + (number % 3 == 0)]
    return _Point((_slow if len(calls) > 1 else letter)(name, *recipients), calls)


def _attempts(handler: Handler, point: _Point) -> list[Ended]:
    """All deliveries of one letter, the last one without a fault."""
    command = point.sent.command(handler)
    return [*(kill(handler, command, point.sent.raw, call) for call in point.calls), redeliver(handler, point.sent)]


def _judge(point: _Point, attempts: list[Ended], row: Row) -> None:
    """Count what happened at one point."""
    where = ", ".join(map(str, point.calls))
    row.statuses.update(each.status for each in attempts)
    row.points += attempts[-2].status == -9
    for each in attempts[:-1]:
        if each.status not in (0, -9):
            row.bounced += 1
            row.note(f"{each}, not killed at {where}")
    if attempts[-1].status != 0:
        row.note(f"{attempts[-1]}, delivered again after a kill at {where}")
