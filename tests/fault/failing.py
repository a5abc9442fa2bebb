"""Every call fails: each system call of the entrypoint is refused with the errors that calls can give; in the resident way also
those of the worker, from the moment it receives a message to when it is free again, and of the supervisor meanwhile.

Each point has a message of its own, and one fault in its delivery: one call that fails, or from that call on all of its name. The
status must be 0, or one that defers: 71, 75, death by a signal. After 0 nobody delivers again, so the message must be
there; after the others it is delivered again without a fault, and must then be there once, and parsed. A service has to deliver
again after each fault.

The faults begin where the text after -c runs, which is when the package is looked for. Before that, while the interpreter itself
starts, there is no code of ours that could choose a status, and Python's are 1 and 127: this is what pipe_delivery_status_filter
is for (postfix/pipehandler_status_filter.example, and the tests of it in tests/postfix).
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
"""What the calls of an import may give; they get one of these in turn, all others every error."""

_OF_MEMORY = frozenset({"mmap", "mprotect", "mremap", "munmap"})
_NEVER = frozenset(
    {
        *("alarm", "exit_group", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "setitimer", "umask", "uname"),
        *("getegid", "geteuid", "getgid", "getpid", "getppid", "gettid", "getuid"),
        "futex",  # one thread alone only wakes nobody up
        "brk",  # says no by a smaller value, not by an error; mmap is what fails then, too
    }
)
"""Calls that cannot fail, or not for any of these reasons: glibc takes an impossible error for a success, or aborts."""

_NEVER_IN_IMPORTS = frozenset({"ioctl", "lseek"})
"""isatty and tell of a plain file: the kernel does not ask its disk."""

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
"""What does not pass by: with these, all later calls fail, too."""

_SAMPLE = {Mode.COLD: 6, Mode.RESIDENT: 4}
"""So many calls of each process are a sample."""

_HASTY: dict[str, dict[str, object]] = {"limits": {"deadline": 5, "parse_timeout": 4}}
"""libpq waits for a server that never got the query, when the sending failed and the connection lives: until the deadline."""


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
    """What became of a point: whether there was a fault, how its delivery ended, and the next one, if there was one."""

    point: _Point
    happened: bool
    ended: Ended
    again: Ended | None


class _Fault(NamedTuple):
    """A fault that is not yet one of a letter."""

    call: Call
    fault: str
    ever: bool = False


_Learn = Callable[[Host, Ledger, Scale], list[_Point]]


def run(scale: Scale, mode: Mode) -> Row:
    """Let calls fail, all of them or a sample."""
    row, ledger = mode.row("failing"), Ledger()
    with fresh_database() as database, account.folder("pipehandler-") as folder:
        taken: set[str] = set()
        with crew(mode, scale, folder / "local", database, row, ledger, _HASTY) as local:
            planned = _all(local, _delivery, ledger, row, scale, taken) + _all(local, _probe, ledger, row, scale, taken)
            with local.member() as host:
                _cut(host, ledger, row, scale)
        if mode is Mode.COLD or not scale.short:
            with crew(mode, scale, folder / "tcp", database, row, ledger, _HASTY, new_connection=True) as tcp:
                planned += _all(tcp, _connection, ledger, row, scale, taken)
        # A few calls depend on time, and are not made in every delivery; nearly all are.
        if row.points < 0.9 * planned:
            row.note(f"only {row.points} of {planned} faults happened")
        ledger.check(database, row)
        _check_states(database, taken, row)
    return row


def _all(hosts: Crew, learn: _Learn, ledger: Ledger, row: Row, scale: Scale, taken: set[str]) -> int:
    """All points that `learn` finds; returns how many. `taken`: whose message got status 0 in spite of a fault."""
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
        if maker in (Maker.ENTRYPOINT, Maker.WAITING):
            calls = since(calls, lambda each: each.file.startswith(PACKAGES))
        else:
            calls = since(calls, host.begins)
        faults += _faults(sample(calls, _SAMPLE[host.mode]) if scale.short else calls, scale)
    return _points("d", scale.thin(faults, 80))


def _connection(host: Host, ledger: Ledger, scale: Scale) -> list[_Point]:
    """The calls of a delivery over TCP, from where it connects."""
    calls = _trace(host, letter("connection"), ledger, host.deliverer)
    calls = since(calls, lambda each: each.name == "socket" and each.said.startswith("AF_INET"))
    return _points("c", scale.thin(list(_faults(calls[::12] if scale.short else calls, scale)), 15))


def _probe(host: Host, ledger: Ledger, scale: Scale) -> list[_Point]:
    """The calls while a message is parsed whose first delivery was killed there."""
    sent = letter("probe")
    (parsed,) = (
        each
        for each in _trace(host, sent, ledger, host.deliverer)
        if each.name == "ftruncate" and "/parsing-" in each.file
    )
    host.kill(sent, parsed)
    calls = since(host.trace(sent, host.deliverer), lambda each: "/parsing-" in each.file)
    calls = calls[: calls.index(next(each for each in calls if each.name == "unlink")) + 1]
    return _points("p", scale.thin(list(_faults(calls[::12] if scale.short else calls, scale)), 10), before=parsed)


def _trace(host: Host, sent: Letter, ledger: Ledger, maker: Maker) -> list[Call]:
    ledger.send(sent.raw, *sent.recipients)
    return host.trace(sent, maker)


def _points(kind: str, faults: Iterable[_Fault], before: Call | None = None) -> list[_Point]:
    return [_Point(letter(f"{kind}{number:05}"), *fault, before) for number, fault in enumerate(faults)]


def _faults(calls: list[Call], scale: Scale) -> Iterator[_Fault]:
    """What may happen at these calls; a sample has one error for each."""
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
    """The delivery with the fault and, where it was not delivered, another without. A service always has to deliver another."""
    if point.before:
        host.kill(point.sent, point.before)
    ended, said = host.fail(point.sent, point.call, point.fault, point.ever)
    again = host.redeliver(point.sent) if ended.status or host.mode is Mode.RESIDENT else None
    return _Made(point, "(INJECTED)" in said, ended, again)


def _judge(made: _Made, row: Row) -> None:
    """Count what happened at one point."""
    row.points += made.happened
    _count(made.ended, str(made.point), row)
    if made.again:
        row.statuses[made.again.status] += 1
        if made.again.status != 0:
            row.note(f"{made.again}, delivered again after {made.point}")
        if made.ended.status == 0 and "stored before" not in made.again.output:
            row.note(f"status 0 in spite of {made.point}, and then {made.again}")


def _count(ended: Ended, where: str, row: Row) -> None:
    """Count a status; what pipe(8) would bounce is one too many."""
    row.statuses[ended.status] += 1
    # An enhanced code that begins the output wins over the status.
    if ended.status > 0 and (ended.status not in (71, 75) or re.match(r"5\.\d+\.\d+", ended.output)):
        row.bounced += 1
        row.note(f"{ended} after {where}")


def _cut(host: Host, ledger: Ledger, row: Row, scale: Scale) -> None:
    """Each read of stdin finds its end, while pipe(8) lives and told the size: what came is stored with a defect, or
    deferred where nothing came; the whole message is another one."""
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
    """A letter that does not fit into a pipe, and so needs several reads."""
    return letter(name, more="--=\nContent-Type: text/plain\n\n" + "=\n" * 200_000)


def _check_states(database: Database, taken: set[str], row: Row) -> None:
    """A fault in the parsing may leave a message unparsed; one that was deferred and came again has no excuse. What was cut
    says so."""
    for recipient, state, error, size, short in database.rows(
        'SELECT d.recipient, m.state, m.error, m.size, m.defects @> \'[{"code": "smaller-than-declared"}]\' AS short'
        "  FROM pipehandler.delivery d JOIN pipehandler.message m ON m.id = d.message"
    ):
        if state != "parsed" and recipient not in taken:
            row.note(f"the message for {recipient} is {state}: {error}")
        if short != (recipient.startswith("cut") and size < len(_long("cut0").raw)):
            row.note(
                f"the message of {size} octets for {recipient} has {'the' if short else 'no'} defect smaller-than-declared"
            )
