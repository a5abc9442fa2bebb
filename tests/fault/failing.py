"""Every system call fails: each call of the entrypoint fails with the errors that it can return. In the resident mode
this includes the calls of the worker, from the moment it receives a message until it is free again, and those of the
supervisor meanwhile. Of the hand-over client, every call of its own fails: those of the loader end with 127.

Each point has a distinct message, and one fault in its delivery: one call that fails, or that call and all later ones
of the same name. The status must be 0, or one that defers: 71, 75, death by a signal. After 0 Postfix does not deliver
again, so the message must be stored. After the others it is delivered again without a fault, and must then be stored
once, and parsed. A service has to deliver again after each fault.

The faults begin where the text after -c runs, which is when the package is looked for. Before that, while the
interpreter itself starts, there is no code of ours that could choose a status, and Python's are 1 and 127: this is what
pipe_delivery_status_filter is for (postfix/pipehandler_status_filter.example, and the tests of it in tests/postfix).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from harness import account
from harness.database import Database
from harness.handler import Ended

from pipehandler.postfix.templates import PACKAGES

from .hosts import Crew, Host, crew
from .injection import Call, Letter, Maker, fresh_database, letter, sample, since
from .ledger import Ledger, Mode, Row, Scale

_ERRORS = ("EIO", "ENOMEM", "EACCES", "EMFILE", "EINTR", "ENOSPC", "EPIPE", "ECONNRESET", "EAGAIN")
_OF_FILES = _ERRORS[:5]
"""Errors that the calls of an import may return; each of these calls gets one of them in turn, all others get every
error."""

_OF_MEMORY = frozenset({"mmap", "mprotect", "mremap", "munmap"})
_NEVER = frozenset(
    {
        *("alarm", "exit_group", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "setitimer", "umask", "uname"),
        *("getegid", "geteuid", "getgid", "getpid", "getppid", "gettid", "getuid"),
        "futex",  # with a single thread it has nothing to wake
        "brk",  # reports failure by a smaller value, not by an error; mmap then fails as well
    }
)
"""Calls that cannot fail, or not for any of these reasons: glibc treats an impossible error as success, or aborts."""

_NEVER_IN_IMPORTS = frozenset({"ioctl", "lseek"})
"""isatty and tell of a plain file: the kernel does not access the disk."""

_FOR_EVER = {
    "openat": ("EMFILE", "EACCES", "EIO"),
    "read": ("EIO",),
    "newfstatat": ("EIO", "EACCES"),
    "mmap": ("ENOMEM",),
    "write": ("ENOSPC", "EPIPE"),
    "socket": ("EMFILE",),
    "sendto": ("EPIPE",),
    "recvfrom": ("ECONNRESET",),
}
"""Lasting errors: with these, all later calls fail as well."""

_SAMPLE = {Mode.COLD: 6, Mode.RESIDENT: 4, Mode.CLIENT: 20}
"""The number of calls of each process in a sample."""

_HASTY: dict[str, dict[str, object]] = {"limits": {"deadline": 5, "parse_timeout": 4}}
"""When sending fails and the connection stays open, libpq waits for a server that never received the query, until the
deadline."""


class _Point(NamedTuple):
    """One fault in the delivery of one letter. `before`: an earlier delivery of it was killed at this call."""

    sent: Letter
    call: Call
    fault: str
    ever: bool = False
    before: Call | None = None

    def __str__(self) -> str:
        return f"{self.fault}{' from then on' * self.ever} at {self.call}{' while a probe runs' * bool(self.before)}"


class _Made(NamedTuple):
    """The result of a point: whether there was a fault, how its delivery ended, and the next one, if there was one."""

    point: _Point
    happened: bool
    ended: Ended
    again: Ended | None


class _Fault(NamedTuple):
    """A fault that is not yet assigned to a letter."""

    call: Call
    fault: str
    ever: bool = False


_Learn = Callable[[Host, Ledger, Scale], list[_Point]]


def run(scale: Scale, mode: Mode) -> Row:
    """Make calls fail, all of them or a sample."""
    row, ledger = mode.row("failing"), Ledger()
    with fresh_database() as database, account.folder("pipehandler-") as folder:
        taken: set[str] = set()
        with crew(mode, scale, folder / "local", database, row, ledger, _HASTY) as local:
            planned = _all(local, _delivery, ledger, row, scale, taken)
            if mode is not Mode.CLIENT:
                planned += _all(local, _probe, ledger, row, scale, taken)
                with local.member() as host:
                    _cut(host, ledger, row, scale)
        if mode is Mode.COLD or (mode is Mode.RESIDENT and not scale.short):
            with crew(mode, scale, folder / "tcp", database, row, ledger, _HASTY, new_connection=True) as tcp:
                planned += _all(tcp, _connection, ledger, row, scale, taken)
        # A few calls depend on time, and are not made in every delivery; nearly all are.
        if row.points < 0.9 * planned:
            row.note(f"only {row.points} of {planned} faults happened")
        ledger.check(database, row)
        _check_states(database, taken, row)
    return row


def _all(hosts: Crew, learn: _Learn, ledger: Ledger, row: Row, scale: Scale, taken: set[str]) -> int:
    """Run all points that `learn` finds; returns how many. `taken`: the points whose message got status 0 in spite of a
    fault."""
    with hosts.member() as host:
        points = learn(host, ledger, scale)
    for point in points:
        ledger.send(point.sent.raw, *point.sent.recipients)
    for made in hosts.each(_made, points):
        _judge(made, row)
        if made.ended.status == 0:
            taken.update(made.point.sent.recipients)
    return len(points)


def _delivery(host: Host, ledger: Ledger, scale: Scale) -> list[_Point]:
    """The calls of a delivery; the entrypoint's from where it looks for the package."""
    faults: list[_Fault] = []
    for maker in host.makers:
        calls = _trace(host, letter(f"delivery-{maker.value}"), ledger, maker)
        if host.mode is Mode.CLIENT:
            calls = since(calls, lambda each: each.name in ("alarm", "setitimer"))
        elif maker in (Maker.ENTRYPOINT, Maker.WAITING):
            calls = since(calls, lambda each: each.file.startswith(PACKAGES))
        else:
            calls = since(calls, host.begins)
        faults += _faults(sample(calls, _SAMPLE[host.mode]) if scale.short else calls, scale)
    return _points("d", scale.thin(faults, 80))


def _connection(host: Host, ledger: Ledger, scale: Scale) -> list[_Point]:
    """The calls of a delivery over TCP, from where it connects."""
    calls = _trace(host, letter("connection"), ledger, host.deliverer)
    calls = since(calls, lambda each: each.name == "socket" and each.said.startswith("AF_INET"))
    return _points("c", scale.thin(list(_faults(calls[::127] if scale.short else calls, scale)), 15))


def _probe(host: Host, ledger: Ledger, scale: Scale) -> list[_Point]:
    """The calls during the parsing of a message whose first delivery was killed there."""
    sent = letter("probe")
    (parsed,) = (
        each
        for each in _trace(host, sent, ledger, host.deliverer)
        if each.name == "ftruncate" and "/parsing-" in each.file
    )
    host.kill(sent, parsed)
    calls = since(host.trace(sent, host.deliverer), lambda each: "/parsing-" in each.file)
    calls = calls[: calls.index(next(each for each in calls if each.name == "unlink")) + 1]
    return _points("p", scale.thin(list(_faults(calls[::127] if scale.short else calls, scale)), 10), before=parsed)


def _trace(host: Host, sent: Letter, ledger: Ledger, maker: Maker) -> list[Call]:
    ledger.send(sent.raw, *sent.recipients)
    return host.trace(sent, maker)


def _points(kind: str, faults: Iterable[_Fault], before: Call | None = None) -> list[_Point]:
    return [_Point(letter(f"{kind}{number:05}"), *fault, before) for number, fault in enumerate(faults)]


def _faults(calls: list[Call], scale: Scale) -> Iterator[_Fault]:
    """The faults for these calls; a sample has one error for each."""
    for turn, call in enumerate(calls):
        if call.name in _NEVER or (call.imports and call.name in _NEVER_IN_IMPORTS):
            continue
        if call.name in _OF_MEMORY:
            errors: tuple[str, ...] = ("ENOMEM",)
        elif call.imports or scale.short:
            errors = (_OF_FILES[turn % len(_OF_FILES)],)
        else:
            errors = _ERRORS
        for error in errors:
            yield _Fault(call, f"error={error}")
        if call.name == "recvfrom":
            yield _Fault(call, "retval=0", ever=True)  # the server hangs up
        if not scale.short and (not call.imports or turn % 20 == 0):
            for error in _FOR_EVER.get(call.name, ()):
                yield _Fault(call, f"error={error}", ever=True)


def _made(host: Host, point: _Point) -> _Made:
    """The delivery with the fault and, if it failed, another without. A service always has to deliver another."""
    if point.before:
        host.kill(point.sent, point.before)
    ended, said = host.fail(point.sent, point.call, point.fault, point.ever)
    again = host.redeliver(point.sent) if ended.status or host.mode is not Mode.COLD else None
    return _Made(point, "(INJECTED)" in said, ended, again)


def _judge(made: _Made, row: Row) -> None:
    """Count the result of one point."""
    row.points += made.happened
    _count(made.ended, str(made.point), row)
    if made.again:
        row.statuses[made.again.status] += 1
        if made.again.status != 0:
            row.note(f"{made.again}, delivered again after {made.point}")
        if made.ended.status == 0 and "stored before" not in made.again.output:
            row.note(f"status 0 in spite of {made.point}, and then {made.again}")


def _count(ended: Ended, where: str, row: Row) -> None:
    """Count a status; one that pipe(8) would bounce is a finding."""
    row.statuses[ended.status] += 1
    # An enhanced code at the start of the output takes precedence over the status.
    if ended.status > 0 and (ended.status not in (71, 75) or re.match(r"5\.\d+\.\d+", ended.output)):
        row.bounced += 1
        row.note(f"{ended} after {where}")


def _cut(host: Host, ledger: Ledger, row: Row, scale: Scale) -> None:
    """Each read of stdin returns end of file, while pipe(8) is alive and declared the size: the part received is stored
    with a defect, or deferred if nothing was received. The whole message is a different one."""
    reads = [each for each in _trace(host, _long("whole"), ledger, host.deliverer) if each.name == "read"]
    stdin = since(reads, lambda each: '"Received:' in each.said)[0].said.partition(",")[0]
    calls = [each for each in reads if each.said.startswith(f"{stdin},")]
    for number, call in enumerate(calls[1:2] if scale.short else calls):
        sent = _long(f"cut{number}")
        ended, said = host.fail(sent, call, "retval=0")
        octets = sum(map(int, re.findall(rf"read\({stdin}, .* = (\d+)$", said, re.MULTILINE)))
        where = f"the end of stdin after {octets} octets"
        row.points += "(INJECTED)" in said
        _count(ended, where, row)
        if (ended.status == 0) != (octets > 0):
            row.note(f"{ended} after {where}")
        if 0 < octets < len(sent.raw):
            ledger.send(sent.raw[:octets], *sent.recipients)
        ledger.send(sent.raw, *sent.recipients)
        again = host.redeliver(sent)
        row.statuses[again.status] += 1
        if again.status != 0:
            row.note(f"{again}, delivered again after {where}")


def _long(name: str) -> Letter:
    """A letter larger than a pipe's buffer, which needs several reads."""
    return letter(name, more="--=\nContent-Type: text/plain\n\n" + "=\n" * 200_000)


def _check_states(database: Database, taken: set[str], row: Row) -> None:
    """A fault during parsing may leave a message unparsed, but a message that was deferred and redelivered must be
    parsed. A truncated message is marked."""
    for recipient, state, error, size, short in database.rows(
        'SELECT d.recipient, m.state, m.error, m.size, m.defects @> \'[{"code": "smaller-than-declared"}]\' AS short'
        "  FROM pipehandler.delivery d JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message"
    ):
        if state != "parsed" and recipient not in taken:
            row.note(f"the message for {recipient} is {state}: {error}")
        if short != (recipient.startswith("cut") and size < len(_long("cut0").raw)):
            row.note(
                f"the message of {size} octets for {recipient} has {'the' if short else 'no'} defect smaller-than-declared"
            )
