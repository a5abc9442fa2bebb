"""The service of the resident workers: access to it, its start, end and reload, and its status."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import account
from harness.database import Database
from harness.handler import ENVIRONMENT, Handler
from harness.mailhost import pipehandler
from harness.missing import missing
from harness.service import PATIENCE, Service, begin, configure, ended, held, wait_until

from pipehandler.handover import deliver_packet

MESSAGE = b"From: a@example.org\nMessage-ID: <1@example.org>\nSubject: one\n\nbody\n"
OTHER = MESSAGE.replace(b"<1@", b"<2@")
REPOSITORY = Path(__file__).parents[2]

EITHER_ENTRYPOINT = pytest.mark.parametrize("handler", ["python", "client"], indirect=True)
"""For what depends on the entrypoint: the one in Python, and the client in C."""


@pytest.fixture
def service(handler: Handler) -> Iterator[Service]:
    """The service of `handler`, with one worker."""
    configure(handler)
    with Service(handler) as running:
        yield running


def visit(handler: Handler, *packets: bytes) -> socket.socket:
    """A connection to the service on which these packets were sent."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.settimeout(10)
    client.connect(str(handler.socket))
    for packet in packets:
        client.send(packet)
    return client


def entrypoint_packet(handler: Handler) -> bytes:
    """The first packet of an entrypoint of this installation."""
    return deliver_packet(handler.command()[len(handler.entrypoint()) :], os.getpid(), time.monotonic())


# Access.


def test_the_socket_is_closed_to_others(service: Service, handler: Handler) -> None:
    """Its mode admits only its owner."""
    assert oct(handler.socket.stat().st_mode)[-3:] == "600"


def test_the_kernel_is_asked(service: Service, handler: Handler) -> None:
    """Another account is disconnected without an answer, even if the socket's mode admits it."""
    if not account.IS_ROOT:
        pytest.skip("another account is needed, and only root can be one")
    handler.socket.chmod(0o666)
    script = f"""
import socket
client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
client.connect({str(handler.socket)!r})
try:
    client.send(b"status")
    print(client.recv(1000))
except OSError:
    print(b"")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, user="daemon", timeout=20)
    assert done.stdout == "b''\n"
    with visit(handler, b"status") as own:
        assert json.loads(own.recv(1000))["workers"] == 1


RUBBISH = {
    "nothing": b"\n",
    "a word": b"hello",
    "NUL": b"\0" * 100,
    "no numbers": b"deliver\0x\0y\0z\0",
    "too short": b"deliver\0x",
    "a large number": b"deliver\0x\0" + b"9" * 5000 + b"\x001",
    "no number": b"deliver\0x\x001\0nan\0--sender=\0--\0a@example.com",
    "large": b"deliver\0" + b"x" * 150_000,
    "no text": bytes(range(256)),
}


@pytest.mark.parametrize("packet", RUBBISH.values(), ids=RUBBISH)
def test_rubbish_gets_nothing(service: Service, handler: Handler, packet: bytes) -> None:
    """A client that sends what no entrypoint would send gets no answer, and the service continues."""
    with visit(handler, packet) as client:
        assert client.recv(1000) == b""
    assert handler.deliver(MESSAGE).status == 0
    wait_until(lambda: service.status()["delivered"] == 1)


def test_silence_blocks_nobody(service: Service, handler: Handler) -> None:
    """However many silent clients connect, messages are delivered meanwhile; and the silent clients are
    disconnected."""
    silent = [visit(handler) for _ in range(100)]
    assert handler.deliver(MESSAGE).status == 0
    wait_until(lambda: service.status()["delivered"] == 1)
    assert [client.recv(1000) for client in silent] == [b""] * 100
    for client in silent:
        client.close()


@EITHER_ENTRYPOINT
def test_more_than_there_is_room_for(service: Service, handler: Handler) -> None:
    """With too many connections, some messages are delivered cold, and none is lost."""
    silent = [visit(handler) for _ in range(512)]
    assert handler.deliver(MESSAGE).status == 0
    for client in silent:
        client.close()
    wait_until(lambda: handler.deliver(OTHER).status == 0 and service.status()["delivered"] > 0)


@pytest.mark.parametrize("packet", [b"fd", b""], ids=["no descriptor", "nothing"])
def test_half_a_hand_over(service: Service, handler: Handler, packet: bytes) -> None:
    """A client that is assigned a worker, and does not pass a descriptor, blocks the worker for at most two seconds."""
    with visit(handler, entrypoint_packet(handler)) as client:
        assert client.recv(1000).startswith(b"go ")
        if packet:
            client.send(packet)
        assert client.recv(1000) == b""
    assert handler.deliver(MESSAGE).status == 0
    assert service.status()["died"] == 0


def test_more_descriptors_than_wanted(service: Service, handler: Handler) -> None:
    """Only one descriptor is accepted, and none is left open in a worker."""
    assert handler.deliver(MESSAGE).status == 0  # and the worker has the journal open
    wait_until(lambda: not service.status()["busy"])
    (worker,) = service.workers()
    before = len(os.listdir(f"/proc/{worker}/fd"))
    with visit(handler, entrypoint_packet(handler)) as client, open("/dev/null", "rb") as null:
        assert client.recv(1000).startswith(b"go ")
        socket.send_fds(client, [b"fd"], [null.fileno()] * 10)
        assert client.recv(1000).startswith(b"end 75 4.3.0 message truncated")
    wait_until(lambda: not service.status()["busy"])
    assert len(os.listdir(f"/proc/{worker}/fd")) == before


# Backpressure.


@EITHER_ENTRYPOINT
def test_waiting_has_an_end(service: Service, handler: Handler, database: Database) -> None:
    """With all workers busy a message waits for serve.queue_timeout seconds, is shown as waiting, and is deferred."""
    with held(database):
        first = begin(handler, service, MESSAGE)
        with handler.start(handler.command(queue_id="4Wait")) as second:
            wait_until(lambda: service.status()["waiting"] == 1)
            output, _ = second.communicate(OTHER, timeout=60)
        assert (second.returncode, output) == (75, b"4.4.5 mail system congested\n")
        reported = service.status()
        assert (reported["waiting"], reported["busy"], reported["congested"]) == (0, 1, 1)
    assert ended(first).status == 0
    (line,) = (line for line in handler.log_lines() if line.startswith("outcome=congested "))
    assert " status=75 code=4.4.5 queue_id=4Wait mode=resident " in line
    assert "no worker was free within 2 s" in line


@EITHER_ENTRYPOINT
def test_who_waits_has_its_turn(service: Service, handler: Handler, database: Database) -> None:
    """A message that waits is delivered as soon as a worker is free, the first one first."""
    with held(database):
        first = begin(handler, service, MESSAGE)
        second = handler.start(handler.command())
        wait_until(lambda: service.status()["waiting"] == 1)
    assert ended(first).status == 0
    output, _ = second.communicate(OTHER, timeout=60)
    assert (second.returncode, output[:13]) == (0, b"2.0.0 stored ")
    wait_until(lambda: service.status()["delivered"] == 2)


@EITHER_ENTRYPOINT
def test_who_waits_may_leave(service: Service, handler: Handler, database: Database) -> None:
    """An entrypoint that dies while it waits is forgotten."""
    with held(database):
        first = begin(handler, service, MESSAGE)
        with handler.start(handler.command()) as second:
            wait_until(lambda: service.status()["waiting"] == 1)
            second.kill()
        wait_until(lambda: service.status()["waiting"] == 0)
    assert ended(first).status == 0


# Lifecycle.


@EITHER_ENTRYPOINT
def test_the_end_waits_for_what_is_begin(service: Service, handler: Handler, database: Database) -> None:
    """SIGTERM: workers finish their messages, waiting entrypoints deliver cold, and then the service has ended."""
    with held(database):
        first = begin(handler, service, MESSAGE)
        second = handler.start(handler.command())
        wait_until(lambda: service.status()["waiting"] == 1)
        service.signal(signal.SIGTERM)
        wait_until(lambda: not service.answers())
        assert first.poll() is None
    assert ended(first).status == 0
    output, _ = second.communicate(OTHER, timeout=60)
    assert (second.returncode, output[:13]) == (0, b"2.0.0 stored ")
    assert service.wait() == 0
    assert not handler.socket.exists()
    assert " mode=cold " in "".join(handler.log_lines())


def test_ctrl_c_ends_it(service: Service, handler: Handler) -> None:
    """SIGINT to all of its processes, as a terminal sends it, ends it like SIGTERM. The log has its start and its end."""
    pid, workers = service.pid, len(service.workers())
    for worker in service.workers():
        os.kill(worker, signal.SIGINT)
    service.signal(signal.SIGINT)
    assert service.wait() == 0
    assert service.events() == [
        f"outcome=serve event=started pid={pid} workers={workers}",
        f"outcome=serve event=stopped pid={pid}",
    ]


@EITHER_ENTRYPOINT
def test_a_new_configuration(service: Service, handler: Handler, database: Database) -> None:
    """SIGHUP: new workers have the new configuration, and deliveries in progress are finished with the old one."""
    with held(database):
        first = begin(handler, service, MESSAGE)
        handler.configure(database.conninfo, limits={"message_size": 1024}, serve={"workers": 2})
        service.signal(signal.SIGHUP)
        wait_until(lambda: service.status()["workers"] == 2)
    assert ended(first).status == 0
    assert handler.deliver(MESSAGE + b"x" * 1024).status == 65
    wait_until(lambda: service.status()["busy"] == 0 and len(service.workers()) == 2)
    assert "outcome=serve event=reloaded workers=2" in service.events()


def test_a_wrong_configuration(service: Service, handler: Handler, database: Database) -> None:
    """SIGHUP with an invalid configuration: that is reported, and the old one stays in use."""
    workers = service.workers()
    handler.config.write_text(handler.config.read_text() + "[nothing]\n")
    service.signal(signal.SIGHUP)
    wait_until(lambda: any('event="not reloaded"' in line and "[nothing]" in line for line in service.events()))
    handler.configure(database.conninfo, lmtp={"address": "192.0.2.1:24"})
    service.signal(signal.SIGHUP)
    wait_until(lambda: any("allowed: a loopback address" in line for line in service.events()))
    assert service.workers() == workers
    assert handler.deliver(MESSAGE).status == 0
    wait_until(lambda: service.status()["delivered"] == 1)


def test_what_systemd_receives(handler: Handler) -> None:
    """sd_notify(3): readiness, reloading, the end, and between them the numbers of busy workers and waiting
    messages."""
    name = handler.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(name))
        name.chmod(0o666)
        manager.settimeout(PATIENCE)
        configure(handler)
        with Service(handler, NOTIFY_SOCKET=str(name)) as service:
            assert manager.recv(1000) == b"READY=1"
            reported = b""
            while reported != b"STATUS=0 of 1 workers busy, 0 messages waiting":
                reported = manager.recv(1000)
            service.signal(signal.SIGHUP)
            while not reported.startswith(b"RELOADING=1\nMONOTONIC_USEC="):
                reported = manager.recv(1000)
            while reported != b"READY=1":
                reported = manager.recv(1000)
            assert service.stop() == 0
            while reported != b"STOPPING=1":
                reported = manager.recv(1000)


def test_a_socket_of_systemd(handler: Handler) -> None:
    """sd_listen_fds(3): the socket of a socket unit is used, and stays when the service ends."""
    configure(handler)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as made:
        made.bind(str(handler.socket))
        made.listen(10)
        account.give(handler.socket)
        program = Path(sys.executable).with_name("pipehandler")
        script = f'exec env LISTEN_PID=$$ LISTEN_FDS=1 "$@" 3<&{made.fileno()} {made.fileno()}<&-'
        command = ["bash", "-c", script, "bash", str(program), "--config", str(handler.config), "serve"]
        running = subprocess.Popen(account.command(command), env=ENVIRONMENT, cwd="/", pass_fds=[made.fileno()])
        # It is still starting. The socket exists, so the first message waits for the service, or is delivered cold if
        # that takes long.
        assert handler.deliver(MESSAGE).status == 0
        wait_until(Service(handler).ready, "the start of the service")
        assert handler.deliver(MESSAGE, "other@example.com").status == 0
        running.terminate()
        assert running.wait(30) == 0
    assert handler.socket.exists()
    assert " mode=resident " in handler.log_lines()[-2]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_units(folder: Path) -> None:
    """systemd-analyze reports nothing about the units."""
    names = ("pipehandler.socket", "pipehandler.service", "pipehandler-expire.service", "pipehandler-expire.timer")
    for name in names:
        (folder / name).write_text(pipehandler("postfix", name, "--user", "mail"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", *(folder / name for name in names)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(not account.IS_ROOT, reason="only root can give a directory away")
def test_account_and_directories(folder: Path) -> None:
    """systemd creates the account and the directories that the examples describe, in an empty root."""
    (folder / "etc").mkdir()
    for program, name, action in (
        ("systemd-sysusers", "pipehandler.sysusers", []),
        ("systemd-tmpfiles", "pipehandler.tmpfiles", ["--create"]),
    ):
        if shutil.which(program) is None:
            missing(program)
        example = pipehandler("postfix", name, "--user", "mailuser")
        command = [program, f"--root={folder}", *action, "-"]
        done = subprocess.run(command, input=example, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    name, _, user, group, *_, shell = (folder / "etc/passwd").read_text().strip().split(":")
    assert (name, shell) == ("mailuser", "/usr/sbin/nologin")
    assert (folder / "etc/group").read_text().startswith(f"mailuser:x:{group}:")
    state, settings = (folder / "var/lib/pipehandler").stat(), (folder / "etc/pipehandler").stat()
    assert (state.st_uid, state.st_gid, stat.S_IMODE(state.st_mode)) == (int(user), int(group), 0o700)
    assert (settings.st_uid, stat.S_IMODE(settings.st_mode)) == (0, 0o755)


# Refusals and reports.


def refused(handler: Handler, as_root: bool = False) -> tuple[int, str]:
    """The status and the output of a service that cannot start."""
    program = Path(sys.executable).with_name("pipehandler")
    words = [str(program), "--config", str(handler.config), "serve"]
    command = words if as_root else account.command(words)
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.skipif(not account.IS_ROOT, reason="only root can be refused as root")
def test_not_as_root(handler: Handler) -> None:
    """The service refuses to run as root, which must not read mail."""
    status, reported = refused(handler, as_root=True)
    assert status == 69
    assert "serve must not run as root" in reported


@pytest.mark.parametrize(
    ("name", "reported"),
    [
        ("taken", "another service is listening there"),
        ("file", "this file is not a socket"),
        ("none/socket", "No such file or directory; serve.socket must be in a directory that this account can write"),
        ("x" * 120, "serve.socket"),
    ],
)
def test_a_socket_that_cannot_be_had(handler: Handler, name: str, reported: str) -> None:
    """The reason and a hint are printed, and what exists is left unchanged."""
    path = handler.folder / name
    configure(handler, socket=str(path))
    if name == "file":
        path.write_text("precious")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as taken:
        if name == "taken":
            taken.bind(str(path))
            taken.listen(1)
            path.chmod(0o666)
        status, said = refused(handler)
    assert status == 69
    assert reported in said
    assert name != "file" or path.read_text() == "precious"


def test_status(service: Service, handler: Handler) -> None:
    """`serve --status` prints the status, for people and for programs; without a service it explains what that
    means."""
    assert handler.deliver(MESSAGE).status == 0
    wait_until(lambda: service.status()["busy"] == 0)
    reported = pipehandler("--config", handler.config, "serve", "--status")
    assert ["delivered", "1"] in [line.split() for line in reported.splitlines()]
    shown = json.loads(pipehandler("--config", handler.config, "serve", "--status", "--json"))
    assert {name: shown.pop(name) for name in ("code", "configuration")}.keys() == {"code", "configuration"}
    assert shown == {
        **dict.fromkeys(("busy", "waiting", "congested", "sent_back", "other_namespace", "replaced", "died"), 0),
        "workers": 1,
        "free": 1,
        "delivered": 1,
    }
    service.stop()
    with pytest.raises(RuntimeError, match=r"status 69: .*no reply.*messages are delivered cold"):
        pipehandler("--config", handler.config, "serve", "--status")
