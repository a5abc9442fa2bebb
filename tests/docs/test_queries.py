"""The queries and programs of the pages run as written, with the role of a reader; the log line looks as shown."""

import re
import subprocess
import sys

import psycopg
import pytest
from harness.database import Database
from harness.handler import Handler
from harness.service import bounded

from .pages import Block, all_blocks, blocks


def _place(block: Block) -> str:
    return block.place


@pytest.fixture
def two_messages(database: Database, handler: Handler) -> None:
    """Mail that the queries find."""
    both = (
        b"Received: by mx.example.net; Mon, 02 Mar 2026 07:30:02 +0900\nFrom: Ben <news@Sender.Example>\nSubject: hello\n"
        b"Message-ID: <both@sender.example>\nList-Id: <garden.sender.example>\n"
        b"Content-Type: multipart/related; boundary=b\n\n--b\nContent-Type: text/html\n\n<img src='cid:a@b'>\n"
        b"--b\nContent-Type: image/gif\nContent-ID: <a@b>\n\nGIF89a\n--b--\nepilogue\n"
    ).replace(b"List-Id", b"List-Unsubscribe: <https://sender.example/u>\nList-Id")
    answer = (
        b"From: user@example.com\nMessage-ID: <2@example.com>\nIn-Reply-To: <both@sender.example>\nDate: never\n\nok\n"
    )
    for message in (both, answer):
        assert handler.deliver(message, "user@example.com").status == 0


@pytest.fixture
def reports(handler: Handler, two_messages: None) -> None:
    """A bounce, a complaint and an invitation, to an alias."""
    part = b"Message-ID: <%d@example.net>\nContent-Type: multipart/report; boundary=b\n\n--b\nContent-Type: %b\n\n%b\n--b--\n"
    for number, (kind, content) in enumerate(
        [
            (b"message/delivery-status", b"Reporting-MTA: dns; mx\n\nFinal-Recipient: rfc822; a@b\nAction: failed"),
            (b"message/feedback-report", b"Feedback-Type: abuse"),
            (b"text/calendar; method=REQUEST", b"BEGIN:VCALENDAR \xff\0"),
        ]
    ):
        raw = part % (number, kind, content)
        assert handler.deliver(raw, "user@example.com", original_recipient="sales@example.com").status == 0


@pytest.mark.parametrize("query", all_blocks("sql"), ids=_place)
@pytest.mark.usefixtures("two_messages", "reports")
def test_queries(database: Database, query: Block) -> None:
    """Every query runs for the role of a reader, or of maintenance if it deletes, and returns rows."""
    user = "upkeep" if "remove_" in query.text else "reader"
    with psycopg.connect(database.server.conninfo(database.name, user=user)) as connection:
        rows = connection.execute(query.text).fetchall()
    assert rows or "failed" in query.text


@pytest.mark.parametrize("program", all_blocks("python"), ids=_place)
def test_programs(database: Database, program: Block, two_messages: None) -> None:
    """Every program prints what is stored, and waits for more."""
    conninfo = database.server.conninfo(database.name, user="reader")
    text = program.text.replace("host=/run/postgresql dbname=mail", conninfo)
    assert conninfo in text
    with subprocess.Popen([sys.executable, "-u", "-c", text], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        with bounded(running):
            assert [running.stdout.readline(), running.stdout.readline()] == ["hello\n", "None\n"]
        assert running.poll() is None
        running.kill()


def test_log_line(handler: Handler) -> None:
    """docs/outcomes.md shows a log line of a delivery, with all its keys in their order."""
    (shown,) = blocks("docs/outcomes.md", "text")
    message = b"From: a@example.org\nMessage-ID: <picture@sender.example>\n\nok\n"
    assert handler.deliver(message, queue_id="4jX0XQ66FjzJ9Ll").status == 0
    (logged,) = handler.log_lines()
    assert re.findall(r"(\w+)=", shown.text) == re.findall(r"(\w+)=", logged)
