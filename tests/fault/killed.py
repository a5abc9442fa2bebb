"""Killed anywhere: SIGKILL at every system call of the entrypoint, from its first read of stdin to its exit; in the
resident mode from its first message to the service, and at every call of the worker and of the supervisor around one
message. Of the hand-over client at each call from there as well.

Each point has a distinct message: its delivery is killed just before that call, and it is delivered again as Postfix
would, by the same command. Then it must be stored once for each recipient (every third message has two), byte for byte,
and parsed: a kill during parsing leaves a mark, and the probe that follows must clear the message. At some points the
second delivery is killed as well, while its probe runs.
"""

from typing import NamedTuple

from harness import account
from harness.handler import Ended

from .hosts import Crew, Host, crew
from .injection import Call, Letter, Maker, fresh_database, letter, sample, since
from .ledger import Ledger, Mode, Row, Scale

_SAMPLE = {Mode.COLD: 18, Mode.RESIDENT: 4, Mode.CLIENT: 12}
"""Points of the short form, for each process: half of them outside imports."""

_ENDS = {Maker.ENTRYPOINT: (0, -9), Maker.WAITING: (0, -9), Maker.WORKER: (0, 75), Maker.SUPERVISOR: (0, 75)}
"""How an entrypoint may end, by the process that was killed."""


class _Point(NamedTuple):
    """A letter, and for each of its deliveries but the last the call at which it is killed."""

    sent: Letter
    calls: tuple[Call, ...]


class _Attempt(NamedTuple):
    """One delivery: how it ended, and whether there was a kill."""

    ended: Ended
    killed: bool = False


def run(scale: Scale, mode: Mode) -> Row:
    """Kill and deliver again, at all points or at a sample of them."""
    row, ledger = mode.row("killed"), Ledger()
    with fresh_database() as database, account.folder("pipehandler-") as folder:
        planned = 0
        # A worker that has lost its connection opens a new one for the message.
        for new_connection in (False, True) if mode is Mode.RESIDENT and not scale.short else (False,):
            with crew(
                mode, scale, folder / f"{new_connection}", database, row, ledger, new_connection=new_connection
            ) as hosts:
                planned += _all(hosts, ledger, row, scale, planned)
        # A few calls depend on time, and are not made in every delivery; nearly all are.
        if row.points < 0.9 * planned:
            row.note(f"only {row.points} of {planned} kills happened")
        ledger.check(database, row)
        for name, state in database.rows(
            "SELECT d.recipient, m.state FROM pipehandler.delivery d"
            " JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message"
            " WHERE m.state <> 'parsed'"
        ):
            row.note(f"the message for {name} is {state}")
    return row


def _all(hosts: Crew, ledger: Ledger, row: Row, scale: Scale, start: int) -> int:
    """All points with these hosts, numbered from `start`; returns how many."""
    with hosts.member() as host:
        chosen = _delivery(host, ledger, scale, f"{start}")
        if not start and host.mode is not Mode.CLIENT:
            chosen += _probe(host, ledger, scale)
    points = [_point(number, calls) for number, calls in enumerate(chosen, start)]
    for point in points:
        ledger.send(point.sent.raw, *point.sent.recipients)
    for point, attempts in zip(points, hosts.each(_attempts, points), strict=True):
        _judge(point, attempts, row)
    return len(points)


def _delivery(host: Host, ledger: Ledger, scale: Scale, name: str) -> list[tuple[Call, ...]]:
    """Each call of a delivery, from its first read: before that there is nothing to lose."""
    found: list[tuple[Call, ...]] = []
    for maker in host.makers:
        sent = letter(f"{maker.value}-{name}")
        ledger.send(sent.raw, *sent.recipients)
        calls = since(host.trace(sent, maker), host.begins)
        found += [(each,) for each in (sample(calls, _SAMPLE[host.mode]) if scale.short else scale.thin(calls, 60))]
    return found


def _probe(host: Host, ledger: Ledger, scale: Scale) -> list[tuple[Call, ...]]:
    """A call during parsing, and then each call of the next delivery while its probe runs and while it parses
    itself."""
    sent = _slow("probe")
    ledger.send(sent.raw, *sent.recipients)
    (parsed,) = (
        each for each in host.trace(sent, host.deliverer) if each.name == "ftruncate" and "/parsing-" in each.file
    )  # the end of its mark
    host.kill(sent, parsed)
    calls = since(host.trace(sent, host.deliverer), lambda each: each.name == "clone")
    during = calls[: [(each.name, each.number) for each in calls].index((parsed.name, parsed.number)) + 1]
    return [
        (parsed, each) for each in (sample(during, _SAMPLE[host.mode] // 4) if scale.short else scale.thin(during, 10))
    ]


def _slow(name: str, *recipients: str) -> Letter:
    """A letter that takes some time to parse: long enough to kill a process that waits for the result."""
    return letter(name, *recipients, more="--=\nContent-Type: text/plain\n\n=\n" * 900)


def _point(number: int, calls: tuple[Call, ...]) -> _Point:
    name = f"{number:05}"
    recipients = (f"{name}@example.com", f"{name}@example.net")[: 1 + (number % 3 == 0)]
    return _Point((_slow if len(calls) > 1 else letter)(name, *recipients), calls)


def _attempts(host: Host, point: _Point) -> list[_Attempt]:
    """All deliveries of one letter, the last one without a fault."""
    return [*(_Attempt(*host.kill(point.sent, call)) for call in point.calls), _Attempt(host.redeliver(point.sent))]


def _judge(point: _Point, attempts: list[_Attempt], row: Row) -> None:
    """Count the result of one point."""
    where = ", ".join(map(str, point.calls))
    ends = [each.ended for each in attempts]
    row.statuses.update(each.status for each in ends)
    row.points += attempts[-2].killed
    for call, end, following in zip(point.calls, ends, ends[1:], strict=False):
        if end.status not in _ENDS[call.maker]:
            row.bounced += 1
            row.note(f"{end} at a kill at {where}")
        if end.status == 0 and "stored before" not in following.output:
            row.note(f"status 0 at a kill at {where}, and then {following}")
    if ends[-1].status != 0:
        row.note(f"{ends[-1]}, delivered again after a kill at {where}")
