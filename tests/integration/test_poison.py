"""A message that kills its parser ends as a row with its bytes, at the latest on the second attempt."""

import os
import signal
import time
from pathlib import Path

from harness.database import Database
from harness.handler import Handler
from harness.poison import POISON, lethal, slow
from harness.service import wait_until

from pipehandler.mail.identity import identify

HARMLESS = b"Message-ID: <harmless@example.org>\nSubject: x\n\nhello\n"


def mark(handler: Handler, message: bytes) -> None:
    """The mark of an attempt that died while it parsed `message`."""
    file = handler.state / f"parsing-{identify(message).id}"
    file.write_bytes(b"parsing\n")
    file.chmod(0o666)


def marks(handler: Handler) -> list[str]:
    """The existing marks."""
    return [path.name for path in handler.state.iterdir() if path.name.startswith("parsing-")]


def test_killed_while_parsing(handler: Handler, database: Database) -> None:
    """The first attempt dies by a signal, which defers; the second stores the bytes, with the reason why they were not
    parsed."""
    command = [*lethal(), *handler.command()]
    assert handler.run(command, POISON).status == -signal.SIGKILL
    assert len(marks(handler)) == 1
    assert database.value("SELECT count(*) FROM pipehandler.message") == 0

    ended = handler.run(command, POISON)
    assert ended.status == 0, ended.output
    assert "stored, not parsed" in ended.output
    (row,) = database.rows(
        "SELECT state, error, raw FROM pipehandler.message JOIN pipehandler.raw_message ON message = id"
    )
    assert row.state == "failed"
    assert "died" in row.error
    assert row.raw == POISON
    assert marks(handler) == []


def test_killed_for_another_reason(handler: Handler, database: Database) -> None:
    """A message whose first attempt was killed for another reason is parsed as usual."""
    mark(handler, HARMLESS)
    assert handler.deliver(HARMLESS).status == 0
    assert database.value("SELECT state FROM pipehandler.message") == "parsed"
    assert marks(handler) == []


def test_no_mark_stays(handler: Handler) -> None:
    """A delivery that ends, however it ends, leaves no mark."""
    assert handler.deliver(HARMLESS).status == 0
    handler.configure("host=/nonexistent")
    assert handler.deliver(HARMLESS + b"again").status == 75
    assert marks(handler) == []


def test_the_child_keeps_no_pipe(handler: Handler) -> None:
    """While the child probes, only the handler holds Postfix's pipe: when the handler dies, the pipe is closed."""
    mark(handler, POISON)
    with handler.start([*slow(60), *handler.command()]) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        running.stdin.write(POISON)
        running.stdin.close()
        pipe = f"pipe:[{os.fstat(running.stdout.fileno()).st_ino}]"
        # strace's own helper is a child at the beginning, and ends.
        wait_until(lambda: any(map(_has_no_files, _children(running.pid))), "a child without files")
        assert pipe in _open_files(running.pid)
        (child,) = _children(running.pid)
        running.kill()
        os.kill(int(child), signal.SIGKILL)


def _open_files(pid: int | str) -> list[str]:
    """The files that a process has open."""
    return [os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()]


def _has_no_files(pid: str) -> bool:
    try:
        return not _open_files(pid)
    except FileNotFoundError:
        return False  # it has ended


def _children(pid: int) -> list[str]:
    """The children of a process."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return file.read().split()


def test_no_child_can_be_had(handler: Handler, database: Database) -> None:
    """If the account may not fork, the message is stored unparsed, and the row has the reason."""
    mark(handler, HARMLESS)
    command = ["prlimit", "--nproc=0", *handler.command()]
    assert "stored, not parsed" in handler.run(command, HARMLESS).output
    assert "no child process could be had" in database.value("SELECT error FROM pipehandler.message")


def test_a_host_without_time(handler: Handler, database: Database) -> None:
    """A process that gets no CPU time while it parses (a thrashing host, a virtual machine that is migrated) parses
    again."""
    handler.configure(database.conninfo, limits={"parse_timeout": 5})
    # No part takes long, but there are many: guessing the charset of all of them takes more than a second.
    part = b"--b\nContent-Type: text/plain\n\n" + "봄이 왔습니다\n".encode("euc-kr") * 3200
    message = b"Content-Type: multipart/mixed; boundary=b\n\n" + part * 100 + b"--b--\n"
    with handler.start(handler.command()) as running:
        assert running.stdin is not None
        running.stdin.write(message)
        running.stdin.close()
        while not any((handler.state / name).stat().st_size for name in marks(handler)):
            assert running.poll() is None
        running.send_signal(signal.SIGSTOP)
        time.sleep(5.5)  # longer than parse_timeout
        running.send_signal(signal.SIGCONT)
    assert running.returncode == 0
    assert database.value("SELECT state FROM pipehandler.message") == "parsed"


def test_another_recipient_repairs(handler: Handler, database: Database) -> None:
    """A message that one delivery could not parse on a host without resources is parsed by the delivery to another
    recipient."""
    message = HARMLESS.replace(b"hello", b"--b\nContent-Type: image/gif\n\nGIF\n--b--").replace(
        b"\n\n", b"\nContent-Type: multipart/mixed; boundary=b\n\n", 1
    )
    mark(handler, message)
    command = ["prlimit", "--nproc=0", *handler.command(client_port=99_999)]
    assert "stored, not parsed" in handler.run(command, message).output
    assert handler.deliver(message, "other@example.com").output.startswith("2.0.0 stored ")
    (row,) = database.rows("SELECT state, error, subject, defects FROM pipehandler.message")
    assert (row.state, row.error, row.subject) == ("parsed", None, "x")
    assert row.defects[0] == {"code": "envelope-value", "where": "client-port", "detail": ""}
    assert database.value("SELECT content FROM pipehandler.attachment") == b"GIF"
