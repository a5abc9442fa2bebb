"""Postfix's queue in the metrics, from a real Postfix: by name, with its oldest message; and without the right to list
it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness import account, preloaded
from harness.handler import ENVIRONMENT
from harness.mailhost import MailHost
from harness.service import wait_until
from prometheus_client.parser import text_string_to_metric_families

from pipehandler.postfix.postqueue import Queued, QueueError, listing

MESSAGE = b"From: a@example.org\nSubject: x\n\nhello\n"
DOWN = "host=127.0.0.1 port=1"


def metrics(host: MailHost) -> dict[str, float]:
    """The series about the queue, as root sees them: the name without the common prefix, and the queue."""
    done = preloaded.run_text("--config", host.handler.config, "metrics", "--config-directory", host.config)
    done.check_returncode()
    return {
        sample.name.removeprefix("pipehandler_queue_") + " ".join(["", *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(done.stdout)
        for sample in family.samples
        if sample.name.startswith("pipehandler_queue_")
    }


@pytest.fixture
def full(own: MailHost) -> MailHost:
    """A host with two deferred messages and one on hold."""
    own.handler.configure(DOWN)
    for name in ("minimal", "maximal"):
        own.postconf("-e", f"{name}_backoff_time = 600s")
    own.start()
    for number in range(3):
        own.send(MESSAGE, "a@example.org", f"{number}@example.com")
    wait_until(lambda: [each["queue_name"] for each in own.queue()] == ["deferred"] * 3, "that all are deferred")
    held = str(own.queue()[0]["queue_id"])
    subprocess.run(["postsuper", "-c", own.config, "-h", held], check=True, capture_output=True)
    return own


def test_queue(full: MailHost) -> None:
    """Waiting messages are counted by queue name, with the oldest of each."""
    found = metrics(full)
    assert found["up"] == 1
    assert {key: count for key, count in found.items() if key.startswith("messages")} == {
        "messages maildrop": 0,
        "messages incoming": 0,
        "messages active": 0,
        "messages deferred": 2,
        "messages hold": 1,
    }
    for name in ("deferred", "hold"):
        times = [float(str(each["arrival_time"])) for each in full.queue() if each["queue_name"] == name]
        assert found[f"oldest_timestamp_seconds {name}"] == min(times)
        assert time.time() - 120 < min(times) <= time.time()
    assert "oldest_timestamp_seconds active" not in found


def test_empty_queue(mail: MailHost) -> None:
    """An empty queue gives figures."""
    mail.drain()
    assert listing(str(mail.config)) == ({}, True)


def test_postfix_is_down(own: MailHost) -> None:
    """While Postfix is down its queue is unknown, and the reason includes a hint."""
    with pytest.raises(QueueError, match="`postfix start`"):
        listing(str(own.config))
    assert metrics(own) == {"up": 0}
    own.start()
    assert metrics(own)["up"] == 1


def as_account(full: MailHost, *groups: str, before: tuple[str, ...] = ()) -> tuple[int, str]:
    """List the queue as the account of the transport, without further groups, with the host's /etc/postfix.

    Returns the status, and what was printed.
    """
    program = "from pipehandler.postfix.postqueue import listing; print(listing().queues)"
    given = ["--groups", ",".join(groups)] if groups else ["--clear-groups"]
    # An account that is not root may not name the directory of another configuration.
    script = 'mount --bind "$0" /etc/postfix && exec "$@"'
    done = subprocess.run(
        [
            *("unshare", "--mount", "bash", "-c", script, str(full.config)),
            *("setpriv", "--reuid", account.NAME, "--regid", "nogroup", *given, *before),
            *(sys.executable, "-c", program),
        ],
        capture_output=True,
        text=True,
        env=ENVIRONMENT | {"PATH": os.environ["PATH"]},
        cwd="/",
    )
    return done.returncode, done.stdout + done.stderr


NO_NEW_PRIVILEGES = ("--no-new-privs",)


def test_who_may_list_it(full: MailHost) -> None:
    """Any account may, unless authorized_mailq_users forbids it; then the reason names it."""
    status, text = as_account(full)
    assert (status, "'deferred': Queued(messages=2" in text) == (0, True), text
    full.postconf("-e", "authorized_mailq_users = root")
    status, text = as_account(full)
    assert status == 1
    assert "is not allowed to view the mail queue; add this account to authorized_mailq_users" in text


def test_unit_may_list_it(full: MailHost) -> None:
    """NoNewPrivileges, as in the unit, keeps postqueue from its group; the group that the unit grants instead allows
    it."""
    status, text = as_account(full, before=NO_NEW_PRIVILEGES)
    assert status == 1
    assert "NoNewPrivileges removes it" in text
    status, text = as_account(full, "postdrop", before=NO_NEW_PRIVILEGES)
    assert (status, "'deferred': Queued(messages=2" in text) == (0, True), text


# A replacement for postqueue.


def instead(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Another program with the name postqueue."""
    program = folder / "postqueue"
    program.write_text(f"#!/bin/bash\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


LINE = '{"queue_name": "deferred", "queue_id": "X", "arrival_time": 1790000000, "message_size": 9, "recipients": [%s]}'


def test_long_queue(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue of 100,000 messages, one of them to 10,000 recipients, is added up line by line."""
    one, many = LINE % '{"address": "a@example.com"}', LINE % ", ".join(['{"address": "\xff@example.com"}'] * 10_000)
    (folder / "many").write_text(many + "\n", encoding="latin-1")
    instead(folder, monkeypatch, f"yes '{one}' | head -n 99999; cat {folder}/many")
    assert listing() == ({"deferred": Queued(100_000, 1790000000.0)}, True)


@pytest.mark.parametrize(
    "script", ["sleep 3600", "exec sleep 3600", f"echo '{LINE % ''}'; exec sleep 3600", "printf '{'; exec sleep 3600"]
)
def test_one_that_does_not_end(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """It is killed, and its output until then is discarded."""
    instead(folder, monkeypatch, script)
    with pytest.raises(QueueError, match="not finished within 1 s"):
        listing(seconds=1)


@pytest.mark.parametrize("script", ["echo nonsense", "echo '{}'", "echo '[]'", "echo '{\"queue_name\": 1}'"])
def test_one_that_says_something_else(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Output that is not a queue listing is discarded."""
    instead(folder, monkeypatch, script)
    with pytest.raises(QueueError, match="one JSON object for each message"):
        listing()


def test_without_postfix(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Without Postfix, the reason reports that."""
    monkeypatch.setattr("pipehandler.postfix.postconf.shutil.which", lambda *_, **__: None)
    with pytest.raises(QueueError, match="not installed here"):
        listing()
