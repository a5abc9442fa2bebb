"""The example of a container, without an engine: its image is made and run in a folder."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import account
from harness.containerfile import Container, Image
from harness.database import Database
from harness.missing import missing
from harness.service import held, stuck, wait_until

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("_postfix")]

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "pipehandler/examples/container/Containerfile"

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
_SEND = "printf 'Subject: {0}\\n\\nhello {0}\\n' | sendmail -f me@example.org {0}@example.com"
_CLIENT = r"""
import smtplib, sys
session = smtplib.SMTP("198.51.100.1", 25, local_hostname="client.example.org", source_address=("198.51.100.2", 0), timeout=60)
for command in sys.argv[1:]:
    session.send(command + "\r\n")
    code, text = session.getreply()
    print(code, text.decode().splitlines()[0])
"""
_QUICKLY = "minimal_backoff_time = 1s\nmaximal_backoff_time =\n    2s\n# often\nqueue_run_delay = 1s\npostscreen_greet_wait = 1s\n"
"""Settings for /etc/pipehandler/main.cf: a test does not wait for minutes."""


@pytest.fixture(scope="module")
def _debootstrap() -> None:
    if shutil.which("debootstrap") is None:
        missing("debootstrap")


@pytest.fixture(scope="module")
def image(_debootstrap: None) -> Iterator[Image]:
    """The image of the example."""
    with account.folder("pipehandler-image-") as folder:
        yield Image(folder, EXAMPLE, REPOSITORY)


@pytest.fixture(scope="module")
def newer(_debootstrap: None) -> Iterator[Image]:
    """The same on the next Debian: another Python, another Postfix, and other numbers of accounts."""
    with account.folder("pipehandler-image-") as folder:
        yield Image(folder, EXAMPLE, REPOSITORY, "docker.io/library/debian:13-slim")


class Host:
    """A container with the database of a test, as an operator runs it; `run` starts it, again if it has run before.

    settings: the content of /etc/pipehandler/main.cf. files: more files that are mounted, by their names in the container.
    """

    def __init__(self, image: Image, folder: Path, database: Database, volumes: Path, **environment: str) -> None:
        folder.mkdir()
        volumes.mkdir(exist_ok=True)
        sockets = database.server.folder
        self.folder = folder
        self.log = folder / "stdout"
        self.log.touch()
        self._inside: list[str] = []
        self._command = Container(image, folder / "container", volumes).start(
            f"""
            mkdir -p "$ROOT/run/database" "$ROOT/etc/pipehandler"
            [ ! -e {folder}/main.cf ] || cp {folder}/main.cf "$ROOT/etc/pipehandler"
            [ ! -e {folder}/letsencrypt ] || cp -r {folder}/letsencrypt "$ROOT/etc"
            mount --bind {sockets} "$ROOT/run/database"
            hostname mx.example.com
            ip link set lo up
            for number in 1 2; do ip address add 198.51.100.$number/32 dev lo; done
            exec chroot "$ROOT" "$@"
            """,
            *image.entrypoint,
        )
        # The namespaces that an engine makes as well.
        self._command[1:1] = ["--net", "--uts", "--ipc"]
        conninfo = f"host=/run/database port={database.server.port} dbname={database.name} user="
        self._environment = {
            **_ENVIRONMENT,
            "PIPEHANDLER_DOMAINS": "example.com example.net",
            "PIPEHANDLER_CONNINFO": conninfo + "pipehandler",
            "PIPEHANDLER_ADMIN_CONNINFO": conninfo + "operator",
            **{name: conninfo + value for name, value in environment.items() if name.endswith("CONNINFO")},
            **{name: value for name, value in environment.items() if not name.endswith("CONNINFO")},
        }

    @contextmanager
    def run(self, end: signal.Signals = signal.SIGTERM) -> Iterator["Host"]:
        """The running container, which ends by a signal to its process 1."""
        begun = len(self.printed())
        with (
            self.log.open("ab") as stdout,
            subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stdout, env=self._environment
            ) as running,
        ):
            children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
            wait_until(children.read_text, "process 1")
            init = children.read_text().strip()
            self._inside = ["nsenter", "--target", init, "--all", "chroot", f"/proc/{init}/root"]
            try:
                wait_until(lambda: running.poll() is not None or self._is_up(begun), "the start")
                assert running.poll() is None, self.printed()
                yield self
            finally:
                if running.poll() is None:
                    os.kill(int(init), end)
                status = running.wait(60)
        assert (status == 0) == (end == signal.SIGTERM), self.printed()

    def _is_up(self, begun: int) -> bool:
        printed = self.printed()[begun:]
        return "daemon started" in printed and "listening on" in printed

    def printed(self) -> str:
        """What it has printed, in all its runs."""
        return self.log.read_text("utf-8", "replace")

    def execute(self, *command: str, status: Sequence[int] = (0,)) -> str:
        """The output of a command in it, as `podman exec` has it."""
        done = subprocess.run([*self._inside, *command], capture_output=True, text=True, env=self._environment)
        assert done.returncode in status, done
        return done.stdout

    def findings(self) -> list[str]:
        """What `pipehandler check` finds, except that the servers of the tests do without what a power failure would need."""
        found = json.loads(self.execute("pipehandler", "check", "--json", status=(0, 1)))
        return [
            f"{each['code']}: {each['what']}" for each in found if each["code"] not in ("fsync", "full-page-writes")
        ]

    def send(self, *names: str) -> None:
        """Send a message from its sendmail(1) to each of these users."""
        for name in names:
            self.execute("sh", "-euc", _SEND.format(name))

    def dialogue(self, *commands: str) -> list[str]:
        """The answers to SMTP commands of a stranger: the first line of each."""
        return self.execute("python3", "-c", _CLIENT, *commands).splitlines()

    def queue(self) -> str:
        """The messages in Postfix's queue, a JSON object in each line."""
        return self.execute("postqueue", "-j")

    def wait_for_delivery(self, name: str) -> str:
        """Wait until Postfix and the handler have logged the delivery of the message to this user; returns its queue id."""
        wait_until(lambda: self.delivered(name), "its delivery")
        queue_id = self.delivered(name)
        wait_until(lambda: f"queue_id={queue_id} " in self.printed(), "the handler's line")
        return queue_id

    def delivered(self, name: str) -> str:
        """The queue id of the message to this user, once Postfix has logged its delivery, else ""."""
        found = re.search(
            rf"postfix/pipe\[\d+\]: (\w+): to=<{name}@example\.com>.* status=sent", self.printed(), re.MULTILINE
        )
        return found[1] if found else ""


@pytest.fixture
def operator(database: Database) -> Iterator[Database]:
    """The database, with the role of the commands."""
    database.execute("CREATE ROLE operator LOGIN IN ROLE pipehandler_reader, pipehandler_maintenance")
    yield database
    database.execute("DROP ROLE operator")


@pytest.fixture
def host(image: Image, operator: Database, folder: Path) -> Host:
    """A container that has not run yet, and whose volumes are new."""
    return Host(image, folder / "host", operator, folder / "volumes")


def test_mail_is_stored(host: Host, operator: Database) -> None:
    """The container stores mail of its domains through the resident workers, writes the lines of Postfix and of the handler to
    stdout, each with its time and queue id, and ends at SIGTERM. It can be started again."""
    for name in ("first", "second"):
        with host.run():
            host.send(name)
            queue_id = host.wait_for_delivery(name)
            assert f"{name}@example.com" in host.execute("pipehandler", "list")
            assert host.findings() == []
            host.execute("pipehandler", "status", "--quiet")
        line = (
            rf"^\d{{4}}-\d\d-\d\dT\S+Z mx\.example\.com pipehandler\[\d+\]: outcome=delivered .* queue_id={queue_id} "
        )
        (of_handler,) = [each for each in host.printed().splitlines() if re.match(line, each)]
        assert " mode=resident " in of_handler
    assert operator.value("SELECT count(*) FROM pipehandler.delivery") == 2


def test_what_must_outlive_it(image: Image) -> None:
    """The queue and the journal are volumes."""
    assert image.volumes == ["/var/spool/postfix", "/var/lib/pipehandler"]


def subjects(database: Database) -> list[str]:
    """The subjects of all deliveries, each as often as it is stored."""
    rows = database.rows(
        "SELECT subject FROM pipehandler.delivery d JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message"
    )
    return sorted(row.subject for row in rows)


@pytest.mark.parametrize("volumes", ["named", "empty folders"])
def test_mail_in_the_queue(image: Image, newer: Image, operator: Database, folder: Path, volumes: str) -> None:
    """Mail that waits in the queue, or is being delivered, when a container is stopped or killed, is delivered by the same one when
    it is started again, and by one of a new image with the same volumes: each message once. An engine fills a named volume from the
    image; a folder of the host is empty, and belongs to root. The volumes of the new image serve the old one again as well."""
    if volumes == "empty folders":
        for name in ("var-spool-postfix", "var-lib-pipehandler"):
            (folder / "volumes" / name).mkdir(parents=True)
    hosts = []
    for name, each in (("old", image), ("new", newer), ("back", image)):
        hosts.append(Host(each, folder / name, operator, folder / "volumes"))
        (folder / name / "main.cf").write_text(_QUICKLY)
    old, new, back = hosts
    names = [f"{kind}-{number}" for kind in ("deferred", "held", "later") for number in range(4)]
    deferred, held_up, later = names[:4], names[4:8], names[8:]

    operator.execute("ALTER ROLE pipehandler NOLOGIN")
    with old.run():
        old.send(*deferred)
        wait_until(lambda: old.printed().count("status=deferred") >= 4, "four attempts")
        assert old.queue().count('"queue_name"') == 4
    with old.run():
        assert old.queue().count('"queue_name"') == 4
    assert subjects(operator) == []

    operator.execute("ALTER ROLE pipehandler LOGIN")
    with held(operator), old.run(signal.SIGKILL):
        old.send(*held_up)
        stuck(operator)
    with new.run(signal.SIGKILL):
        wait_until(lambda: len(subjects(operator)) >= 2, "two deliveries by the new container")
    with new.run():
        new.send(*later)
        wait_until(lambda: not new.queue(), "the empty queue")
        assert new.findings() == []
    assert subjects(operator) == sorted(names)

    operator.execute("ALTER ROLE pipehandler NOLOGIN")
    with new.run():
        new.send("last")
        wait_until(new.queue, "the message in the queue")
    operator.execute("ALTER ROLE pipehandler LOGIN")
    with back.run():
        wait_until(lambda: not back.queue(), "the empty queue")
    assert subjects(operator) == sorted([*names, "last"])
    assert not re.search(r"status=bounced|not owned by|fatal:|panic:", "".join(each.printed() for each in hosts))


def test_strangers(host: Host, operator: Database) -> None:
    """The container only receives mail: no relay, postscreen before smtpd(8), its names and limits, and TLS once there is a
    certificate."""
    (host.folder / "main.cf").write_text(_QUICKLY)
    certificate = host.folder / "letsencrypt/live/mx.example.com"
    with host.run():
        shown = host.execute("postconf", "-n")
        for line in host.execute("pipehandler", "postfix", "receive-only.main.cf").splitlines():
            if re.match(r"[a-z]", line):
                assert line in shown.splitlines()
        assert host.execute("postconf", "-M", "smtp/inet").split()[-1] == "postscreen"
        assert host.execute("postconf", "-h", "postscreen_greet_wait", "maximal_backoff_time").split() == ["1s", "2s"]
        sender = ("EHLO client.example.org", "MAIL FROM:<a@example.org>")
        assert host.dialogue(*sender, "RCPT TO:<victim@elsewhere.example>")[-1].startswith("554 5.7.1")
        assert host.dialogue("EHLO mx.example.com", sender[1], "RCPT TO:<user@example.com>")[-1].startswith("554 ")
        assert host.dialogue("EHLO client.example.org", "STARTTLS")[-1].startswith("454 ")
        answers = host.dialogue(*sender, "RCPT TO:<user@example.com>", "DATA", "Subject: stranger\r\n\r\nhello\r\n.")
        assert [answer[:3] for answer in answers] == ["250", "250", "250", "354", "250"]
        wait_until(lambda: subjects(operator) == ["stranger"], "the message")
        wait_until(lambda: "PASS NEW [198.51.100.2]" in host.printed(), "postscreen's line")
    certificate.mkdir(parents=True)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx.example.com"),
            *("-keyout", certificate / "privkey.pem", "-out", certificate / "fullchain.pem"),
        ],
        check=True,
        capture_output=True,
    )
    with host.run():
        assert host.dialogue("EHLO client.example.org", "STARTTLS")[-1].startswith("220 ")


def test_leased_addresses(image: Image, own_database: Database, folder: Path) -> None:
    """With `leased`, an address without a lease is refused in the dialogue. Postfix asks with a role and a password of its own, and
    the log does not have that."""
    own_database.execute("CREATE ROLE operator LOGIN IN ROLE pipehandler_reader, pipehandler_maintenance")
    own_database.execute(r"CREATE ROLE lookup LOGIN IN ROLE pipehandler_lookup PASSWORD 'a:b\c d%26'")
    own_database.execute("SELECT pipehandler.lease_address('user@example.com')")
    rules = own_database.server.data / "pg_hba.conf"
    rules.write_text("local all lookup scram-sha-256\n" + rules.read_text())
    own_database.execute("SELECT pg_reload_conf()")
    host = Host(
        image,
        folder / "host",
        own_database,
        folder / "volumes",
        PIPEHANDLER_RECIPIENTS="leased",
        PIPEHANDLER_LOOKUP_CONNINFO=r"lookup password='a:b\\c d%26'",
    )
    (host.folder / "main.cf").write_text(_QUICKLY)
    with host.run():
        answers = host.dialogue(
            "EHLO client.example.org",
            "MAIL FROM:<a@example.org>",
            "RCPT TO:<user@example.com>",
            "RCPT TO:<unknown@example.com>",
        )
        assert [answer[:3] for answer in answers[2:]] == ["250", "550"]
    # And when the lookup fails, which Postfix logs with the URI.
    own_database.execute("ALTER ROLE lookup NOLOGIN")
    with host.run():
        answers = host.dialogue("EHLO client.example.org", "MAIL FROM:<a@example.org>", "RCPT TO:<user@example.com>")
        assert answers[-1].startswith("451 4.3.0")
    wait_until(lambda: "passfile=" in host.printed(), "the URI in the log")
    assert "a:b" not in host.printed()


def test_arguments_run_instead(image: Image, database: Database, folder: Path) -> None:
    """With arguments the entrypoint runs them: `migrate` before a new image is started."""
    script = f'mkdir "$ROOT/run/database"; mount --bind {database.server.folder} "$ROOT/run/database"; exec chroot "$ROOT" "$@"'
    conninfo = f"host=/run/database port={database.server.port} dbname={database.name} user=postgres"
    words = [*image.entrypoint, "pipehandler", "--conninfo", conninfo, "migrate"]
    (folder / "volumes").mkdir()
    command = Container(image, folder / "container", folder / "volumes").start(script, *words)
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "nothing to do: the schema is up to date\n"), done
