"""Events on a mail host in any order: a Hypothesis state machine of all that can happen to a message, checked against a
model.

The model records which bytes each recipient must have, and what Postfix still has in its queue. It has a simple
definition of when two messages are the same, independent of the handler's. After each step the store is compared with
it, octet by octet.
"""

import hashlib
import re
import signal
import sys
import threading
import time
from itertools import takewhile

from harness.database import Database
from harness.handler import Handler
from harness.service import Service
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from . import core, expiry
from .ledger import Row
from .mailbox import Mailbox, clear, stored

_FIELDS = b"From: a@example.org\nTo: b@example.com\nDate: Tue, 14 Mar 2023 09:26:53 +0100\nSubject: any order\n"
_NAMED = _FIELDS + b"Message-ID: <order@example.org>\n"
_BODIES = (
    _NAMED + b"\nbody\n",
    _NAMED + b"\nanother body under the same Message-ID\n",
    _NAMED + b"Message-ID: <again@example.org>\n\nbody\n",
    _FIELDS + b"\nbody of a message without Message-ID\n\n\n",
    _NAMED + b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\nContent-Type: image/png\n"
    b"Content-Transfer-Encoding: base64\n\n" + b"QUJD" * 18 + b"\n" + (b"QUJD" * 18 + b"\n") * 3_000 + b"--b--\n",
    _FIELDS + b"\n" + b"a line of a long text\n" * 10_000,
)
_DECIDING = (b"message-id", b"date", b"from", b"to", b"subject", b"content-type", b"content-transfer-encoding")
_RECEIVED = (b"", b"Received: from a by mx1\n\tid 1; now\n", b"Received: from a by mx2\n\tid 2; then\n")
_PREPENDED = (b"", b"Return-Path: <a@example.org>\nX-Original-To: b\nDelivered-To: b\n", b"Delivered-To: c\n\tc\n")

RECIPIENTS = st.lists(st.sampled_from([f"{name}@example.com" for name in "abcd"]), min_size=1, max_size=3, unique=True)
# A number instead of a choice: the number of candidates depends on when a handler died, and Hypothesis needs to draw
# the same each time.
CHOICES = st.integers(0, 1_000)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One of a few messages, so that messages repeat; perhaps in another mode, with other line ends or prepended
    fields."""
    raw = draw(st.sampled_from(_RECEIVED)) + draw(st.sampled_from(_BODIES))
    raw = draw(st.sampled_from(_PREPENDED)) + raw
    return raw.replace(b"\n", b"\r\n") if draw(st.booleans()) else raw


def content(raw: bytes) -> bytes:
    """`raw` without what Postfix prepends for one recipient."""
    return re.sub(rb"\A(?:(?:Return-Path|X-Original-To|Delivered-To):[^\n]*\n(?:[ \t][^\n]*\n)*)*", b"", raw)


def meaning(raw: bytes) -> str:
    """What two copies of the same message have in common: the deciding fields and the body; or, without exactly one
    Message-ID, all of it. Sufficient for the messages above and for their truncated forms."""
    lines = content(raw).replace(b"\r\n", b"\n").rstrip(b"\n").split(b"\n")
    header = list(takewhile(lambda line: re.match(rb"[!-9;-~]+:|[ \t]", line), lines))
    fields = [(name.lower(), body.strip()) for name, _, body in (line.partition(b":") for line in header)]
    names = [1 if body.strip(b"<>") else 2 for name, body in fields if name == b"message-id"]
    if sum(names) == 1:
        deciding = sorted((name, _compared(name, body)) for name, body in fields if name in _DECIDING)
        return repr((deciding, lines[len(header) :]))
    return repr(lines)


def _compared(name: bytes, body: bytes) -> tuple[bytes, ...]:
    """A Content-Type is its value and its parameters; what has no "=" yet is not a parameter."""
    if name != b"content-type":
        return (body,)
    value, *parameters = (part.strip() for part in body.split(b";"))
    return value, *sorted(parameter for parameter in parameters if b"=" in parameter)


def declared_size(raw: bytes) -> int:
    """${size} of pipe(8): for each of these short lines the queue file has a record two octets longer than the line;
    prepended fields are not counted."""
    return len(content(raw)) + content(raw).count(b"\n")


# A pipe(8) that dies while writing: it holds all that it will write, starts the handler, writes, and is killed.
_DYING_PIPE = """
import os, signal, sys
message = sys.stdin.buffer.read()
reader, writer = os.pipe()
os.set_inheritable(writer, False)
os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, reader, 0)])
os.close(reader)
while message:
    message = message[os.write(writer, message):]
os.kill(os.getpid(), signal.SIGKILL)
"""


class World:
    """What all examples share: the servers, and the row for the results. Messages are delivered by the core in this
    process; killed or truncated ones by the cold entrypoint."""

    def __init__(self, handler: Handler, database: Database, row: Row, inside: core.Core | None = None) -> None:
        self.handler, self.database, self.row = handler, database, row
        self._core = inside

    def deliver(self, raw: bytes, recipients: list[str], short: bool) -> tuple[int, str]:
        """Deliver one message; if `short`, Postfix declared a greater size. Returns its status and line."""
        assert self._core
        how, message, *_ = self._core.deliver(raw, *recipients, smaller=short)
        return how.status, how.line(message)

    def busy(self) -> bool:
        """Whether a server process still works for a handler that died: it continues for a moment."""
        busy = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'pipehandler'"
        )
        return bool(self.database.value(busy))


class ResidentWorld(World):
    """All messages are delivered by the service."""

    def __init__(self, handler: Handler, database: Database, row: Row, service: Service) -> None:
        super().__init__(handler, database, row)
        self._service = service

    def deliver(self, raw: bytes, recipients: list[str], short: bool) -> tuple[int, str]:
        ended = self.handler.deliver(raw, *recipients, size=declared_size(raw) + short)
        return ended.status, ended.output.rstrip("\n")

    def busy(self) -> bool:
        reported = self._service.status()
        return bool(reported["busy"] or reported["waiting"])


def machine(world: World) -> type[RuleBasedStateMachine]:
    """The state machine, in this world."""

    class AnyOrder(RuleBasedStateMachine):
        """Each rule is something that happens on a mail host."""

        def __init__(self) -> None:
            super().__init__()
            self.expected: dict[tuple[str, str], bytes] = {}
            self.sent: list[tuple[bytes, list[str]]] = []
            self.queue: list[tuple[bytes, list[str]]] = []
            self.history: list[str] = []

        @initialize()
        def nothing_is_there(self) -> None:
            clear(world.database)

        @rule(raw=messages(), recipients=RECIPIENTS)
        def deliver(self, raw: bytes, recipients: list[str]) -> None:
            self.sent.append((raw, recipients))
            self._deliver(raw, recipients)

        @precondition(lambda self: self.sent)
        @rule(which=CHOICES)
        def redeliver(self, which: int) -> None:
            self._deliver(*self.sent[which % len(self.sent)])

        @precondition(lambda self: self.sent)
        @rule(which=CHOICES, recipients=RECIPIENTS)
        def deliver_to_others(self, which: int, recipients: list[str]) -> None:
            self._deliver(self.sent[which % len(self.sent)][0], recipients)

        @rule()
        def run_the_queue(self) -> None:
            while self.queue:
                self._deliver(*self.queue.pop(0))

        @rule(raw=messages(), recipients=RECIPIENTS, centiseconds=st.integers(0, 40))
        def kill(self, raw: bytes, recipients: list[str], centiseconds: int) -> None:
            self._step(f"kill after {centiseconds / 100} s", raw, recipients)
            running = world.handler.start(world.handler.command(*recipients, size=declared_size(raw)))
            killer = threading.Timer(centiseconds / 100, running.kill)
            killer.start()
            running.communicate(raw)
            killer.cancel()
            killer.join()
            world.row.statuses[running.returncode] += 1
            self._require(running.returncode in (0, -signal.SIGKILL), f"status {running.returncode}")
            self._wait_until_idle()
            new = [recipient for recipient in recipients if (recipient, meaning(raw)) not in self.expected]
            there = stored(world.database)
            written = [recipient for recipient in new if (recipient, raw) in there]
            self._require(written in ([], new), f"stored for {written} only")
            if written or not new:
                self._stored(raw, recipients)
            else:
                self._require(running.returncode != 0, "status 0, and nothing is stored")
            if running.returncode != 0:
                self.queue.append((raw, recipients))

        @rule(raw=messages(), recipients=RECIPIENTS, missing=st.integers(1, 100_000))
        def cut(self, raw: bytes, recipients: list[str], missing: int) -> None:
            """pipe(8) dies while it writes: no process receives the status, and Postfix still has the message."""
            self._step(f"cut by {missing}", raw, recipients)
            command = world.handler.command(*recipients, size=declared_size(raw))
            running = world.handler.start([sys.executable, "-I", "-S", "-c", _DYING_PIPE, *command])
            output, _ = running.communicate(raw[: max(0, len(raw) - missing)])
            self._require(output == b"4.3.0 message truncated\n", f"a cut message: {output!r}")
            self.queue.append((raw, recipients))

        @rule(raw=messages(), recipients=RECIPIENTS, octets=st.integers(1, 500))
        def shorten(self, raw: bytes, recipients: list[str], octets: int) -> None:
            """A message shorter than declared, and pipe(8) is alive: a Milter shortened it; it is a separate
            message."""
            self._deliver(raw[:octets], recipients, short=True)

        @rule(which=CHOICES)
        def expire(self, which: int) -> None:
            if self.expected:
                recipient, key = sorted(self.expected)[which % len(self.expected)]
                raw = self.expected.pop((recipient, key))
                self._step(f"expire for {recipient}", raw, [])
                expiry.expire(world.database, recipient, raw)

        @invariant()
        def exactly_what_was_delivered_is_there(self) -> None:
            expected = Mailbox((recipient, raw) for (recipient, _), raw in self.expected.items())
            there = stored(world.database)
            lost, more = expected - there, there - expected
            world.row.lost += lost.total()
            world.row.doubled += more.total()
            self._require(not lost, f"lost: {_shortened(lost)}")
            self._require(not more, f"more than was delivered: {_shortened(more)}")
            distinct = len({content(raw) for raw in self.expected.values()})
            messages = world.database.value("SELECT count(*) FROM pipehandler.message")
            self._require(messages == distinct, f"{messages} messages instead of {distinct}")

        def teardown(self) -> None:
            self.run_the_queue()
            self.exactly_what_was_delivered_is_there()

        def _step(self, what: str, raw: bytes, recipients: list[str]) -> None:
            world.row.points += 1
            world.row.sent += len(recipients)
            self.history.append(f"{what}: {hashlib.sha256(raw).hexdigest()[:8]} to {' '.join(recipients)}")

        def _require(self, holds: bool, otherwise: str) -> None:
            """If the invariant does not hold, the finding is recorded at once: the moment of a handler's death is not
            reproducible, so Hypothesis may not see the same again."""
            if not holds:
                world.row.note(f"in any order: {otherwise}, after {'; '.join(self.history)}")
                raise AssertionError(otherwise)

        def _deliver(self, raw: bytes, recipients: list[str], short: bool = False) -> None:
            self._step("short" if short else "deliver", raw, recipients)
            status, line = world.deliver(raw, recipients, short)
            world.row.statuses[status] += 1
            known = all((recipient, meaning(raw)) in self.expected for recipient in recipients)
            pattern = rf"2\.0\.0 stored {'before ' if known else ''}[0-9a-f-]{{36}}"
            self._require(bool(re.fullmatch(pattern, line)), f"status {status}, {line}")
            self._stored(raw, recipients)

        def _stored(self, raw: bytes, recipients: list[str]) -> None:
            for recipient in recipients:
                self.expected.setdefault((recipient, meaning(raw)), raw)

        def _wait_until_idle(self) -> None:
            """Wait until no server process works for a handler that was killed."""
            until = time.monotonic() + 30
            while world.busy():
                self._require(time.monotonic() < until, "a worker still works for a dead handler")
                time.sleep(0.01)

    return AnyOrder


def _shortened(mailbox: Mailbox) -> list[tuple[str, bytes, int]]:
    return [(recipient, raw[:200], count) for (recipient, raw), count in mailbox.items()]
