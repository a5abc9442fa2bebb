"""The resident workers: faster than a cold delivery when they run, and never worse when they do not."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from shutil import copytree

import pytest
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.service import Service, begin, bounded, configure, ended, held, stuck, wait_until

from pipehandler.monitor.service_status import ask
from pipehandler.postfix.client import OPTION
from pipehandler.postfix.templates import PACKAGES
from pipehandler.workers.listener import ServeError

EITHER_ENTRYPOINT = pytest.mark.parametrize("handler", ["python", "client"], indirect=True)
"""For what depends on the entrypoint: the one in Python, and the client in C."""

MESSAGE = b"From: a@example.org\nMessage-ID: <1@example.org>\nSubject: one\n\nbody\n"


def message(number: int) -> bytes:
    """A distinct message."""
    return MESSAGE.replace(b"<1@", b"<%d@" % number)


@pytest.fixture
def service(handler: Handler) -> Iterator[Service]:
    """The service of `handler`, with one worker."""
    configure(handler)
    with Service(handler) as running:
        yield running


def ways(handler: Handler) -> list[str]:
    """The mode of each delivery, oldest first; a worker writes it after its entrypoint has exited."""
    with suppress(ServeError):
        wait_until(lambda: not ask(str(handler.socket))["busy"], "the end of the work")
    return [line.partition(" mode=")[2].partition(" ")[0] for line in handler.log_lines() if " mode=" in line]


def stored(database: Database) -> int:
    """The number of deliveries."""
    return int(database.value("SELECT count(*) FROM pipehandler.delivery"))


# Purpose.


@EITHER_ENTRYPOINT
def test_a_worker_delivers(service: Service, handler: Handler, database: Database) -> None:
    """The worker's answer is the entrypoint's: status, line, and a log line that includes the mode. All that a message
    may need is loaded before it comes, in memory that the workers share."""
    for pid in (service.pid, *service.workers()):
        assert "/lxml/etree." in Path(f"/proc/{pid}/maps").read_text()
    done = handler.deliver(MESSAGE, queue_id="4Xyz")
    assert done.status == 0
    assert done.output.startswith("2.0.0 stored ")
    assert handler.deliver(MESSAGE).output.startswith("2.0.0 stored before ")
    wait_until(lambda: service.status()["delivered"] == 2)
    assert ways(handler) == ["resident", "resident"]
    assert " queue_id=4Xyz " in handler.log_lines()[-2]
    assert stored(database) == 1


def test_a_worker_keeps_its_connection(service: Service, handler: Handler, database: Database) -> None:
    """All messages of a worker are stored in one session, which it opens before the first."""
    sessions = "SELECT array_agg(pid) FROM pg_stat_activity WHERE usename = 'pipehandler'"
    before = database.value(sessions)
    assert len(before) == 1
    for number in range(5):
        assert handler.deliver(message(number)).status == 0
    assert database.value(sessions) == before


# Never worse than cold.


@contextmanager
def no_service(handler: Handler) -> Iterator[None]:
    """No socket at all."""
    yield


@contextmanager
def stale(handler: Handler) -> Iterator[None]:
    """A socket that a dead service left behind."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(str(handler.socket))
    account.give(handler.socket)
    yield


@contextmanager
def another_file(handler: Handler) -> Iterator[None]:
    """A file that is not a socket."""
    handler.socket.write_text("")
    yield


@contextmanager
def listening(handler: Handler, backlog: int, kind: int = socket.SOCK_SEQPACKET) -> Iterator[socket.socket]:
    """A server that listens but never accepts."""
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.bind(str(handler.socket))
        listener.listen(backlog)
        handler.socket.chmod(0o666)
        yield listener


def a_stream(handler: Handler) -> AbstractContextManager[object]:
    """A socket of another type."""
    return listening(handler, 10, socket.SOCK_STREAM)


def deaf(handler: Handler) -> AbstractContextManager[object]:
    """A server that never answers."""
    return listening(handler, 10)


@contextmanager
def full(handler: Handler) -> Iterator[None]:
    """A server whose backlog is full."""
    with listening(handler, 0), ExitStack() as clients:
        while True:
            client = clients.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            client.setblocking(False)
            try:
                client.connect(str(handler.socket))
            except BlockingIOError:
                yield
                return


@EITHER_ENTRYPOINT
@pytest.mark.parametrize(
    "make", [no_service, stale, another_file, a_stream, deaf, full], ids=lambda each: each.__name__
)
def test_cold_where_nobody_takes_it(
    handler: Handler, database: Database, make: Callable[[Handler], AbstractContextManager[object]]
) -> None:
    """Without a service, or one that answers, the entrypoint delivers by itself."""
    with make(handler):
        assert handler.deliver(MESSAGE).status == 0
    assert ways(handler) == ["cold"]
    assert stored(database) == 1


@EITHER_ENTRYPOINT
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"cold",
        b"go",
        b"go soon",
        b"wait",
        b"wait x",
        b"\xff",
        b"end",
        b"end x y",
        b"end 0 2.0.0 stored",
        b"end 256 2.0.0 stored",
        b"hello",
    ],
)
def test_cold_after_a_strange_answer(handler: Handler, database: Database, answer: bytes) -> None:
    """Before the descriptor is passed, no answer of a server can keep the entrypoint from delivering."""
    with listening(handler, 1) as listener, handler.start(handler.command()) as running:
        client, _ = listener.accept()
        if answer:
            client.send(answer)
        client.close()
        output, _ = running.communicate(MESSAGE, timeout=60)
    assert (running.returncode, output[:13]) == (0, b"2.0.0 stored ")
    assert ways(handler) == ["cold"]
    assert stored(database) == 1


@EITHER_ENTRYPOINT
@pytest.mark.parametrize(
    "answer", [b"", b"cold", b"end", b"end x y", b"end 256 2.0.0 stored", b"end -256 2.0.0 stored", b"\xff"]
)
def test_never_twice(handler: Handler, database: Database, answer: bytes) -> None:
    """Once the descriptor is passed, the entrypoint no longer delivers, whatever it receives: an error is temporary."""
    with listening(handler, 1) as listener, handler.start(handler.command()) as running:
        client, _ = listener.accept()
        assert client.recv(100_000).startswith(b"deliver\0")
        client.send(b"go 5")
        _, files, _, _ = socket.recv_fds(client, 100, 10)
        assert len(files) == 1
        if answer:
            client.send(answer)
        client.close()
        output, _ = running.communicate(MESSAGE, timeout=60)
        os.close(files[0])
    assert (running.returncode, output) == (75, b"4.3.0 internal fault\n")
    assert stored(database) == 0


@EITHER_ENTRYPOINT
def test_a_server_of_somebody_else(handler: Handler) -> None:
    """Mail is given only to sockets of root (created by systemd) and of our own account."""
    if not account.IS_ROOT:
        pytest.skip("another account is needed, and only root can be one")
    script = f"""
import os, socket
listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
listener.bind({str(handler.socket)!r})
os.setuid(1)
listener.listen(1)
os.chmod({str(handler.socket)!r}, 0o666) if os.geteuid() == 0 else None
print("ready", flush=True)
client, _ = listener.accept()
print(len(client.recv(100_000)), flush=True)
"""
    mask = os.umask(0)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as other:
        os.umask(mask)
        assert other.stdout
        with bounded(other):
            assert other.stdout.readline() == "ready\n"
            assert handler.deliver(MESSAGE).status == 0
            assert other.stdout.readline() == "0\n"
    assert ways(handler) == ["cold"]


@EITHER_ENTRYPOINT
def test_another_installation(service: Service, handler: Handler) -> None:
    """After an upgrade the old workers get no new messages: the entrypoint of another installation delivers cold."""
    upgraded = handler.folder / "upgraded"
    copytree(Path(PACKAGES, "pipehandler"), upgraded / "pipehandler")
    own = {PACKAGES: str(upgraded), f"{OPTION}{PACKAGES}": f"{OPTION}{upgraded}"}
    assert handler.run([own.get(word, word) for word in handler.command()], MESSAGE).status == 0
    assert handler.deliver(message(2)).status == 0
    assert ways(handler) == ["cold", "resident"]
    assert service.status()["sent_back"] == 1


@EITHER_ENTRYPOINT
def test_another_configuration(service: Service, handler: Handler) -> None:
    """A worker delivers only with the configuration that the entrypoint was given."""
    other = handler.folder / "other.toml"
    other.write_text(handler.config.read_text())
    assert handler.deliver(MESSAGE, config=other).status == 0
    assert ways(handler) == ["cold"]
    assert service.status()["sent_back"] == 1


@EITHER_ENTRYPOINT
def test_argv_that_is_too_long(service: Service, handler: Handler, database: Database) -> None:
    """A request that does not fit into a packet is delivered cold."""
    recipients = [f"{'x' * 50}{number}@example.com" for number in range(3_000)]
    assert handler.deliver(MESSAGE, *recipients).status == 0
    assert ways(handler) == ["cold"]
    assert stored(database) == 3_000


# Isolation.


@EITHER_ENTRYPOINT
def test_a_worker_dies(service: Service, handler: Handler, database: Database) -> None:
    """Its death costs one attempt, which is deferred and reported, and another worker takes its place."""
    with held(database):
        running = begin(handler, service, MESSAGE)
        stuck(database)
        os.kill(service.workers()[0], signal.SIGKILL)
        assert ended(running) == (75, "4.3.0 internal fault\n")
    wait_until(lambda: service.status()["workers"] == 1)
    assert handler.deliver(MESSAGE).status == 0
    assert service.status()["died"] == 1
    assert ways(handler) == ["resident", "resident"]
    assert [line for line in handler.log_lines() if line.startswith("outcome=fault ") and "killed by signal 9" in line]
    assert stored(database) == 1


def test_an_idle_worker_dies(service: Service, handler: Handler) -> None:
    """Only the log shows it."""
    os.kill(service.workers()[0], signal.SIGSEGV)
    wait_until(lambda: service.status()["died"] == 1)
    assert handler.deliver(MESSAGE).status == 0
    assert ways(handler) == ["resident"]  # it waited for the next worker
    assert [line for line in service.events() if 'event="worker lost"' in line and "signal 11" in line]


def test_the_supervisor_is_out_of_descriptors(service: Service, handler: Handler) -> None:
    """It continues with the workers it has: messages are delivered cold, and workers are restarted once there is room
    again."""

    def limit(number: int) -> None:
        command = ["prlimit", f"--pid={service.pid}", f"--nofile={number}:"]
        subprocess.run(account.command(command), check=True)

    limit(3)  # what is open stays open
    os.kill(service.workers()[0], signal.SIGKILL)
    assert handler.deliver(MESSAGE).status == 0
    limit(len(os.listdir(f"/proc/{service.pid}/fd")) + 1)  # enough for the log, too few for a worker
    wait_until(lambda: any('event="no worker"' in line for line in service.events()), "the try to replace it")
    limit(1024)
    wait_until(service.ready)
    assert handler.deliver(message(2)).status == 0
    assert ways(handler) == ["cold", "resident"]


@EITHER_ENTRYPOINT
def test_the_supervisor_dies(service: Service, handler: Handler, database: Database) -> None:
    """A worker finishes its message, and then exits; others are delivered cold; and the service can start again despite
    the leftover socket."""
    with held(database):
        running = begin(handler, service, MESSAGE)
        stuck(database)
        (worker,) = service.workers()
        service.signal(signal.SIGKILL)
        service.wait()
    assert ended(running).status == 0
    wait_until(lambda: not Path(f"/proc/{worker}/exe").exists(), "the end of the worker")
    assert handler.deliver(message(2)).status == 0
    service.start()
    assert handler.deliver(message(3)).status == 0
    assert ways(handler) == ["resident", "cold", "resident"]
    assert stored(database) == 3


@EITHER_ENTRYPOINT
def test_a_worker_stands_still(handler: Handler, database: Database) -> None:
    """An entrypoint waits little longer than the deadline; the message is deferred, and in the end stored once."""
    configure(handler, deadline=5)
    with Service(handler) as service:
        (worker,) = service.workers()
        with held(database):
            running = begin(handler, service, MESSAGE)
            stuck(database)
            os.kill(worker, signal.SIGSTOP)
            assert ended(running) == (75, "4.3.0 internal fault\n")
        os.kill(worker, signal.SIGCONT)
        wait_until(lambda: not service.status()["busy"])
        assert handler.deliver(MESSAGE).status == 0
    assert stored(database) == 1


@EITHER_ENTRYPOINT
def test_a_worker_dies_at_the_moment_of_a_hand_over(service: Service, handler: Handler, database: Database) -> None:
    """A message assigned to a worker that has just died is given to the next one, or delivered cold."""
    service.signal(signal.SIGSTOP)
    with handler.start(handler.command()) as running:
        os.kill(service.workers()[0], signal.SIGKILL)
        service.signal(signal.SIGCONT)
        output, _ = running.communicate(MESSAGE, timeout=60)
    assert (running.returncode, output[:13]) == (0, b"2.0.0 stored ")
    wait_until(service.ready)
    assert service.status()["died"] == 1
    assert stored(database) == 1


def test_the_end_does_not_wait_forever(handler: Handler) -> None:
    """A worker that hangs when the service ends is killed after the deadline, and that is logged."""
    configure(handler, deadline=5)
    with Service(handler) as service:
        (worker,) = service.workers()
        os.kill(worker, signal.SIGSTOP)
        assert service.stop() == 0
    assert not Path(f"/proc/{worker}").exists()
    assert [line for line in service.events() if 'event="worker lost"' in line and "signal 9" in line]


def test_replaced_after_so_many_messages(handler: Handler) -> None:
    """A worker exits after serve.max_messages messages, and nothing is lost in between."""
    configure(handler, max_messages=2)
    with Service(handler) as service:
        first = service.workers()
        for number in range(5):
            assert handler.deliver(message(number)).status == 0
        wait_until(lambda: service.status()["replaced"] == 2)
        assert service.status()["died"] == 0
        assert service.workers() != first
    assert ways(handler) == ["resident"] * 5


def test_replaced_after_it_grew(handler: Handler) -> None:
    """A worker that has become large is replaced."""
    configure(handler, max_growth=1_048_576)
    with Service(handler) as service:
        fields = b"".join(b"X-%d: %d\n" % (number, number) for number in range(60_000))
        assert handler.deliver(fields + MESSAGE).status == 0
        wait_until(lambda: service.status()["replaced"] == 1)
        assert service.status()["died"] == 0


def test_limits_are_set_for_each_message(service: Service, handler: Handler) -> None:
    """The CPU time that a message may use does not depend on what the worker used before."""
    (worker,) = service.workers()

    def limit() -> int:
        (line,) = (each for each in Path(f"/proc/{worker}/limits").read_text().splitlines() if "cpu time" in each)
        return int(line.split()[3])

    assert handler.deliver(MESSAGE).status == 0
    first, number = limit(), 2
    while limit() == first:
        assert handler.deliver(message(number) + b"Gr\xfc\xdfe aus K\xf6ln\n" * 200_000).status == 0
        number += 1
        assert number < 100
    assert service.workers() == [worker]
    assert limit() > first


@EITHER_ENTRYPOINT
def test_time_runs_from_the_start_of_the_entrypoint(handler: Handler, database: Database) -> None:
    """One deadline covers the whole delivery, and afterwards the worker is unaffected: no alarm is left."""
    configure(handler, deadline=5)
    trace = handler.folder / "trace"
    trace.touch()
    account.give(trace)
    with Service(handler, under=["strace", "-D", "-f", "-q", "-e", "trace=setitimer", "-o", str(trace)]) as service:
        workers = service.workers()
        with held(database):
            assert handler.deliver(MESSAGE).status == 75
        assert handler.deliver(MESSAGE).status == 0
        wait_until(service.ready)
        assert service.workers() == workers
        assert service.status()["died"] == 0
    *_, last = (line for line in trace.read_text().splitlines() if "setitimer(ITIMER_REAL" in line)
    assert "it_value={tv_sec=0, tv_usec=0}" in last


# The database becomes unavailable and available.


def test_a_connection_that_ended(service: Service, handler: Handler, database: Database) -> None:
    """A session that the server ended is opened again, and no message is affected."""
    assert handler.deliver(MESSAGE).status == 0
    (worker,) = service.workers()

    def sockets() -> int:
        return sum(os.readlink(each).startswith("socket:") for each in Path(f"/proc/{worker}/fd").iterdir())

    wait_until(service.ready)
    before = sockets()
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pipehandler'")
    # At once, not with the next message: a closed connection would wake the worker repeatedly.
    wait_until(lambda: sockets() < before, "the end of the connection")
    assert handler.deliver(message(2)).status == 0
    assert service.status()["died"] == 0
    assert ways(handler) == ["resident", "resident"]


def test_the_server_restarts(own_database: Database, folder: Path) -> None:
    """While it is down messages are deferred, as in the cold mode; when it is back the same worker stores them."""
    handler = Handler(folder / "handler", own_database.conninfo)
    configure(handler)
    with Service(handler) as service:
        workers = service.workers()
        assert handler.deliver(MESSAGE).status == 0
        own_database.server.stop(signal.SIGKILL)
        assert handler.deliver(message(2)).status == 75
        # On a busy machine two seconds may be over before the next.
        wait_until(lambda: handler.deliver(message(2)).status != 75 or "known to be down" in handler.log_lines()[-1])
        assert "known to be down" in handler.log_lines()[-1]
        own_database.server.start()
        handler.end_hold()
        assert handler.deliver(message(2)).status == 0
        assert service.workers() == workers
        assert set(ways(handler)) == {"resident"}


def test_started_before_the_database(own_database: Database, folder: Path) -> None:
    """A service without a database defers messages, and delivers as soon as there is one."""
    handler = Handler(folder / "handler", own_database.conninfo)
    configure(handler)
    own_database.server.stop()
    with Service(handler):
        assert handler.deliver(MESSAGE).status == 75
        own_database.server.start()
        handler.end_hold()
        assert handler.deliver(MESSAGE).status == 0
    assert ways(handler) == ["resident", "resident"]
