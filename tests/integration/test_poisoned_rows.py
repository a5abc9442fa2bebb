"""Rows that pipehandler never writes, left by a superuser or a role that may store mail: every reader gets past
them."""

import json
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from harness.console import Console
from harness.database import Database
from harness.submission import submission

from pipehandler.mail.parsed import ParsedMessage
from pipehandler.store import listing, messages
from pipehandler.store.health import health
from pipehandler.store.message_store import MessageStore
from pipehandler.store.messages import UnreadableMessage
from pipehandler.store.readable import tolerant_rows
from pipehandler.store.stream import follow

EX_DATAERR = 65
TIMES = ("infinity", "-infinity", "4000-01-01 BC", "200000-01-01", "0001-01-01 BC", "10000-01-01")
EDGES = ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59+00")
JSON = (
    *(
        "1",
        "null",
        "true",
        '"text"',
        "{}",
        "[1]",
        "[null]",
        "[[]]",
        "[[[]]]",
        '[["a"]]',
        '[["a", 1]]',
        '[["a", "b", "c"]]',
        "[{}]",
    ),
    *(
        '{"a": null}',
        '[{"name": 1, "address": 2}]',
        '[{"name": "a"}]',
        '[{"name": null, "address": null, "group": null}]',
    ),
    *(
        '[{"code": 1, "where": 2, "detail": 3}]',
        '[{"code": null}]',
        '"\\\\u0000"',
        "1e400",
        "[1e400]",
        "9" * 5_000,
        "[" * 2_000 + "]" * 2_000,
    ),
    *('{"spf": 1e400}', '{"spf": ' + "[" * 500 + "]" * 500 + "}", '{"a\\nFORGED": "b\\nFORGED"}'),
)
JSON_COLUMNS = (
    *(
        "from_list",
        "sender_list",
        "reply_to_list",
        "to_list",
        "cc_list",
        "bcc_list",
        "header",
        "authentication",
        "defects",
        "report",
    ),
)
FUNCTIONS = (
    "SELECT * FROM pipehandler.inbox",
    "SELECT * FROM pipehandler.delivery_under_current_rules",
    "SELECT pipehandler.renew(ARRAY[2])",
    "SELECT * FROM pipehandler.deliveries_after('')",
    "SELECT * FROM pipehandler.health()",
    "SELECT * FROM pipehandler.data_status()",
    "SELECT * FROM pipehandler.apply_rules()",
    "SELECT * FROM pipehandler.expire()",
    "SELECT * FROM pipehandler.remove_leases()",
)
"""All functions that read stored mail, besides those that are called with a message."""
REPORTS = (
    '{"type": 1}',
    '{"type": "x", "recipients": "x"}',
    '{"type": "x", "recipients": [1]}',
    '{"type": "x", "recipients": [{"action": 1}]}',
    '{"type": "x", "disposition": ["x"]}',
)
ARRAYS = ("{NULL}", "{{a},{b}}", "[5:6]={a,b}", "{}")


@pytest.fixture
def poisoned(database: Database) -> Database:
    """Three parsed messages and one failed one, without constraints."""
    store = MessageStore(database.conninfo)
    for number in range(3):
        store.ingest(submission(b"Message-ID: <%d@example.org>\n\nbody\n" % number, f"a{number}@example.com"))
    store.ingest(submission(b"broken", "b@example.com", parsed=ParsedMessage(error="not parsed")))
    store.close()
    # Of a table before those of its partitions.
    while rows := database.rows(
        "SELECT conrelid::regclass::text AS name, conname FROM pg_constraint"
        " WHERE connamespace = 'pipehandler'::regnamespace AND contype = 'c' AND conrelid <> 0 AND coninhcount = 0"
    ):
        for row in rows:
            database.execute(f'ALTER TABLE {row.name} DROP CONSTRAINT "{row.conname}"')
    for table, columns in {
        "delivery": "sender mail_host ingress received_at",
        "message": "size sha256 parser defects",
    }.items():
        for column in columns.split():
            database.execute(f"ALTER TABLE pipehandler.{table} ALTER {column} DROP NOT NULL")
    return database


def read_everything(database: Database, name: str) -> None:
    """Read the message with the id `name`, the lists and the stream, as programs do."""
    with closing(MessageStore(database.admin)) as store:
        with suppress(UnreadableMessage):
            message = messages.message(store, name)
            json.dumps([str(getattr(message, field)) for field in message.__slots__])
        listing.deliveries(store)
        health(store)
    with closing(follow(database.admin)) as stream:
        assert next(delivery for delivery in stream if delivery.recipient == "a2@example.com")


def spoil(database: Database, table: str, column: str, value: object) -> None:
    """Put a value into the second row."""
    condition = "id = 2" if table == "delivery" else "id = (SELECT message FROM pipehandler.delivery WHERE id = 2)"
    database.execute(f"UPDATE pipehandler.{table} SET {column} = %s WHERE {condition}", value)


def test_every_json_column_with_every_shape(poisoned: Database) -> None:
    """JSON of any shape, size and depth in any column: the message is shown, or refused with the column's name."""
    for column in JSON_COLUMNS:
        for shape in JSON:
            spoil(poisoned, "message", column, shape)
            read_everything(poisoned, "2")
        spoil(poisoned, "message", column, None if column == "report" else "{}" if column == "authentication" else "[]")
    with closing(MessageStore(poisoned.admin)) as store:
        assert messages.message(store, "2").header == []


WITH_ATTACHMENT = (
    b"Message-ID: <with@example.org>\nContent-Type: multipart/mixed; boundary=b\n\n"
    b"--b\nContent-Type: image/gif; name=x\n\nGIF\n--b--\n"
)


@pytest.mark.parametrize("column", [*JSON_COLUMNS, "parameters"])
def test_every_function_with_every_shape(poisoned: Database, column: str) -> None:
    """No function of the schema fails on JSON of another shape in a column; parsing the bytes again repairs it."""
    request = submission(WITH_ATTACHMENT, "c@example.com")
    again = submission(WITH_ATTACHMENT, "d@example.com")
    with closing(MessageStore(poisoned.admin)) as store:
        (stored,) = store.ingest(request)
        table, key = ("attachment", "message") if column == "parameters" else ("message", "id")
        statement = f"SELECT {column} AS value FROM pipehandler.{table} WHERE {key} = %s"
        (right,) = store.rows(statement, [stored.message])
        _, parsed, *rest = request.arguments()
        for shape in JSON:
            store.rows(
                f"UPDATE pipehandler.{table} SET {column} = %s WHERE {key} = %s RETURNING 1 AS one",
                [shape, stored.message],
            )
            store.rows("SELECT pipehandler.set_retention(%s)", [json.dumps([{"sender": shape[:50], "keep": 90_000}])])
            for call in FUNCTIONS:
                store.script(call)
            store.ingest(again)
            tolerant_rows(
                store,
                "SELECT * FROM pipehandler.reparse(%s::uuid, %s::jsonb, %s, %s, %b)",
                [stored.message, parsed, rest[0], rest[1], rest[4]],
            )
            assert store.rows(statement, [stored.message]) == [right], shape
        messages.message(store, stored.message)


@pytest.mark.parametrize("report", REPORTS)
def test_a_report_of_another_shape_is_refused(poisoned: Database, report: str) -> None:
    """A value without the form that `show` prints is named in an error, before anything is printed."""
    spoil(poisoned, "message", "report", report)
    with closing(MessageStore(poisoned.admin)) as store, pytest.raises(UnreadableMessage, match="report"):
        messages.message(store, "2")


TIME_COLUMNS = [("delivery", "received_at"), ("message", "received_at"), ("message", "date"), ("delivery", "stored_at")]


@pytest.mark.parametrize(("table", "column"), TIME_COLUMNS)
def test_every_time(poisoned: Database, table: str, column: str) -> None:
    """Times that no datetime can hold, and NULL, stop no reader; those at the ends of the calendar are shown."""
    poisoned.execute("ALTER TABLE pipehandler.message ALTER received_at DROP NOT NULL")
    poisoned.execute("ALTER TABLE pipehandler.delivery ALTER stored_at DROP NOT NULL")
    for value in (*TIMES, *EDGES, None):
        spoil(poisoned, table, column, value)
        read_everything(poisoned, "2")


def test_others(poisoned: Database) -> None:
    """NULL in columns that are never NULL, offsets of weeks, arrays of other shapes."""
    for column in ("sender", "mail_host", "ingress", "received_at"):
        spoil(poisoned, "delivery", column, None)
        read_everything(poisoned, "2")
    for column in ("size", "sha256", "parser", "defects"):
        spoil(poisoned, "message", column, None)
        read_everything(poisoned, "2")
    for column in ("in_reply_to", "reference_ids"):
        for value in ARRAYS:
            spoil(poisoned, "message", column, value)
            read_everything(poisoned, "2")


COMMANDS = [
    *(["list"], ["list", "--json"], ["show", "2"], ["show", "--json", "2"], ["show", "1"], ["raw", "2"]),
    *(
        ["quarantine", "list"],
        ["quarantine", "list", "--json"],
        ["quarantine", "list", "--reasons"],
        ["quarantine", "show", "4"],
    ),
    *(
        ["quarantine", "export", "--all", "--to", "FOLDER/export"],
        ["quarantine", "drop", "4"],
        ["quarantine", "drop", "--yes", "4"],
    ),
    *(
        ["reparse", "--all", "--verbose"],
        ["reparse", "--json", "2", "4"],
        ["address", "list"],
        ["expire", "--dry-run"],
        ["expire"],
    ),
    *(["status"], ["status", "--json"], ["metrics"]),
]


@pytest.fixture
def console(poisoned: Database, folder: Path) -> Console:
    """Every row but the first and the last delivery is poisoned: the parsed message 2, and the failed one, 4."""
    spoil(poisoned, "delivery", "received_at", "infinity")
    spoil(poisoned, "message", "date_offset", 32767)
    for number, defects in ((2, "[1]"), (4, "7")):
        poisoned.execute(
            "UPDATE pipehandler.message SET from_list = '[1]', header = '{}', defects = %s, date = '200000-01-01', received_at = '-infinity'"
            " WHERE id = (SELECT message FROM pipehandler.delivery WHERE id = %s)",
            defects,
            number,
        )
    poisoned.execute("SELECT pipehandler.lease_address('x@example.com'), pipehandler.lease_address('y@example.com')")
    poisoned.execute("UPDATE pipehandler.address SET created_at = 'infinity' WHERE lease = 1")
    console = Console(folder, poisoned)
    text = f"database.admin_conninfo = '{poisoned.admin}'\ndatabase.conninfo = '{poisoned.admin}'\nlog.syslog = false\n"
    console.config.write_text(f"{text}state.directory = '{folder}'\n")
    return console


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_commands(console: Console, arguments: list[str]) -> None:
    """No command ends with a traceback: a row that cannot be read is named on stderr, and the others are shown."""
    words = [word.replace("FOLDER", str(console.folder)) for word in arguments]
    done = console.run(*words, stdin=b"n\n")
    output = done.output.decode()
    assert "Traceback" not in done.errors + output
    refused = (arguments[0] == "show" and "2" in arguments) or arguments == ["quarantine", "show", "4"]
    aborted = arguments == ["quarantine", "drop", "4"]
    not_flowing = arguments[0] == "status"  # there is no Postfix
    assert done.status == (EX_DATAERR if refused else 1 if aborted or not_flowing else 0), done
    if refused:
        assert "Error: message" in done.errors
        assert " cannot be read: " in done.errors
    if arguments[0] == "list":
        assert done.errors.startswith("delivery 2 cannot be read and is left out: received_at is infinity\n")
        assert "a0@example.com" in output
        assert "a2@example.com" in output
    if arguments[:2] == ["address", "list"]:
        assert done.errors == "lease 1 cannot be read and is left out: created_at is infinity\n"
        assert "y@example.com" in output
    if arguments[1:2] == ["export"]:
        assert len(list((console.folder / "export").iterdir())) == 1
    if arguments[0] == "metrics":
        assert "pipehandler_database_up 1.0" in output
    if "--json" in arguments and arguments[0] == "status":
        assert json.loads(output)["database"]["quarantined"] == 1


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["text", "json"])
def test_follow_gets_past(console: Console, arguments: list[str]) -> None:
    """The stream names the row that it leaves out, once, and continues."""
    running = console.start("follow", "--from-start", *arguments)
    assert running.stdout is not None
    lines = [running.stdout.readline().decode() for _ in range(2)]
    time.sleep(0.3)
    running.terminate()
    _, errors = running.communicate()
    assert ["a0@example.com" in lines[0], "a2@example.com" in lines[1]] == [True, True]
    assert errors.decode().count("delivery 2 cannot be read and is left out: ") == 1


def test_reparse_repairs(console: Console) -> None:
    """The columns parsed from the bytes are written again, so the message can be read."""
    assert console.run("reparse", "2").status == 0
    console.database.execute("UPDATE pipehandler.message SET received_at = now()")
    with closing(MessageStore(console.database.admin)) as store:
        assert messages.message(store, "2").from_list == []
