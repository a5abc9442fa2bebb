"""The entrypoint as pipe(8) starts it, in both modes: whatever happens, it writes one line and exits with a status of
the outcome table."""

import os
import re
import signal
import socket
import sys
import venv
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from harness.database import Database
from harness.handler import Ended, Handler, entrypoint
from harness.service import ResidentHandler

from pipehandler.mail import outcome
from pipehandler.mail.envelope import OPTIONS
from pipehandler.mail.outcome import Outcome
from pipehandler.postfix.templates import PACKAGES

MESSAGE = b"From: a@example.org\nMessage-ID: <1@example.org>\nSubject: one\n\nbody\n"
COLD = pytest.mark.parametrize("either", ["cold"], indirect=True)
"""For conditions that only the entrypoint itself can meet."""

IN_THE_END = pytest.mark.parametrize("either", ["cold", "resident"], indirect=True)
"""For what the process that delivers decides alone, however it got the message."""

BOTH_COLD = pytest.mark.parametrize("either", ["cold", "client cold"], indirect=True)
"""For those that the client meets first."""

EVERY_OCTET = b"Subject: octets\n\n" + bytes(range(256)) * 3


@pytest.fixture
def handler(either: Handler) -> Handler:
    """Run each test with a handler in each of the modes, and with the hand-over client."""
    return either


def assert_ended(ended: Ended, how: Outcome) -> str:
    """Assert the status of `how`, and that its line is all that was written; returns the id in it."""
    assert ended.status == how.status, ended.output
    found = re.fullmatch(re.escape(how.line()) + r"(?: ([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}))?\n", ended.output)
    assert found, ended.output
    assert bool(found[1]) == (how.status == 0)
    return found[1] or ""


def stored(database: Database) -> list[bytes]:
    """The bytes of each delivery, oldest first."""
    return [
        bytes(row.raw)
        for row in database.rows(
            "SELECT coalesce(d.prepended, '') || r.raw AS raw FROM pipehandler.delivery d"
            " JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message ORDER BY d.id"
        )
    ]


# Success.


def test_delivered_then_duplicate(handler: Handler, database: Database) -> None:
    """Status 0 and the id of the message; the same message again is status 0 and the same id, and no second row."""
    name = assert_ended(handler.deliver(MESSAGE, queue_id="4Xyz"), outcome.DELIVERED)
    assert assert_ended(handler.deliver(MESSAGE, queue_id="4Abc"), outcome.DUPLICATE) == name
    assert stored(database) == [MESSAGE]
    first, second = handler.log_lines()
    known = f"recipients=1 size={len(MESSAGE)} mode={'resident' if isinstance(handler, ResidentHandler) else 'cold'} "
    assert first.startswith(f"outcome=delivered status=0 code=2.0.0 queue_id=4Xyz {known}")
    assert second.startswith(f"outcome=duplicate status=0 code=2.0.0 queue_id=4Abc {known}")
    assert f" message={name} " in first
    assert "a@example.org" not in first + second


KEPT = {
    "every octet": EVERY_OCTET,
    "NUL": b"\0",
    "line end": b"\n",
    "8-bit": b"\xff\xfe",
    "no header": b"no header",
    "CRLF": MESSAGE.replace(b"\n", b"\r\n"),
    "prepended": b"Return-Path: <x>\n" + MESSAGE,
}


def test_bytes_are_kept(handler: Handler, database: Database) -> None:
    """The input is stored byte for byte."""
    for name, message in KEPT.items():
        assert_ended(handler.deliver(message, f"{name.replace(' ', '-')}@example.com"), outcome.DELIVERED)
    assert stored(database) == list(KEPT.values())


@IN_THE_END
def test_configuration_of_the_previous_release(handler: Handler, database: Database) -> None:
    """A file with the old names of keys, which the previous release also reads, delivers without a warning."""
    handler.configure(
        database.conninfo,
        limits={"parse_timeout": 9},
        serve={"wait": 9, "messages": 900, "growth": 90_000_000},
        sentry={"every": 900},
    )
    assert_ended(handler.deliver(MESSAGE), outcome.DELIVERED)
    (line,) = handler.log_lines()
    assert line.startswith("outcome=delivered status=0 ")
    assert "parse_timeout" not in line


def test_all_recipients(handler: Handler, database: Database) -> None:
    """Several recipients of one call produce one message and one delivery for each, in their order."""
    assert_ended(handler.deliver(MESSAGE, "b@example.com", "a@EXAMPLE.com"), outcome.DELIVERED)
    assert_ended(handler.deliver(MESSAGE, "a@example.com", "c@example.com"), outcome.DELIVERED)
    assert_ended(handler.deliver(MESSAGE, "c@example.com", "b@example.com"), outcome.DUPLICATE)
    recipients = [
        row.recipient for row in database.rows("SELECT recipient FROM pipehandler.delivery ORDER BY recipient")
    ]
    assert recipients == ["a@example.com", "b@example.com", "c@example.com"]
    assert database.value("SELECT count(*) FROM pipehandler.message") == 1


def test_all_recipients_or_none(handler: Handler, database: Database) -> None:
    """Where one recipient of several cannot be stored, none is, and the message is deferred."""
    database.execute("ALTER TABLE pipehandler.delivery ADD CONSTRAINT refused CHECK (recipient <> 'b@example.com')")
    ended = handler.deliver(MESSAGE, "a@example.com", "b@example.com")
    assert_ended(ended, outcome.STORE_UNAVAILABLE)
    assert stored(database) == []
    (line,) = handler.log_lines()
    assert " recipients=2 " in line
    assert " sqlstate=23514 " in line
    assert " message=" not in line


SENDERS = ["", "-f@example.org", "--", "we ird@example.org", "a'b\"\\@example.org", "ü@example.org"]


def test_sender_is_kept(handler: Handler, database: Database) -> None:
    """The reverse-path is stored unchanged: the null sender (RFC 5321 4.5.5), one with a dash, quoted forms
    unquoted."""
    for number, sender in enumerate(SENDERS):
        assert_ended(handler.deliver(MESSAGE, f"{number}@example.com", sender=sender), outcome.DELIVERED)
    assert [row.sender for row in database.rows("SELECT sender FROM pipehandler.delivery ORDER BY id")] == SENDERS


def test_octets_of_argv_are_kept_apart(handler: Handler, database: Database) -> None:
    """Recipients that differ in octets that are not UTF-8 are different recipients."""
    recipients = [os.fsdecode(octet + b"@example.com") for octet in (b"\xe4", b"\xf6")]
    assert_ended(handler.deliver(MESSAGE, *recipients, sender=os.fsdecode(b"\xff")), outcome.DELIVERED)
    rows = database.rows("SELECT recipient, sender FROM pipehandler.delivery ORDER BY recipient")
    assert [tuple(row) for row in rows] == [("\\xe4@example.com", "\\xff"), ("\\xf6@example.com", "\\xff")]


def test_no_octet_of_argv_ends_a_delivery(handler: Handler, database: Database) -> None:
    """Octets that are not UTF-8 and control characters are stored or left out, whatever option contains them; bad
    numbers are refused."""
    value = os.fsdecode(b"a\xff\x1b\n\xc2\x85@example.com")
    for number, name in enumerate(set(OPTIONS) - {"config", "socket", "size", "client-port"}):
        message = MESSAGE + b"%d" % number
        assert_ended(handler.deliver(message, **{name.replace("-", "_"): value}), outcome.DELIVERED)
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == number + 1
    assert all(line.isprintable() for line in handler.log_lines())


# Wrong arguments and wrong configuration.


WRONG: list[list[str]] = [
    [],
    ["--"],
    ["--sender=a"],
    ["--sender=a", "--"],
    ["--sender=a", "--", ""],
    ["--", "b@example.com"],
    ["--help"],
    ["-h"],
    ["--sender=a", "--unknown=x", "--", "b@example.com"],
    ["--sender=a", "--size=x", "--", "b@example.com"],
    [os.fsdecode(b"\xff")],
    ["x" * 100_000],
]


def test_wrong_arguments(handler: Handler, subtests: pytest.Subtests) -> None:
    """A call that master.cf should not have written defers: it is the operator's mistake, not the sender's."""
    for arguments in WRONG:
        with subtests.test(ascii(arguments)[:30]):
            assert_ended(handler.run([*handler.entrypoint(), *arguments], MESSAGE), outcome.MISCONFIGURED)


@IN_THE_END
@pytest.mark.parametrize(
    ("text", "reported"),
    [
        ("limits.deadline = 0", "limits.deadline = 0; allowed: "),
        ("no = TOML =", "not a TOML file"),
        ("database.conninfo = 'host'", None),
        (None, "Permission denied"),
    ],
)
def test_wrong_configuration(handler: Handler, text: str | None, reported: str | None) -> None:
    """A configuration that is invalid or unreadable defers."""
    handler.config.write_text(text or "")
    handler.config.chmod(0o644 if text else 0)
    assert_ended(handler.deliver(MESSAGE), outcome.MISCONFIGURED)


@IN_THE_END
@pytest.mark.parametrize("path", ["none/at/all.toml", "", "."])
def test_missing_configuration(handler: Handler, path: str) -> None:
    """A missing configuration defers."""
    assert_ended(handler.deliver(MESSAGE, config=handler.folder / path), outcome.MISCONFIGURED)


# The broken installation.


@pytest.mark.unmeasured
@COLD
def test_package_is_missing(handler: Handler) -> None:
    """Without the package (a half-removed virtual environment) the message is deferred."""
    python = str(Path(sys.base_prefix, "bin", "python3"))
    command = [str(handler.folder) if word == PACKAGES else word for word in handler.command()]
    assert_ended(handler.run([python, *command[1:]], MESSAGE), outcome.FAULT)
    alone = handler.folder / "__main__.py"
    alone.write_bytes(Path(PACKAGES, "pipehandler", "__main__.py").read_bytes())
    given = handler.command()[len(entrypoint()) :]
    assert_ended(handler.run([python, "-I", "-S", str(alone), "deliver", *given], MESSAGE), outcome.FAULT)


def broken_environment(handler: Handler, module: str, source: str) -> str:
    """The interpreter of a virtual environment that has another `module`."""
    venv.EnvBuilder(symlinks=True).create(handler.folder / "venv")
    (packages,) = (handler.folder / "venv").glob("lib/*/site-packages")
    (handler.folder / f"{module}.py").write_text(source)
    (packages / "broken.pth").write_text(f"{handler.folder}\n{PACKAGES}\n")
    return str(handler.folder / "venv/bin/python")


@COLD
@pytest.mark.parametrize(
    ("module", "source", "how"),
    [
        ("psycopg", "this is no Python", outcome.FAULT),
        ("psycopg", "raise SystemExit(0)", outcome.FAULT),
        (
            "psycopg",
            "import os; os.write(1, b'noise'); os.write(2, b'noise'); raise KeyboardInterrupt",
            outcome.FAULT,
        ),
        ("psycopg", "raise MemoryError", outcome.EXHAUSTED),
        ("psycopg", "import os; os.kill(os.getpid(), 11)", None),
    ],
    ids=["syntax", "exit 0", "interrupt", "memory", "crash"],
)
def test_broken_library(handler: Handler, module: str, source: str, how: Outcome | None) -> None:
    """A library that cannot be imported defers, whatever it raises or prints; a crash is death by signal, which defers."""
    ended = handler.run([broken_environment(handler, module, source), *handler.command()[1:]], MESSAGE)
    if how is None:
        assert ended == (-signal.SIGSEGV, "")
    else:
        assert_ended(ended, how)


@COLD
@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("lxml", b"Content-Type: text/html\n\n<p>no text\n"),
        ("chardet", "\n\nБез метки\n".encode("koi8-r")),
        ("mailparser", b"From: A. B. <a@example.org>\n\ntext\n"),
    ],
)
def test_broken_library_of_few_messages(handler: Handler, database: Database, module: str, message: bytes) -> None:
    """So does a library that only some messages need: such a message is not stored unparsed."""
    python = broken_environment(handler, module, "this is no Python")
    assert_ended(handler.run([python, *handler.command()[1:]], MESSAGE), outcome.DELIVERED)
    assert_ended(handler.run([python, *handler.command()[1:]], message), outcome.FAULT)
    assert stored(database) == [MESSAGE]


# The store is unavailable.


@pytest.fixture
def deaf(handler: Handler) -> Iterator[socket.socket]:
    """A database, configured for the handler, that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        handler.configure(f"host=127.0.0.1 port={listener.getsockname()[1]}", database={"connect_timeout": 2})
        yield listener


@IN_THE_END
@pytest.mark.usefixtures("deaf")
def test_deaf_database(handler: Handler) -> None:
    """A server that accepts a connection and stays silent defers within connect_timeout."""
    assert_ended(handler.deliver(MESSAGE), outcome.STORE_UNAVAILABLE)
    assert "timeout expired" in handler.log_lines()[-1]


@IN_THE_END
@pytest.mark.parametrize(
    ("change", "sqlstate"),
    [
        ({"port": 1, "host": "127.0.0.1"}, None),
        ({"host": "/nowhere"}, None),
        ({"host": "nowhere.invalid"}, None),
        ({"dbname": "none"}, None),
        ({"dbname": "postgres"}, "3F000"),
        ({"user": "reader"}, "42501"),
        ({"user": "nobody_at_all"}, None),
    ],
    ids=["refused", "no socket", "no host", "no database", "no schema", "no right", "no role"],
)
def test_store_is_not_there(handler: Handler, change: dict[str, object], sqlstate: str | None) -> None:
    """A database that cannot be reached or used defers, and the log contains the reason; the output line does not."""
    handler.configure(handler.conninfo + "".join(f" {key}={value}" for key, value in change.items()))
    assert_ended(handler.deliver(MESSAGE), outcome.STORE_UNAVAILABLE)
    (line,) = handler.log_lines()
    assert line.startswith("outcome=store_unavailable status=75 code=4.3.0 ")
    assert (f" sqlstate={sqlstate} " in line) == bool(sqlstate)
    assert " reason=" in line


# Size, time and other limits.


def test_largest_message(handler: Handler, database: Database) -> None:
    """A message of exactly message_size is stored; one octet more bounces, as configured."""
    handler.configure(database.conninfo, limits={"message_size": 100_000})
    largest = MESSAGE + b"x" * (100_000 - len(MESSAGE))
    assert_ended(handler.deliver(largest), outcome.DELIVERED)
    assert_ended(handler.deliver(largest + b"x"), outcome.TOO_LARGE)
    assert stored(database) == [largest]


@IN_THE_END
def test_sixty_megabytes(handler: Handler, database: Database) -> None:
    """60 MB are too large by default; where they are allowed they are stored exactly, within the configured memory."""
    line = b"QUJD" * 19 + b"\n"
    message = b"Content-Type: application/zip\nContent-Transfer-Encoding: base64\n\n" + line * (60_000_000 // len(line))
    assert_ended(handler.deliver(message), outcome.TOO_LARGE)
    memory = 700_000_000
    handler.configure(
        database.conninfo,
        database={"statement_timeout": 100},
        limits={"message_size": 70_000_000, "memory": memory, "deadline": 300},
    )
    with handler.start(handler.command()) as running:
        assert running.stdin
        assert running.stdout
        running.stdin.write(message)
        running.stdin.close()
        output = running.stdout.read().decode()
        _, status, usage = os.wait4(running.pid, 0)
        running.returncode = os.waitstatus_to_exitcode(status)
    assert_ended(Ended(running.returncode, output), outcome.DELIVERED)
    assert usage.ru_maxrss * 1024 < memory
    assert stored(database) == [message]
    assert database.value("SELECT size FROM pipehandler.attachment") == message.count(b"QUJD") * 3


@pytest.mark.parametrize("parent", [[], ["/usr/bin/env", "--block-signal=ALRM", "--ignore-signal=ALRM"]])
def test_message_that_never_ends(handler: Handler, parent: list[str]) -> None:
    """A message whose end does not arrive within the deadline is deferred, whatever signals the parent had blocked."""
    handler.configure("", limits={"deadline": 5, "parse_timeout": 1})
    with handler.start([*parent, *handler.command()]) as running:
        assert running.stdin
        assert running.stdout
        running.stdin.write(MESSAGE)
        running.stdin.flush()
        assert_ended(Ended(running.wait(60), running.stdout.read().decode()), outcome.DEADLINE)


@pytest.mark.unmeasured
@BOTH_COLD
@pytest.mark.parametrize(
    "limit", [*(f"--nofile={number}" for number in range(4, 12)), "--as=40000000", "--as=60000000"]
)
def test_starved_handler(handler: Handler, database: Database, limit: str) -> None:
    """Without descriptors or memory the message is deferred with EX_OSERR: the host lacks a resource, the program is
    not at fault."""
    ended = handler.run(["prlimit", limit, *handler.command()], MESSAGE)
    if ended.status == 0:
        assert_ended(ended, outcome.DELIVERED)
        assert stored(database) == [MESSAGE]
    else:
        assert_ended(ended, outcome.EXHAUSTED)
        assert stored(database) == []


def test_log_does_not_decide(handler: Handler, database: Database) -> None:
    """A committed message is delivered, whether or not the log file can be written."""
    handler.log.mkdir()
    assert_ended(handler.deliver(MESSAGE), outcome.DELIVERED)
    handler.log.rmdir()
    assert_ended(handler.run(["prlimit", "--fsize=0", *handler.command()], MESSAGE), outcome.DUPLICATE)
    assert stored(database) == [MESSAGE]


# Truncated messages.


def test_empty_stdin(handler: Handler, database: Database) -> None:
    """Empty input is not a message: pipe(8) never sends that, unless it died."""
    assert_ended(handler.deliver(b""), outcome.TRUNCATED)
    assert stored(database) == []


def test_shorter_than_declared(handler: Handler, database: Database) -> None:
    """While pipe(8) is alive, a message shorter than its declared size is stored and marked."""
    size = len(MESSAGE.replace(b"\n", b"\r\n"))
    assert_ended(handler.deliver(MESSAGE, size=size), outcome.DELIVERED)
    assert_ended(handler.deliver(MESSAGE, "other@example.com", size=size + 1), outcome.DELIVERED)
    assert_ended(handler.deliver(MESSAGE + b"more\n", size=size + 50), outcome.DELIVERED)
    codes = [
        [defect["code"] for defect in row.defects]
        for row in database.rows("SELECT defects FROM pipehandler.message ORDER BY size")
    ]
    assert codes == [[], ["smaller-than-declared"]]


# Starts the handler as the child of a process that writes a part of the message and is killed; exits with the handler's
# status.
ORPHAN = """
import array, ctypes, fcntl, os, sys, termios, time
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: the orphan becomes ours, so that its status can be had
part, command = sys.stdin.buffer.read(), sys.argv[1:]
reading, writing = os.pipe()
agent = os.fork()
if not agent:
    if not os.fork():
        os.dup2(reading, 0)
        os.execv(command[0], command)
    os.close(reading)
    os.write(writing, part)
    unread, until = array.array("i", [1]), time.monotonic() + 60
    while unread[0] and time.monotonic() < until:  # until the handler has read it
        fcntl.ioctl(writing, termios.FIONREAD, unread)
        time.sleep(0.01)
    os.kill(os.getpid(), 9)
os.close(reading)
os.close(writing)
os.waitpid(agent, 0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_killed_agent(handler: Handler, database: Database) -> None:
    """If pipe(8) was killed while writing, the truncated message is not stored: Postfix still has the whole one."""
    size = len(MESSAGE.replace(b"\n", b"\r\n"))
    ended = handler.run([sys.executable, "-c", ORPHAN, *handler.command(size=size)], MESSAGE[:-3])
    assert_ended(ended, outcome.TRUNCATED)
    assert stored(database) == []


def test_fields_of_one_delivery_are_not_the_message(handler: Handler, database: Database) -> None:
    """What Postfix prepends for one recipient is not visible to the others, who share the message: it is only in
    delivery."""
    for name in ("ann", "ben"):
        prepended = f"Return-Path: <a@example.org>\nX-Original-To: {name}\nDelivered-To: {name}@example.com\n".encode()
        assert handler.deliver(prepended + MESSAGE, f"{name}@example.com").status == 0
    ((header,),) = database.rows("SELECT header FROM pipehandler.message")
    assert {"delivered-to", "x-original-to", "return-path"}.isdisjoint(field.lower() for field, _ in header)
    assert database.value("SELECT count(DISTINCT prepended) FROM pipehandler.delivery") == 2


def test_killed_agent_with_prepended_fields(handler: Handler, database: Database) -> None:
    """What pipe(8) prepends (its flags D, O and R) is not counted in ${size}, and does not hide a missing end."""
    size = len(MESSAGE.replace(b"\n", b"\r\n"))
    above = b"Return-Path: <sender@example.org>\nX-Original-To: user@example.com\nDelivered-To: user@example.com\n"
    ended = handler.run([sys.executable, "-c", ORPHAN, *handler.command(size=size)], above + MESSAGE[:-3])
    assert_ended(ended, outcome.TRUNCATED)
    assert stored(database) == []


def test_killed_agent_after_the_last_octet(handler: Handler, database: Database) -> None:
    """If pipe(8) was killed after it had written everything, the message is stored: the redelivery is a duplicate."""
    size = len(MESSAGE.replace(b"\n", b"\r\n"))
    ended = handler.run([sys.executable, "-c", ORPHAN, *handler.command(size=size)], MESSAGE)
    assert_ended(ended, outcome.DELIVERED)
    assert_ended(handler.deliver(MESSAGE, size=size), outcome.DUPLICATE)


# The descriptors.


@BOTH_COLD
@pytest.mark.parametrize("closed", [each for each in product([False, True], repeat=3) if any(each)])
def test_closed_descriptors(handler: Handler, database: Database, closed: tuple[bool, bool, bool]) -> None:
    """With any of the standard descriptors closed, nothing is misdirected: the message is stored whole if it can be
    read, and the line is written only to stdout."""
    close = " ".join(text for text, wanted in zip(("<&-", ">&-", "2>&-"), closed, strict=True) if wanted)
    ended = handler.run(["sh", "-c", f'exec "$@" {close}', "sh", *handler.command()], MESSAGE)
    how = outcome.TRUNCATED if closed[0] else outcome.DELIVERED
    if closed[1]:
        assert ended == (how.status, "")
    else:
        assert_ended(ended, how)
    assert stored(database) == ([] if closed[0] else [MESSAGE])
    assert len(handler.log_lines()) == 1


@pytest.mark.parametrize("kind", ["full", "never read"])
def test_line_that_nobody_takes(handler: Handler, database: Database, kind: str) -> None:
    """A pipe that is full, or without a reader, does not change the status."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    if kind == "full":
        while os.write(writing, b"x" * (1 << 20)) == 1 << 20:
            pass  # at the end only a part of it fits
    else:
        os.close(reading)
    with handler.start(handler.command(), output=writing) as running:
        running.communicate(MESSAGE, timeout=60)
    os.close(writing)
    if kind == "full":
        os.close(reading)
    assert running.returncode == 0
    assert stored(database) == [MESSAGE]


@BOTH_COLD
def test_descriptors_are_its_own(handler: Handler, deaf: socket.socket) -> None:
    """While it waits for the store, stdout and stderr are /dev/null and all other descriptors are close-on-exec: no
    child could keep Postfix's pipe open or write into it."""
    with handler.start(handler.command()) as running:
        assert running.stdin
        running.stdin.write(MESSAGE)
        running.stdin.close()
        process = Path(f"/proc/{running.pid}")
        connection, _ = deaf.accept()
        connection.recv(1)
        targets = {int(each.name): os.readlink(each) for each in (process / "fd").iterdir()}
        flags = {number: (process / "fdinfo" / str(number)).read_text().split() for number in targets}
        running.kill()
    connection.close()
    assert (targets[1], targets[2]) == ("/dev/null", "/dev/null")
    for number, words in flags.items():
        assert words[2] == "flags:"
        assert number <= 2 or int(words[3], 8) & os.O_CLOEXEC
