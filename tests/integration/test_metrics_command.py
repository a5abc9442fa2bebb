"""`pipehandler metrics` during real deliveries: what it counts, and how it exports the numbers."""

import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from harness import account
from harness.database import Database
from harness.handler import ENVIRONMENT, Handler
from harness.mailhost import pipehandler
from harness.missing import missing
from harness.proxy import FRONTEND, STALL, Fault, proxy
from harness.service import Service, begin, configure, ended, held, wait_until
from prometheus_client.parser import text_string_to_metric_families

from pipehandler import __version__
from pipehandler.mail.sysexits import EX_CANTCREAT, EX_UNAVAILABLE
from pipehandler.monitor.http_endpoint import Endpoint as HttpEndpoint
from pipehandler.monitor.snapshot import take_snapshot
from pipehandler.settings.config_file import load

USAGE = 2  # click's status for a usage error
SCRAPE_TIMEOUT = 10  # seconds, Prometheus' default
MESSAGE = b"From: a@example.org\nDate: Mon, 7 Sep 2026 10:00:00 +0900\nMessage-ID: <1@example.org>\n\nhello\n"
LAST = f'version="{__version__}"}} 1.0\n'
"""The end of a complete output."""


def command(handler: Handler, *arguments: object) -> list[str]:
    """The whole command line."""
    program = Path(sys.executable).with_name("pipehandler")
    return [str(program), "--config", str(handler.config), "metrics", *map(str, arguments)]


def start(
    handler: Handler,
    *arguments: object,
    before: Sequence[str] = (),
    umask: int = -1,
    root: bool = False,
    notify: str = "",
) -> subprocess.Popen[str]:
    """Start the command as the account of the transport, or as root. before: a program that runs it; notify: sd_notify(3)."""
    words = [*before, *command(handler, *arguments)]
    return subprocess.Popen(
        words if root else account.command(words),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT | {"NOTIFY_SOCKET": notify},
        cwd="/",
        umask=umask,
    )


def run(handler: Handler, *arguments: object, **options: Any) -> tuple[int, str, str]:
    """Run it; returns the status, stdout and stderr."""
    running = start(handler, *arguments, **options)
    output, errors = running.communicate(timeout=60)
    return running.returncode, output, errors


def metrics(handler: Handler) -> str:
    """Its output, when it succeeds without errors."""
    status, output, errors = run(handler)
    assert (status, errors) == (0, "")
    return output


def number(text: str, metric: str, /, **labels: str) -> float | None:
    """The sum of the series with this name and these labels; None without one."""
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None


def exits(text: str, outcome: str, mode: str = "cold") -> float | None:
    """The number of attempts with this outcome."""
    return number(text, "pipehandler_exits_total", outcome=outcome, mode=mode)


# What it counts.


def test_deliveries(handler: Handler, database: Database) -> None:
    """Each attempt is counted once, by its outcome; none is counted before it has ended."""
    before = metrics(handler)
    assert exits(before, "delivered") == 0
    assert number(before, "pipehandler_last_success_timestamp_seconds") is None
    for _ in range(3):
        assert handler.deliver(MESSAGE).status == 0
    running = handler.start(handler.command())
    wait_until(lambda: number(metrics(handler), "pipehandler_attempts_under_way"), "the begin of an attempt")
    assert exits(metrics(handler), "killed") == 0
    running.kill()
    running.communicate()
    handler.configure(database.conninfo, limits={"message_size": 1024})
    assert handler.deliver(MESSAGE + b"x" * 1024).status == 65
    handler.configure("host=127.0.0.1 port=1")
    for _ in range(2):
        assert handler.deliver(MESSAGE).status == 75
    during = metrics(handler)
    handler.configure(database.conninfo)

    text = metrics(handler)
    outcomes = ("delivered", "duplicate", "too_large", "store_unavailable", "outage", "killed", "fault")
    assert [exits(text, outcome) for outcome in outcomes] == [1, 2, 1, 1, 1, 1, 0]
    by_status = {
        status: number(text, "pipehandler_exits_total", status=status) for status in ("0", "65", "75", "killed")
    }
    assert by_status == {"0": 3, "65": 1, "75": 2, "killed": 1}
    assert number(text, "pipehandler_exits_total", name="EX_TEMPFAIL", ingress="pipe") == 2
    assert number(text, "pipehandler_duplicates_total") == 2
    assert number(text, "pipehandler_outage_refusals_total") == 1
    # Four were read; the one for the closed port was read as well, the one that was refused was not.
    assert number(text, "pipehandler_received_bytes_total") == 4 * len(MESSAGE) + 1025
    assert number(text, "pipehandler_attempts_under_way") == 0
    last = number(text, "pipehandler_last_success_timestamp_seconds")
    assert last is not None
    assert time.time() - 60 < last < time.time()
    assert number(text, "pipehandler_phase_duration_seconds_count", phase="store", mode="cold") == 4
    assert (number(during, "pipehandler_outage"), number(during, "pipehandler_database_up")) == (1, 0)
    assert exits(during, "delivered") == 1
    assert number(text, "pipehandler_database_up") == 1


def test_quarantine(handler: Handler, database: Database) -> None:
    """The handler's role sees how many messages are in quarantine, and since when."""
    assert number(metrics(handler), "pipehandler_quarantine_messages") == 0
    assert handler.deliver(MESSAGE).status == 0
    at = "2026-01-01 00:00:00+00"
    database.execute("UPDATE pipehandler.message SET state = 'failed', error = 'x', received_at = %s", at)
    text = metrics(handler)
    assert number(text, "pipehandler_quarantine_messages") == 1
    assert number(text, "pipehandler_quarantine_oldest_timestamp_seconds") == 1767225600
    version = number(text, "pipehandler_schema_version")
    assert version == number(text, "pipehandler_schema_version_expected") == take_snapshot(load(str(handler.config)))[2]


def test_days(handler: Handler, database: Database) -> None:
    """The handler's role sees of how many days the partitions are there."""
    assert number(metrics(handler), "pipehandler_partitions_prepared") == 2
    database.execute("SELECT pipehandler.create_days()")
    assert number(metrics(handler), "pipehandler_partitions_prepared") == 8


def test_expired(handler: Handler, database: Database) -> None:
    """The handler's role sees how long removals are overdue: of a delivery by itself or with its lease, or of a
    lease."""
    name = "pipehandler_expired_oldest_timestamp_seconds"
    database.execute("SELECT pipehandler.lease_address('@example.com', '1 hour')")
    assert handler.deliver(MESSAGE).status == 0
    assert number(metrics(handler), name) is None
    ended = "UPDATE pipehandler.address SET created_at = now() - interval '{0}', expires_at = now() - interval '{0}'"
    database.execute(ended.format("2 hours"))
    since = number(metrics(handler), name)
    assert since is not None
    assert 0 <= time.time() - 7_200 - since < 60
    database.execute("UPDATE pipehandler.delivery SET lease = NULL")
    assert number(metrics(handler), name) is None
    database.execute(ended.format("7 days"))
    assert number(metrics(handler), name) is not None
    database.execute("UPDATE pipehandler.delivery SET expires_at = '2026-01-01Z'")
    assert number(metrics(handler), name) == 1767225600


def test_resident_workers(handler: Handler, database: Database) -> None:
    """The service is queried as well: free, busy, waiting, down; and messages that went through it have their own
    label."""
    configure(
        handler, deadline=40, queue_timeout=6
    )  # the second message waits that long, and a busy machine needs time to look
    assert number(metrics(handler), "pipehandler_service_up") == 0
    with Service(handler) as service:
        with held(database):
            first = begin(handler, service, MESSAGE)
            second = handler.start(handler.command())
            wait_until(lambda: service.status()["waiting"], "that a message waits")
            during = metrics(handler)
            wait_until(lambda: service.status()["congested"], "that it is sent away")
        assert ended(first).status == 0
        assert second.communicate(MESSAGE)[0].startswith(b"4.4.5")
        wait_until(lambda: not service.status()["busy"], "that the worker has written it down")
        os.kill(service.workers()[0], signal.SIGKILL)
        wait_until(lambda: service.status()["died"], "the end of the worker")
        text = metrics(handler)
    assert number(during, "pipehandler_workers", state="busy") == 1
    assert number(during, "pipehandler_waiting_messages") == 1
    assert number(during, "pipehandler_attempts_under_way") == 1
    assert number(text, "pipehandler_service_up") == 1
    assert number(text, "pipehandler_workers", state="busy") == 0
    assert number(text, "pipehandler_service_congested_total") == 1
    assert number(text, "pipehandler_workers_replaced_total", reason="died") == 1
    assert [exits(text, outcome, "resident") for outcome in ("delivered", "congested", "killed")] == [1, 1, 0]
    assert exits(text, "delivered", "cold") == 0


def test_another_connection_string(handler: Handler, database: Database) -> None:
    """An account that cannot log in as the handler (root, with peer authentication) queries with admin_conninfo."""
    reader = database.server.conninfo(database.name, user="reader")
    handler.configure(f"{database.conninfo} user=nobody_at_all", database={"admin_conninfo": reader})
    assert number(metrics(handler), "pipehandler_database_up") == 1


def test_old_schema(handler: Handler, database: Database) -> None:
    """A schema older than the query gives no figures, and the reason includes a fix."""
    database.execute("DROP FUNCTION pipehandler.health()")
    text = metrics(handler)
    assert number(text, "pipehandler_database_up") == 0
    assert number(text, "pipehandler_schema_version") is None
    assert number(text, "pipehandler_schema_version_expected")
    assert "run `pipehandler migrate`" in take_snapshot(load(str(handler.config))).reasons["database"]


def test_whoever_does_not_answer(handler: Handler, database: Database) -> None:
    """A pooler that accepts the query and never answers costs only the figures of the database."""
    assert handler.deliver(MESSAGE).status == 0
    with proxy(database.server.port) as stalled:
        stalled.fault = Fault(lambda said: said.sender == FRONTEND and said.kind in ("P", "Q"), how=STALL)
        handler.configure(stalled.conninfo(database.conninfo))
        text = metrics(handler)
    assert number(text, "pipehandler_database_up") == 0
    assert exits(text, "delivered") == 1


@pytest.mark.skipif(not account.IS_ROOT, reason="only root is another account that may read the journal")
def test_root_changes_nothing(handler: Handler) -> None:
    """A run by root, from a cron job, leaves nothing behind that would lock the transport's account out of its
    journal."""
    for delivered in range(1, 3):
        assert handler.deliver(MESSAGE).status == 0
        status, text, _ = run(handler, root=True)
        assert (status, number(text, "pipehandler_exits_total", status="0")) == (0, delivered)
        assert {path.owner() for path in handler.state.iterdir()} == {account.NAME}


def test_unreadable_journal(handler: Handler) -> None:
    """Without the journal its numbers are left out; they are not 0."""
    assert handler.deliver(MESSAGE).status == 0
    (handler.state / "journal.sqlite").write_bytes(b"no journal" * 1000)
    text = metrics(handler)
    assert number(text, "pipehandler_journal_up") == 0
    assert number(text, "pipehandler_exits_total") is None
    assert number(text, "pipehandler_database_up") == 1


# A file.


def test_output(handler: Handler) -> None:
    """The file is readable for node_exporter whatever the umask, is replaced as a whole, and leaves no other file."""
    file = handler.folder / "out" / "pipehandler.prom"
    file.parent.mkdir()
    account.give(file.parent)
    for _ in range(2):
        assert run(handler, "--output", file, umask=0o077) == (0, "", "")
        assert file.read_text().endswith(LAST)
        assert file.stat().st_mode & 0o7777 == 0o644
        assert list(file.parent.iterdir()) == [file]


def test_output_that_cannot_be(handler: Handler) -> None:
    """If the file cannot be created, the status is 73 and the message names the path."""
    file = handler.folder / "none" / "pipehandler.prom"
    status, _, errors = run(handler, "--output", file)
    assert status == EX_CANTCREAT
    assert f"{file}: No such file or directory" in errors
    file.parent.mkdir(mode=0o555)
    if account.IS_ROOT:
        status, _, errors = run(handler, "--output", file)
        assert (status, f"{file}: Permission denied" in errors) == (EX_CANTCREAT, True)


FULL = 'mount -t tmpfs -o size=8k,mode=777 tmpfs "$1" && echo before > "$1/x.prom" && shift && { "$@"; status=$?; cat "$0"/*; exit $status; }'


def test_full_disk(handler: Handler) -> None:
    """On a full disk the old file stays, and the partial one is removed."""
    if not account.IS_ROOT:
        missing("root, who can mount a small disk,")
    folder = handler.folder / "full"
    folder.mkdir()
    before = ["unshare", "--mount", "bash", "-c", FULL, str(folder), str(folder)]
    status, output, errors = run(handler, "--output", folder / "x.prom", before=before, root=True)
    assert (status, output) == (EX_CANTCREAT, "before\n")
    assert f"{folder}/x.prom: No space left on device" in errors


@pytest.mark.parametrize("call", ["fchmod", "fsync", "rename,?renameat,?renameat2"])
def test_output_of_one_who_is_killed(handler: Handler, call: str) -> None:
    """Killed at any moment, it leaves either the old file or the new one, complete."""
    if shutil.which("strace") is None:
        missing("strace")
    file = handler.folder / "out" / "pipehandler.prom"
    file.parent.mkdir()
    account.give(file.parent)
    file.write_text("before\n")
    before = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject=?{call}:signal=KILL"]
    status, _, _ = run(handler, "--output", file, before=before)
    assert status in (-signal.SIGKILL, 128 + signal.SIGKILL)
    text = file.read_text()
    assert text == "before\n" or text.endswith(LAST)


# An endpoint.


class Endpoint:
    """`pipehandler metrics --listen` as the account of the transport."""

    def __init__(self, handler: Handler, host: str = "127.0.0.1") -> None:
        self.port = account.free_port()
        self.address = f"{host}:{self.port}"
        self.running = start(handler, "--listen", self.address if host != "127.0.0.1" else self.port)
        wait_until(lambda: self.running.poll() is not None or self.greets(), "that it listens")

    def greets(self) -> bool:
        """Whether it accepts connections."""
        try:
            self.get("/favicon.ico")
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def get(self, path: str = "/metrics") -> str:
        """The response to a scrape."""
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=SCRAPE_TIMEOUT) as answer:
            assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            return str(answer.read().decode())

    def status(self, path: str = "/metrics") -> int:
        """The HTTP status."""
        try:
            self.get(path)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        return 200

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """End it; returns its status and its log."""
        self.running.send_signal(number)
        _, errors = self.running.communicate(timeout=30)
        return self.running.returncode, errors


@contextmanager
def listening(handler: Handler, host: str = "127.0.0.1") -> Iterator[Endpoint]:
    """An endpoint for one test."""
    endpoint = Endpoint(handler, host)
    try:
        yield endpoint
    finally:
        if endpoint.running.poll() is None:
            endpoint.running.kill()
            endpoint.running.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_scrapes(handler: Handler, number: signal.Signals) -> None:
    """Each scrape sees what has happened since the last one; SIGTERM and SIGINT end it cleanly."""
    with listening(handler) as endpoint:
        assert exits(endpoint.get(), "delivered") == 0
        assert handler.deliver(MESSAGE).status == 0
        text = endpoint.get()
        assert exits(text, "delivered") == 1
        assert text.endswith(LAST)
        assert endpoint.status("/other") == 404
        status, log = endpoint.end(number)
        assert status == 0
        assert "Traceback" not in log
        assert [line.partition(":")[0] for line in log.splitlines()[1:]] == ["queue", "service"]


def test_ipv6(handler: Handler) -> None:
    """An IPv6 address is written in brackets."""
    if not Path("/proc/net/if_inet6").exists() or not Path("/proc/net/if_inet6").read_text():
        missing("IPv6")
    with listening(handler, "[::1]") as endpoint:
        assert endpoint.get().endswith(LAST)


def test_scrapes_at_once(handler: Handler, database: Database) -> None:
    """Several concurrent scrapes are answered; beyond a few they are asked to retry, and none waits for a silent
    client."""
    with listening(handler) as endpoint, socket.create_connection(("127.0.0.1", endpoint.port)):
        with ThreadPoolExecutor(2) as pool:
            assert set(pool.map(lambda _: endpoint.status(), range(8))) == {200}
        with ThreadPoolExecutor(20) as pool:
            found = list(pool.map(lambda _: endpoint.status(), range(20)))
        assert set(found) == {200, 503}
        assert endpoint.status() == 200
        assert endpoint.end()[0] == 0
    left = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pipehandler'"
    wait_until(lambda: database.value(left) == 0, "the end of all connections")


def test_systemd_is_told(handler: Handler) -> None:
    """systemd is notified when the endpoint listens, not before."""
    address = handler.folder / "notify"
    port = account.free_port()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(address))
        address.chmod(0o666)
        manager.settimeout(30)
        running = start(handler, "--listen", port, notify=str(address))
        assert manager.recv(100) == b"READY=1"
        socket.create_connection(("127.0.0.1", port)).close()
        running.terminate()
        running.communicate(timeout=30)
    assert running.returncode == 0


def test_wrong_configuration_of_the_endpoint(handler: Handler, database: Database) -> None:
    """While the configuration is invalid, the metric and the log show it, and the rest is answered."""
    good = handler.config.read_text()
    with listening(handler) as endpoint:
        handler.config.write_text(f"{good}\n[nothing]\n")
        assert number(endpoint.get(), "pipehandler_configuration_up") == 0
        handler.config.write_text(good)
        text = endpoint.get()
        assert number(text, "pipehandler_configuration_up") == number(text, "pipehandler_database_up") == 1
        status, log = endpoint.end()
    assert status == 0
    assert f"configuration: {handler.config}: [nothing] is not a section" in log
    assert "configuration: available again" in log


def test_other_paths(handler: Handler) -> None:
    """A page on / links to the metrics; HEAD is answered without a body; there are no other pages. A log line reports
    that it listens."""
    with listening(handler) as endpoint:
        port = endpoint.port
        for path, expected in (("/", 200), ("/metrics", 200), ("/other", 404)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SCRAPE_TIMEOUT)
            connection.request("HEAD", path)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (expected, b"")
            assert expected == 404 or int(answer.headers["Content-Length"]) > 50
            connection.close()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=SCRAPE_TIMEOUT) as page:
            assert b'<a href="/metrics">' in page.read()
        _, log = endpoint.end()
    assert f"listening on http://127.0.0.1:{port}/metrics\n" in log


def test_failing_scrapes() -> None:
    """A scrape that fails is a 500, and the next one is answered."""
    answers: Iterator[Exception | bytes] = iter([ValueError("unforeseen"), b"all\n"])

    def collect() -> bytes:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with HttpEndpoint("127.0.0.1", 0, collect) as endpoint:
        thread = threading.Thread(target=endpoint.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{endpoint.server_port}/metrics"
        with pytest.raises(urllib.error.HTTPError, match="500"):
            urllib.request.urlopen(url, timeout=SCRAPE_TIMEOUT)
        with urllib.request.urlopen(url, timeout=SCRAPE_TIMEOUT) as answer:
            assert answer.read() == b"all\n"
        endpoint.shutdown()
        thread.join()


def test_scrape_of_a_silent_database(handler: Handler) -> None:
    """While the database's host is silent, a scrape is answered before Prometheus gives up."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        conninfo = f"host=127.0.0.1 port={deaf.getsockname()[1]} dbname=x user=x"
        handler.configure(conninfo, database={"admin_conninfo": conninfo})
        with listening(handler) as endpoint:
            text = endpoint.get()
            threading.Timer(0.5, endpoint.running.terminate).start()
            assert endpoint.get().endswith(LAST)  # the running scrape is answered
            _, log = endpoint.running.communicate(timeout=SCRAPE_TIMEOUT)
    assert (endpoint.running.returncode, "Traceback" in log) == (0, False), log
    assert number(text, "pipehandler_database_up") == 0


def test_port_in_use(handler: Handler) -> None:
    """A port in use is reported with one line and a status."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        status, _, errors = run(handler, "--listen", port)
    assert status == EX_UNAVAILABLE
    assert errors == f"Error: 127.0.0.1, port {port}: Address already in use; --listen needs a free port of this host\n"


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--listen", value] for value in ("x", "1:x", ":9797", "::1:9797", "127.0.0.1:65536", "127.0.0.1", "")),
        *(["--listen", "1", "--output", name] for name in ("x", "")),
    ],
    ids=" ".join,
)
def test_wrong_calls(handler: Handler, arguments: list[str]) -> None:
    """A usage error is reported before anything else."""
    status, output, errors = run(handler, *arguments)
    assert (status, output) == (USAGE, "")
    assert "Usage: pipehandler metrics" in errors


# Units.


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_unit(folder: Path) -> None:
    """systemd-analyze reports nothing about the unit."""
    unit = folder / "pipehandler-metrics.service"
    unit.write_text(pipehandler("postfix", unit.name, "--user", "mail", "--config-directory", "/etc/postfix-in"))
    done = subprocess.run(["systemd-analyze", "verify", "--recursive-errors=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert re.search(r"^User=mail$", unit.read_text(), re.MULTILINE)
    assert "--config-directory /etc/postfix-in\n" in unit.read_text()
