"""The service notices a new configuration and a new program by itself, and is replaced while messages are delivered."""

import os
import re
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.lmtp import dialogue, receiving
from harness.service import Service, configure, ended, held, stuck, wait_until
from harness.upgradable import Upgradable

MESSAGES = 150


def message(number: int) -> bytes:
    """A distinct message."""
    return b"From: a@example.org\nMessage-ID: <%d@example.org>\nSubject: one\n\nbody\n" % number


def reinstall(package: Path) -> None:
    """Replace every file of a package by a new one, while it is in use; none is ever missing."""
    for file in [*package.rglob("*.py")]:
        new = file.with_name(f".{file.name}")
        shutil.copyfile(file, new)
        os.replace(new, file)
    (package.parent / ".touched").touch()


@pytest.fixture
def upgradable(folder: Path) -> Upgradable:
    """The environment."""
    return Upgradable(folder)


def begin(command: list[str], handler: Handler, raw: bytes) -> subprocess.Popen[bytes]:
    """A delivery that has its message."""
    running = handler.start(command)
    assert running.stdin
    running.stdin.write(raw)
    running.stdin.close()
    running.stdin = None
    return running


def test_nothing_is_lost_or_cold(upgradable: Upgradable, handler: Handler, database: Database) -> None:
    """150 messages while the configuration is edited, the environment replaced, and the package installed over itself:
    all are stored by workers, and the service is the same process."""
    configure(handler, deadline=60, workers=2, queue_timeout=30)
    with Service(handler, program=upgradable.program) as service:
        codes = {service.status()["code"]}
        configurations = {service.status()["configuration"]}
        pid, count, turn = service.pid, iter(range(MESSAGES)), threading.Lock()

        def deliver(_: int) -> int:
            with turn:
                number = next(count)
                if number == 20:
                    configure(handler, deadline=61, workers=2, queue_timeout=30)
                elif number == 60:
                    upgradable.new("environment-2")
                    upgradable.exchange("environment-2")
                elif number == 100:
                    reinstall(
                        upgradable.folder / "environment-2/lib" / upgradable.version / "site-packages/pipehandler"
                    )
            status = handler.run(upgradable.command(handler, queue_id=f"q{number}"), message(number)).status
            if number % 10 == 9:
                shown = service.status()
                codes.add(shown["code"])
                configurations.add(shown["configuration"])
            return status

        with ThreadPoolExecutor(3) as threads:
            assert set(threads.map(deliver, range(MESSAGES))) == {0}
        wait_until(lambda: service.answers() and len(codes | {service.status()["code"]}) == 3, "the second replacement")
        wait_until(service.ready, "its workers")
        assert len(configurations | {service.status()["configuration"]}) == 2
        assert service.pid == pid
        wait_until(lambda: service.status()["delivered"] == MESSAGES, "a worker that finishes for the new program")
        shown = service.status()
        assert (shown["sent_back"], shown["congested"], shown["died"]) == (0, 0, 0)
        events = [line for line in service.events() if "event=replaced" in line]
        assert len(events) == 2
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == MESSAGES
    modes = re.findall(r" mode=(\w+)", "\n".join(handler.log_lines()))
    assert modes == ["resident"] * MESSAGES


def test_a_message_that_is_under_way(upgradable: Upgradable, handler: Handler, database: Database) -> None:
    """A worker finishes its message for the new program; one that waits for a worker keeps waiting, and gets its
    turn."""
    configure(handler, deadline=120, queue_timeout=60)
    with Service(handler, program=upgradable.program) as service:
        code = service.status()["code"]
        with held(database):
            first = begin(upgradable.command(handler), handler, message(1))
            stuck(database)
            second = begin(upgradable.command(handler), handler, message(2))
            wait_until(lambda: service.status()["waiting"], "the second message")
            upgradable.new("environment-2")
            upgradable.exchange("environment-2")
            wait_until(lambda: service.answers() and service.status()["code"] != code, "the new program")
            assert first.poll() is None
            # The new worker takes the second message, and waits as well.
            wait_until(lambda: not service.status()["waiting"], "the turn of the second message")
        assert ended(first).status == ended(second).status == 0
        wait_until(lambda: service.status()["delivered"] == 2)
        assert service.status()["died"] == 0
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 2


def test_lmtp(upgradable: Upgradable, handler: Handler, database: Database) -> None:
    """LMTP goes on across a replacement: a message that is in delivery, and one that has begun to come in, have their
    replies, and no connection is refused."""
    with receiving(handler, deadline=120, program=upgradable.program) as lmtp:
        service = lmtp.service
        code, receiver = service.status()["code"], lmtp.receiver()
        half, whole = lmtp.client(), lmtp.client()
        octets = dialogue(message(1), "half@example.com")
        half.send(octets[:-20])
        with held(database):
            whole.send(dialogue(message(2), "a@example.com", "b@example.com"))
            stuck(database)
            upgradable.new("environment-2")
            upgradable.exchange("environment-2")
            wait_until(lambda: service.answers() and service.status()["code"] != code, "the new program")
        assert [reply[:9] for reply in whole.replies()[-3:]] == ["250 2.0.0", "250 2.0.0", "221 2.0.0"]
        half.send(octets[-20:])
        assert [reply[:9] for reply in half.replies()[-2:]] == ["250 2.0.0", "221 2.0.0"]
        assert lmtp.deliver(message(3))[0].startswith("250 2.0.0 stored ")
        assert lmtp.receiver() != receiver
        for each in (half, whole):
            each.close()
        assert service.status()["died"] == 0
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 4
    assert not [line for line in service.events() if "lost" in line]


def test_a_program_that_cannot_start(upgradable: Upgradable, handler: Handler, database: Database) -> None:
    """A program that fails its trial does not replace the service, and the log has the reason; a good one does
    later."""
    configure(handler)
    with Service(handler, program=upgradable.program) as service:
        code = service.status()["code"]
        package = upgradable.new("environment-2")
        (package / "parse" / "message.py").write_text("raise RuntimeError('half installed')\n")
        upgradable.exchange("environment-2")
        wait_until(
            lambda: service.status() and any('event="not replaced"' in line for line in service.events()), "the trial"
        )
        assert "half installed" in "\n".join(service.events())
        assert service.status()["code"] == code
        assert handler.deliver(message(1)).status == 0
        upgradable.new("environment-3")
        upgradable.exchange("environment-3")
        wait_until(lambda: service.answers() and service.status()["code"] != code, "the new program")
        assert handler.run(upgradable.command(handler), message(2)).status == 0
        wait_until(lambda: service.status()["delivered"] >= 1)


def allow_processes(service: Service, count: str) -> None:
    """Set how many processes the service's account may have when it starts another one (RLIMIT_NPROC)."""
    subprocess.run(account.command(["prlimit", f"--nproc={count}:", "--pid", str(service.pid)]), check=True)


def test_no_process_for_the_trial(upgradable: Upgradable, handler: Handler, database: Database) -> None:
    """A service that may not start a process stays as it is, and goes on; later a new program replaces it."""
    configure(handler)
    with Service(handler, program=upgradable.program) as service:
        wait_until(service.ready)
        code = service.status()["code"]
        allow_processes(service, "0")
        upgradable.new("environment-2")
        upgradable.exchange("environment-2")
        refused = "Resource temporarily unavailable"
        wait_until(
            lambda: service.answers() and any('event="not replaced"' in line for line in service.events()), "the trial"
        )
        assert refused in "\n".join(service.events())
        assert service.status()["code"] == code
        assert handler.deliver(message(1)).status == 0
        allow_processes(service, "1000")
        package = upgradable.new("environment-3")
        (package / "__init__.py").write_text((package / "__init__.py").read_text() + "# newer\n")
        upgradable.exchange("environment-3")
        wait_until(lambda: service.answers() and service.status()["code"] != code, "the new program")


def test_a_configuration_that_is_half_written(handler: Handler, database: Database) -> None:
    """An invalid configuration changes nothing, and is reported once; a valid one after it is used without a signal."""
    configure(handler)
    with Service(handler) as service:
        before = service.status()["configuration"]
        good = handler.config.read_text()
        handler.config.write_text(f"{good}\n[limits]\n")
        os.utime(handler.config, (1, 1))
        wait_until(lambda: service.status() and 'event="not reloaded"' in "\n".join(service.events()), "the refusal")
        assert service.status()["configuration"] == before
        handler.config.write_text(good.replace("queue_timeout = 2", "queue_timeout = 3"))
        wait_until(lambda: service.status()["configuration"] != before, "the new configuration")
        assert handler.deliver(message(1)).status == 0
        assert sum("not reloaded" in line for line in service.events()) == 1


def test_an_end_while_it_is_replaced(upgradable: Upgradable, handler: Handler) -> None:
    """SIGTERM at any moment of a replacement ends the service, with status 0."""
    configure(handler)
    for number in range(2, 5):
        with Service(handler, program=upgradable.program) as service:
            upgradable.new(f"environment-{number}")
            upgradable.exchange(f"environment-{number}")
            service.status()
            threading.Event().wait((number - 2) * 0.7)
            assert service.stop() == 0
        assert not handler.socket.exists()


def test_an_end_just_before_it_is_replaced(upgradable: Upgradable, handler: Handler, folder: Path) -> None:
    """SIGTERM that arrives while the service prepares to become the new program ends the service."""
    configure(handler)
    trace = folder / "trace"
    with Service(handler, program=upgradable.program) as service:
        wait_until(service.ready)
        slow = ["-e", "trace=socketpair", "-e", "inject=socketpair:delay_enter=1000000"]  # the channel to the holder
        tracer = subprocess.Popen(["strace", "-q", *slow, "-o", str(trace), "-p", str(service.pid)])
        upgradable.new("environment-2")
        upgradable.exchange("environment-2")
        service.status()  # it looks for a new program when a connection arrives
        wait_until(lambda: trace.exists() and "socketpair(" in trace.read_text(), "the replacement")
        service.signal(signal.SIGTERM)
        with tracer:
            assert service.wait() == 0
    assert not handler.socket.exists()
