"""Regression tests: one for each bug that the fault campaign found."""

import signal
from encodings import koi8_r
from pathlib import Path

from harness.database import Database
from harness.handler import Handler
from harness.postgresql import FAST, PostgreSQL
from harness.service import Service, wait_until

from fault.injection import Call, Maker, attached, fail, letter, trace
from fault.pool import ready


def test_a_mark_that_cannot_be_closed_does_not_cost_the_parsing(handler: Handler, database: Database) -> None:
    """close(2) of the poison mark gives EIO: the message, already parsed, is stored as parsed.

    It was stored as `failed`, without its text: the error came out of the context manager around the parsing.
    """
    assert handler.deliver(letter("first").raw).status == 0  # and the journal exists
    _, calls = trace(handler, letter("before").command(handler), letter("before").raw)
    (closing,) = (each for each in calls if each.name == "close" and Path(each.file).name.startswith("parsing-"))
    sent = letter("mark")
    ended, said = fail(handler, sent.command(handler), sent.raw, closing, "error=EIO")
    assert "(INJECTED)" in said
    assert ended.status == 0
    assert [row.state for row in database.rows("SELECT state FROM pipehandler.message")] == ["parsed"] * 3


def test_a_duplicate_waits_for_the_standby_too(folder: Path) -> None:
    """A row that exists only on the primary is not confirmed as a duplicate: the mail would be lost with the primary.

    The standby is away, so a delivery is deferred with its row committed on the primary; after a crash the primary
    shows that row. The redeliveries were answered with 0: a transaction that writes nothing to the WAL does not wait.
    """
    hasty: dict[str, dict[str, object]] = {
        "database": {"connect_timeout": 2, "statement_timeout": 1},
        "limits": {"deadline": 5, "parse_timeout": 4},
    }
    primary = PostgreSQL(folder / "primary", 16, FAST).start()
    with primary, primary.standby(folder / "standby") as standby, Database.fresh(primary) as database:
        (folder / "handler").mkdir()
        handler = Handler(folder / "handler", database.conninfo, **hasty)
        primary.synchronous()
        sent = letter("standby")
        standby.stop(signal.SIGKILL)
        assert handler.run(sent.command(handler), sent.raw).status == 75
        primary.stop(signal.SIGKILL)
        primary.start()
        assert database.value("SELECT count(*) FROM pipehandler.delivery") == 1
        (handler.state / "outage").unlink(missing_ok=True)
        assert handler.run(sent.command(handler), sent.raw).status == 75
        standby.start()
        (handler.state / "outage").unlink(missing_ok=True)
        assert handler.run(sent.command(handler), sent.raw).status == 0
        primary.stop(signal.SIGKILL)
        standby.promote()
        database.move(standby)
        assert database.value("SELECT count(*) FROM pipehandler.delivery") == 1


def test_a_codec_that_cannot_be_loaded_defers(handler: Handler, database: Database) -> None:
    """The file of a charset's codec is unreadable for a moment: the message is deferred, and parsed when it is
    redelivered.

    It was stored as `failed`, though nothing was wrong with it.
    """
    sent = b"Message-ID: <codec@example.org>\nContent-Type: text/plain; charset=koi8-r\n\n" + "привет\n".encode(
        "koi8-r"
    )
    command = [
        "strace",
        "-qq",
        "-o",
        "/dev/null",
        "-P",
        koi8_r.__file__,
        "-e",
        "inject=openat,stat,newfstatat:error=EIO",
    ]
    ended = handler.run([*command, *handler.command()], sent)
    assert (ended.status, ended.output) == (75, "4.3.0 internal fault\n")
    assert handler.deliver(sent).status == 0
    assert database.value("SELECT text_body FROM pipehandler.message") == "привет\n"


def test_a_worker_that_cannot_be_given_a_message_is_replaced(handler: Handler, database: Database) -> None:
    """sendmsg(2) to a worker gives ENOMEM: the message goes to another worker, and there are as many as before.

    The worker was considered dead, and never given a message again. When that had happened to all workers, every
    message was deferred until the service was restarted.
    """
    handler.configure(database.conninfo, serve={"workers": 1, "queue_timeout": 5})
    sent = letter("given")
    with Service(handler) as service:
        wait_until(lambda: ready(service), "the worker")
        giving = Call("sendmsg", 1, "", maker=Maker.SUPERVISOR)
        with attached(service.pid, handler.folder / "attached", giving, "error=ENOMEM:when=1"):
            assert handler.run(sent.command(handler), sent.raw).status == 0
        assert "(INJECTED)" in (handler.folder / "attached").read_text()
        wait_until(lambda: ready(service), "the new worker")
    assert not [line for line in handler.log_lines() if " mode=cold " in line]
