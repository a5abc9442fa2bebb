"""The operator's day: mail does not arrive, and the commands of the README show the reason, in a real setup, and fix
it.

Everything here is what `pipehandler status`, `check`, `quarantine` and `reparse` print; nothing is looked up elsewhere.
"""

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from harness import preloaded
from harness.database import Database
from harness.mailhost import MailHost
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.service import wait_until

TO = "user@example.com"


class Operator(NamedTuple):
    """An operator with the README and a mail host."""

    host: MailHost
    database: Database

    def command(self, *arguments: str, conninfo: str | None = None) -> tuple[int, str]:
        """Run pipehandler; returns its status and its output."""
        options = ["--conninfo", conninfo] if conninfo else []
        done = preloaded.run_text("--config", self.host.handler.config, *options, *arguments)
        return done.returncode, done.stdout + done.stderr

    def status(self) -> str:
        """The output of `status`."""
        code, text = self.command("status", "--config-directory", str(self.host.config))
        assert code == (0 if text.startswith("Mail is flowing: ") else 1)
        return text

    def check(self) -> str:
        """The findings of `check`; this server is configured for tests, without fsync, which is also reported."""
        code, text = self.command("check", "--config-directory", str(self.host.config))
        assert code == 1
        return text

    def send(self, number: int) -> None:
        """Send a message, and wait until Postfix has tried to deliver it."""
        before = len(self.host.deliveries(TO))
        message = f"From: a@example.org\nSubject: {number}\nMessage-ID: <{number}@example.org>\n\nhello\n".encode()
        self.host.send(message, "a@example.org", TO)
        wait_until(lambda: len(self.host.deliveries(TO)) > before, "the delivery")

    def arrived(self) -> int:
        """The number of stored messages, once the queue is empty."""
        self.host.flush()
        self.host.drain()
        return int(self.database.value("SELECT count(*) FROM pipehandler.delivery"))


@pytest.fixture
def operator(own: MailHost, database: Database) -> Operator:
    """A running mail host, and its operator."""
    own.start()
    return Operator(own, database)


def test_database_down(own: MailHost, own_database: Database) -> None:
    """The database is down: the first lines of status report it, since when, and how many messages wait."""
    own.handler.configure(own_database.conninfo)
    own.start()
    operator = Operator(own, own_database)
    operator.send(1)
    own_database.server.stop(signal.SIGQUIT)
    operator.send(2)
    text = operator.status()
    assert re.search(r"^Database:   DOWN: .*connection to server .* failed", text, re.MULTILINE)
    assert re.search(r"^Queue: +1 (active|deferred), the oldest from ", text, re.MULTILINE)
    assert re.search(r"^store_unavailable: (\d+) in the last hour, \1 in the last day, ", text, re.MULTILINE)
    assert "start the server" in operator.check()
    own_database.server.start()
    assert operator.arrived() == 2


def test_wrong_rights(operator: Operator) -> None:
    """The handler's role lacks a privilege: status shows which, check prints the line that grants it again."""
    operator.database.execute("REVOKE EXECUTE ON FUNCTION pipehandler.ingest FROM pipehandler_ingest")
    operator.send(1)
    assert "store_unavailable 42501: " in operator.status()
    assert "permission denied for function ingest" in operator.status()
    (fix,) = re.findall(r"fix: +(GRANT EXECUTE .*)", operator.check())
    operator.database.server.psql(operator.database.name, fix)
    assert operator.arrived() == 1
    assert "rights-too-few" not in operator.check()


def test_wrong_rights_on_the_host(operator: Operator) -> None:
    """The handler's account cannot read the configuration: check prints the line that lets it."""
    operator.host.handler.config.chmod(0o600)
    operator.send(1)
    found = operator.check()
    (fix,) = re.findall(r"fix: +(ch\w+ .*pipehandler\.toml.*)", found)
    subprocess.run(fix, shell=True, check=True)
    assert operator.arrived() == 1


@pytest.mark.usefixtures("_postfix")
def test_full_disk_of_the_database(own: MailHost, folder: Path) -> None:
    """The disk of the database is full: status reports it, with a hint."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120m,mode=0755", "tmpfs", folder], check=True)
    try:
        server = PostgreSQL(
            folder / "server", VERSION, {**FAST, "max_wal_size": "32MB", "min_wal_size": "32MB"}
        ).start()
        with Database.fresh(server) as database:
            own.handler.configure(database.conninfo)
            own.start()
            operator = Operator(own, database)
            operator.send(1)
            with (folder / "ballast").open("wb", buffering=0) as ballast:
                try:
                    while True:
                        ballast.write(bytes(1 << 12))
                except OSError:
                    pass
            message = b"Subject: large\n\n" + os.urandom(300_000).hex().encode()
            own.send(re.sub(rb"(.{70})", rb"\1\n", message), "a@example.org", TO)
            own.wait_for("status=deferred")
            text = operator.status()
            assert re.search(r"^store_full 53100: (\d+) in the last hour, \1 in the last day, ", text, re.MULTILINE), (
                text
            )
            assert "No space left on device" in text
            assert "free space on the disk of the database" in text
            (folder / "ballast").unlink()
            assert operator.arrived() == 2
        server.stop()
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_broken_environment(operator: Operator) -> None:
    """The interpreter is missing: no attempt is recorded, Postfix's queue shows the reason, and check prints how to fix
    it."""
    master = operator.host.config / "master.cf"
    master.write_text(re.sub(r"argv=\S+", "argv=/opt/nowhere/python", master.read_text()))
    operator.host.reload()
    operator.send(1)
    text = operator.status()
    assert "no delivery attempts in the last day" in text
    assert re.search(r"^Queue: +1 (active|deferred)", text, re.MULTILINE)
    assert re.search(r"^ +1 waiting: .*/opt/nowhere/python: No such file or directory$", text, re.MULTILINE)
    found = operator.check()
    assert "/opt/nowhere/python is missing or not executable" in found
    (fix,) = re.findall(r"fix: +(postconf .*)", found)
    subprocess.run(fix, shell=True, check=True)
    # After a reload Postfix leaves a message alone for a minute that was just in delivery.
    wait_until(lambda: [each["queue_name"] for each in operator.host.queue()] == ["deferred"], "the end of an attempt")
    operator.host.reload()
    assert operator.arrived() == 1


def test_what_could_not_be_parsed(operator: Operator) -> None:
    """Messages that could not be parsed are shown in status, and in quarantine by reason, and are parsed after a
    fix."""
    operator.database.execute("ALTER TABLE pipehandler.message ADD CONSTRAINT odd CHECK (subject IS NULL) NOT VALID")
    operator.send(1)
    operator.send(2)
    assert operator.arrived() == 2
    text = operator.status()
    assert re.search(r"^Quarantine: 2, the oldest from ", text, re.MULTILINE)
    assert "quarantined: 2 in the last hour" in re.sub(r" \d{5}:", ":", text)
    upkeep = operator.database.server.conninfo(operator.database.name, user="upkeep")
    code, listed = operator.command("quarantine", "list", conninfo=upkeep)
    assert code == 0
    assert listed.count("the data was refused (CheckViolation)") == 2
    operator.database.execute("ALTER TABLE pipehandler.message DROP CONSTRAINT odd")
    code, text = operator.command("reparse", conninfo=upkeep)
    assert code == 0, text
    assert operator.database.rows("SELECT DISTINCT state FROM pipehandler.message") == [("parsed",)]
    assert re.search(r"^Quarantine: empty", operator.status(), re.MULTILINE)
    assert "empty" in operator.command("quarantine", "list", conninfo=upkeep)[1]


def test_how_many_for_which_reason(operator: Operator) -> None:
    """The number deferred in the last hour, by reason: one line for each, with a queue id to look for."""
    good = operator.host.handler.config.read_text()
    operator.host.handler.config.write_text(good + "[limits]\nnonsense = 1\n")
    operator.send(1)
    operator.host.handler.config.write_text(good)
    assert operator.arrived() == 1
    text = operator.status()
    assert re.search(r"^misconfigured: 1 in the last hour, .*\n.*limits.nonsense is not a key", text, re.MULTILINE)
    operator.database.execute("ALTER FUNCTION pipehandler.ingest RENAME TO away")
    operator.send(2)
    text = operator.status()
    operator.database.execute("ALTER FUNCTION pipehandler.away RENAME TO ingest")
    assert re.search(
        r"^store_unavailable 42883: \d+ in the last hour, .*, queue id (\w+)\n.*does not exist", text, re.MULTILINE
    )
    assert operator.arrived() == 2
