"""Faults on the mail host: whatever fails, a real Postfix keeps the message and delivers it later, once."""

import re
import signal
import socket
import subprocess
import sys

import pytest
from harness import account
from harness.database import Database
from harness.installation import Installation
from harness.mailhost import MailHost
from harness.milter import Milter
from harness.service import wait_until

from pipehandler.postfix import client
from pipehandler.postfix.templates import PACKAGES

MESSAGE = (
    b"From: a@example.org\nDate: Mon, 02 Mar 2026 07:30:00 +0900\nSubject: x\nMessage-ID: <1@example.org>\n\nhello\n"
)
TO = "user@example.com"


def count(database: Database) -> int:
    """The number of stored deliveries."""
    return int(database.value("SELECT count(*) FROM pipehandler.delivery"))


def test_database_down_then_up(own: MailHost, own_database: Database) -> None:
    """While the database is down mail is deferred, and once it is back the mail is delivered once, without
    intervention."""
    own.handler.configure(own_database.conninfo)
    own.start()
    own_database.server.stop(signal.SIGQUIT)
    own.send(MESSAGE, "a@example.org", TO)
    own.wait_for(r"dsn=4\.3\.0, status=deferred \(message store unavailable")
    own_database.server.start()
    own.drain()
    statuses = [attempt["status"] for attempt in own.deliveries(TO)]
    assert set(statuses[:-1]) == {"deferred"}
    assert statuses[-1] == "sent"
    assert count(own_database) == 1


BROKEN = {
    "the interpreter is gone": (r"argv=\S+", "argv=/nonexistent/python"),
    "the interpreter is no program": (r"argv=\S+", "argv=/etc/passwd"),
    "the package is gone": (rf"{re.escape(PACKAGES)} deliver", "/nonexistent deliver"),
    "the interpreter crashes": (r"argv=.*", "argv=/bin/sh -c 'kill -SEGV $$'"),
    "uncaught exception": (r"argv=.*", "argv=/bin/sh -c 'exit 1'"),
    "another option of the interpreter": (r" -I ", " --no-such-option "),
}


@pytest.mark.parametrize("how", BROKEN)
def test_broken_environment(own: MailHost, database: Database, how: str) -> None:
    """A broken virtual environment defers mail, which is delivered after the repair."""
    master = own.config / "master.cf"
    good = master.read_text()
    broken = re.sub(BROKEN[how][0], BROKEN[how][1], good)
    assert broken != good
    master.write_text(broken)
    own.start()
    own.send(MESSAGE, "a@example.org", TO)
    own.wait_for("status=(deferred|bounced)")
    assert {attempt["status"] for attempt in own.deliveries(TO)} == {"deferred"}
    assert {attempt["dsn"] for attempt in own.deliveries(TO)} == {"4.3.0"}

    master.write_text(good)
    own.reload()
    own.flush()
    own.drain()
    assert count(database) == 1


@pytest.mark.parametrize("name", ["__init__.py", "fence.py", "handover.py", "ingress/pipe.py"])
def test_damaged_file(own: MailHost, database: Database, name: str) -> None:
    """A file of ours that is empty or truncated defers mail: nothing is sent before it is stored."""
    with account.folder("pipehandler-installation-") as folder:
        installation = Installation(folder)
        master = own.config / "master.cf"
        text = master.read_text().replace(PACKAGES, str(installation.packages))
        master.write_text(text.replace(f"argv={sys.executable}", f"argv={installation.python}"))
        own.start()
        file = installation.packages / "pipehandler" / name
        content = file.read_bytes()
        for number, octets in enumerate((0, len(content) // 2)):
            with installation.damaged(file, content[:octets]):
                to = f"{number}@example.com"
                own.send(MESSAGE, "a@example.org", to)
                own.wait_for(rf"to=<{to}>.* status=(deferred|sent|bounced)")
                statuses = [attempt["status"] for attempt in own.deliveries(to)]
                stored = database.value("SELECT count(*) FROM pipehandler.delivery WHERE recipient = %s", to)
                assert "bounced" not in statuses
                assert ("sent" in statuses) == bool(stored)
        own.flush()
        own.drain()
    assert count(database) == 2


def test_damaged_client(own: MailHost, database: Database) -> None:
    """A hand-over client that is missing, empty or truncated defers mail; with the whole file it is delivered."""
    path = own.folder / "client"
    own.use_client(path)
    own.start()
    whole = path.read_bytes()
    for number, content in enumerate([None, b"", whole[:64], whole[:-4096], whole[:4096] + bytes(len(whole) - 4096)]):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
            path.chmod(0o755)
        to = f"{number}@example.com"
        own.send(MESSAGE, "a@example.org", to)
        own.wait_for(rf"to=<{to}>.* status=(deferred|sent|bounced)")
        assert {attempt["status"] for attempt in own.deliveries(to)} == {"deferred"}
    assert count(database) == 0
    path.unlink()
    client.install(str(path))
    own.flush()
    own.drain()
    assert count(database) == 5


def test_time_limit(own: MailHost, database: Database) -> None:
    """A handler that Postfix kills at the transport's time limit has deferred its message."""
    own.add("main.cf", "pipehandler_time_limit = 1s\n")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        own.handler.configure(f"host=127.0.0.1 port={deaf.getsockname()[1]} dbname=x user=x")
        own.start()
        own.send(MESSAGE, "a@example.org", TO)
        own.wait_for(r"status=deferred \(Command time limit exceeded")
    own.handler.configure(database.conninfo)
    own.drain()
    assert count(database) == 1


def test_without_the_filter_mail_would_bounce(own: MailHost) -> None:
    """The status filter is what keeps a broken interpreter from bouncing: without it Postfix returns the mail."""
    master = own.config / "master.cf"
    without = re.sub(r" -o pipe_delivery_status_filter=\S+", "", master.read_text())
    master.write_text(re.sub(r"argv=\S+", "argv=/bin/false", without))
    own.start()
    own.send(MESSAGE, "a@example.org", TO)
    own.wait_for("status=bounced")
    assert own.deliveries(TO)[0]["dsn"] == "5.3.0"


def test_too_large_bounces_by_policy(own: MailHost, database: Database) -> None:
    """Only a message above limits.message_size is bounced, with 5.3.4."""
    own.handler.configure(database.conninfo, limits={"message_size": 1024})
    own.start()
    own.send(MESSAGE + b"x\n" * 1000, "", TO)
    own.wait_for("status=bounced")
    assert own.deliveries(TO)[0]["dsn"] == "5.3.4"
    assert count(database) == 0


def test_unreadable_configuration(own: MailHost, database: Database) -> None:
    """A configuration that the handler's account may not read defers mail with 4.3.5."""
    own.handler.config.chmod(0o600)
    own.start()
    own.send(MESSAGE, "a@example.org", TO)
    own.wait_for("status=deferred")
    assert own.deliveries(TO)[0]["dsn"] == "4.3.5"
    own.handler.config.chmod(0o644)
    own.drain()
    assert count(database) == 1


def test_milter(own: MailHost, database: Database) -> None:
    """A message changed by a Milter is stored as changed, though Postfix declares a greater size than it sends; a
    defect records it."""
    milter = Milter("Authentication-Results", "mx.example.net; spf=pass")
    own.handler.configure(database.conninfo, authentication={"trusted_authserv_ids": ["MX.Example.net"]})
    own.add("main.cf", f"smtpd_milters = inet:127.0.0.1:{milter.port}\n")
    own.start()
    own.send(MESSAGE, "a@example.org", TO)
    own.drain()
    milter.close()
    (row,) = database.rows(
        "SELECT defects, authentication, raw FROM pipehandler.message JOIN pipehandler.raw_message ON message = id"
    )
    assert b"Authentication-Results: mx.example.net; spf=pass\n" in row.raw
    assert row.raw.endswith(MESSAGE.partition(b"\n")[2])
    assert row.authentication == {"spf": "pass"}
    assert [defect["code"] for defect in row.defects] in ([], ["smaller-than-declared"])


def test_taken_up_again_after_its_status_was_lost(own: MailHost, database: Database) -> None:
    """postsuper -r adds a Received field; a message without Message-ID is still the same delivery."""
    own.postconf("-e", "local_header_rewrite_clients=", "always_add_missing_headers=no")
    wrapper = own.folder / "wrapper"
    wrapper.write_text('#!/bin/sh\n"$@"\nkill -KILL $$\n')
    wrapper.chmod(0o755)
    master = own.config / "master.cf"
    good = master.read_text()
    master.write_text(good.replace("argv=", f"argv={wrapper} "))
    own.start()
    own.send(MESSAGE.replace(b"Message-ID: <1@example.org>\n", b""), "a@example.org", TO)
    own.wait_for("status=deferred")
    assert count(database) == 1

    master.write_text(good)
    own.reload()
    subprocess.run(["postsuper", "-c", own.config, "-r", "ALL"], check=True, capture_output=True)
    kick = ["postkick", "-c", str(own.config), "public", "pickup", "W"]  # it would take up to a minute
    wait_until(lambda: not subprocess.run(kick).returncode, "a pickup that was not just ending")
    own.drain()
    assert "stored before" in own.deliveries(TO)[-1]["text"]
    assert count(database) == 1
    raw = bytes(database.value("SELECT raw FROM pipehandler.raw_message"))
    assert b"Message-ID" not in raw
    assert b"from userid" not in raw
