"""Poisoned rows: every argument of pipehandler.ingest with every extreme and every wrong shape, by the handler's role;
and every column of every table, by a superuser, without constraints.

Every reader can read whatever the handler's role can store. A row damaged by a superuser stops no reader and no
command: the row is left out and named, and the genuine mail around it is shown.
"""

import json
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from harness import account
from harness.console import Console
from harness.database import Database
from harness.handler import ENVIRONMENT
from harness.postgresql import FAST, PostgreSQL
from harness.service import bounded
from harness.submission import INGEST, MESSAGE, submission

from pipehandler.mail.parsed import ParsedMessage
from pipehandler.store import listing, messages
from pipehandler.store.errors import DataRefused, StoreError
from pipehandler.store.message_store import MessageStore
from pipehandler.store.messages import UnreadableMessage

from .ledger import Mode, Row, Scale
from .retried import REPORTS

_TEXTS = ("", "x\nFORGED", "\x01\x1b[2J", "\u2028\u202e\U000e0041", "é" * 3_000, "x" * 1_000_000, "%s{0}$1\\u0000")
_TIMES = (
    *("infinity", "-infinity", "4000-01-01 BC", "200000-01-01", "0001-01-01 BC", "10000-01-01"),
    *("0001-01-01 00:00:00+00", "9999-12-31 23:59:59+00", "1970-01-01", "294276-12-31"),
)
_NUMBERS = (0, -1, 1, 32_767, -32_768, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_JSON: tuple[Any, ...] = (
    *(
        None,
        True,
        0,
        -1,
        1e300,
        2**64,
        "",
        "x",
        "x\nFORGED",
        [],
        [None],
        [1],
        ["x"],
        [[]],
        [[None]],
        [["a"]],
        [["a", 1]],
    ),
    *([["a", "b"]], [["a", "b", "c"]], [[[["x"]]]], {}, [{}], {"x": 1}, [{"x": 1}], {"a": {"b": None}}, [{"code": 1}]),
    *([{"name": 1, "address": 2, "group": 3}], [{"name": "a"}], [{"name": "\u2028", "address": "x\ny", "group": ""}]),
    *([{"recipient": "a@example.com"}], [{"recipient": None}], [{"recipient": 1, "original_recipient": []}]),
    *([{"ordinal": 1}], {"spf": [[[[1]]]]}, "infinity", "200000-01-01T00:00:00Z", "9999-12-31T23:59:59-01:00"),
)
_DEEP = ("[" * 2_000 + "]" * 2_000, "9" * 5_000, "[1e400]", '{"a": ' * 500 + "1" + "}" * 500)
"""JSON that PostgreSQL reads, but Python does not write."""

_ARRAYS = ("{}", "{NULL}", "{{a},{b}}", "[5:6]={a,b}", "{" + ",".join("x" * 20_000) + "}")
_OCTETS = (b"", b"\0", b"\xff" * 100, b"x" * 1_000_000)
_INTERVALS = ("0", "-1 day", "1000000 years", "-178000000 years", "1 microsecond")
_VALUES: dict[str, tuple[Any, ...]] = {
    "text": _TEXTS,
    "timestamp with time zone": _TIMES,
    "jsonb": (*map(json.dumps, _JSON), *_DEEP),
    "ARRAY": _ARRAYS,
    "bytea": _OCTETS,
    "interval": _INTERVALS,
    "boolean": (True, False),
    "xid8": ("0", "3", "18446744073709551615"),
    "inet": ("0.0.0.0/0", "::/0", "255.255.255.255"),
    "uuid": ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    **dict.fromkeys(("smallint", "integer", "bigint"), _NUMBERS),
}
"""The extremes of each type of PostgreSQL; NULL is added to each."""

_COMMANDS = (
    *("list", "list --json", "show 1", "raw 1", "quarantine list", "quarantine list --json", "address list"),
    *("reparse --all --dry-run", "expire --dry-run", "status", "metrics", "check --part handler"),
)
_TABLES = ("message", "delivery", "attachment", "raw_message", "address", "retention", "retention_change", "doubled")


class _Column(NamedTuple):
    """A column of a table."""

    table: str
    name: str
    type: str


class _Call(NamedTuple):
    """A call of ingest in which one member of one of its arguments has this value, as JSON."""

    argument: str
    member: str
    value: str

    def __str__(self) -> str:
        return f"{self.argument}.{self.member} = {self.value[:60]}"


def run(scale: Scale, mode: Mode) -> Row:
    """All arguments and columns, or a sample."""
    row = mode.row("rows")
    with account.folder("pipehandler-pg-") as folder, PostgreSQL(folder / "16", 16, FAST).start() as server:
        with Database.fresh(server) as database:
            columns = _columns(database)
            calls = list(_calls())
            _claimed(
                calls[::97] if scale.short else scale.thin(calls, 3_000), _console(folder / "claimed", database), row
            )
        with ThreadPoolExecutor(2) as threads:
            made = [
                threads.submit(_damaged, column, server, folder / f"console{number}", scale, row)
                for number, column in enumerate(columns[5::31] if scale.short else scale.thin(columns, 8))
            ]
            for each in made:
                each.result()
    return row


def _request(number: int) -> list[Any]:
    """The arguments of a genuine call, for a distinct message."""
    raw = MESSAGE.replace(b"<1@", b"<%d@" % number)
    return list(submission(raw, f"user{number}@example.com").arguments())


def _calls() -> Iterator[_Call]:
    for argument, genuine in zip(("envelope", "parsed"), _request(0)[:2], strict=True):
        for member in json.loads(genuine):
            for value in (*map(json.dumps, _JSON), *_DEEP):
                yield _Call(argument, member, value)


def _claimed(calls: Sequence[_Call], console: Console, row: Row) -> None:
    """Call ingest as the handler's role: a value is refused as an error in the message, or every reader can read it."""
    stored: list[int] = []
    with (
        closing(MessageStore(console.database.conninfo)) as handler,
        closing(MessageStore(console.database.admin)) as reader,
    ):
        for number, call in enumerate(calls):
            row.points += 1
            arguments = _request(number)
            place = ("envelope", "parsed").index(call.argument)
            changed = json.loads(arguments[place]) | {call.member: "THE VALUE"}
            arguments[place] = json.dumps(changed).replace('"THE VALUE"', call.value)
            try:
                made = [int(each["delivery"]) for each in handler.rows(INGEST, arguments)]
            except DataRefused:
                continue
            except StoreError as error:
                row.note(f"{call} fails with {error}")
                continue
            stored += made
            for delivery in made:
                try:
                    messages.message(reader, str(delivery))
                except UnreadableMessage as error:
                    row.note(f"{call} was stored, and {error}")
        row.sent += 1
        (last,) = handler.rows(INGEST, _request(len(calls)))
        stored.append(int(last["delivery"]))
        listed = {each.id for each in listing.deliveries(reader, limit=len(stored) + 10)}
    for name, seen in (("list", listed), ("stream", _streamed(console, stored[-1]))):
        if set(stored) - seen:
            row.note(f"the {name} leaves out {len(set(stored) - seen)} of {len(stored)} deliveries")


def _console(folder: Path, database: Database) -> Console:
    """The commands, as the owner of the database."""
    folder.mkdir()
    console = Console(folder, database)
    console.configure("postgres", f"database.conninfo = '{database.admin}'\nserve.socket = '{folder / 'socket'}'")
    return console


def _streamed(console: Console, last: int) -> set[int]:
    """The deliveries that `follow` shows, up to and including that one."""
    seen: set[int] = set()
    running = console.start("follow", "--from-start", "--json")
    with bounded(running):
        assert running.stdout
        for line in running.stdout:
            seen.add(json.loads(line)["id"])
            if last in seen:
                break
        running.kill()
        running.communicate()
    return seen


def _columns(database: Database) -> list[_Column]:
    """The columns that hold data: no computed columns, and no keys."""
    found = database.rows(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'pipehandler' AND table_name = ANY (%s) AND is_generated = 'NEVER'"
        "   AND column_name NOT IN ('id', 'message', 'day') ORDER BY table_name, ordinal_position",
        list(_TABLES),
    )
    return [_Column(*each) for each in found]


def _damaged(column: _Column, server: PostgreSQL, folder: Path, scale: Scale, row: Row) -> None:
    """Write all values into one column, each in the row of another message, between two genuine messages."""
    values = (None, *_VALUES[column.type])
    with Database.fresh(server) as database:
        _fill(database, len(values) + 2)
        _without_constraints(database)
        for number, value in enumerate(values, 2):
            with suppress(psycopg.Error):  # not a value of this type, or a duplicate key
                _spoil(database, column, number, value)
                row.points += 1
        console = _console(folder, database)
        _read(column, console, len(values) + 2, row)
        for words in _COMMANDS[:: 4 if scale.short else 1]:
            _run(column, console, words, row)


def _fill(database: Database, count: int) -> None:
    """Store so many genuine messages with an attachment and leases for their addresses; every third is in
    quarantine."""
    attached = b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: a/b\n\nx\n--b--\n"
    with closing(MessageStore(database.conninfo)) as store:
        for number in range(1, count + 1):
            address = f"user{number}@example.com"
            database.execute("SELECT pipehandler.lease_address(%s)", address)
            raw = b"Message-ID: <%d@example.org>\n" % number + attached
            failed = 1 < number < count and number % 3 == 0
            store.ingest(submission(raw, address, parsed=ParsedMessage(error="not parsed") if failed else None))
    database.execute("""SELECT pipehandler.set_retention('[{"sender": "%@x.example", "keep": 3600}]')""")


def _without_constraints(database: Database) -> None:
    """Allow anything to be written from now on."""
    # Of a table before those of its partitions.
    while found := database.rows(
        "SELECT conrelid::regclass::text AS name, conname FROM pg_constraint"
        " WHERE connamespace = 'pipehandler'::regnamespace AND contype = 'c' AND conrelid <> 0 AND coninhcount = 0"
    ):
        for each in found:
            database.execute(f'ALTER TABLE {each.name} DROP CONSTRAINT "{each.conname}"')
    for each in database.rows(
        "SELECT attrelid::regclass::text AS name, attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid"
        " WHERE relnamespace = 'pipehandler'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND attnum > 0"
        "   AND attnotnull"
        "   AND NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute k ON k.attrelid = i.indrelid AND k.attnum = ANY (i.indkey)"
        "                    WHERE i.indisprimary AND k.attname = a.attname AND (i.indrelid = a.attrelid OR i.indrelid IN ("
        "                          SELECT inhrelid FROM pg_inherits WHERE inhparent = a.attrelid)))"
    ):
        database.execute(f"ALTER TABLE {each.name} ALTER {each.attname} DROP NOT NULL")


def _spoil(database: Database, column: _Column, number: int, value: object) -> None:
    """Write a value into the row that belongs to the delivery with this number."""
    of_message = "(SELECT message FROM pipehandler.delivery WHERE id = %s)"
    condition = {"delivery": "id = %s", "message": f"id = {of_message}", "address": "lease = %s"}.get(
        column.table, f"message = {of_message}" if column.table in ("attachment", "raw_message") else "%s > 0"
    )
    statement = f"UPDATE pipehandler.{column.table} SET {column.name} = %s::text::{_cast(column)} WHERE {condition}"
    if isinstance(value, bytes):
        statement = statement.replace("%s::text::bytea", "%b")
    database.execute(statement, value if value is None or isinstance(value, bytes) else str(value), number)


def _cast(column: _Column) -> str:
    return "text[]" if column.type == "ARRAY" else column.type


def _read(column: _Column, console: Console, last: int, row: Row) -> None:
    """Read each message, the list and the stream, as programs do; the first and the last message are genuine."""
    row.sent += 2
    with closing(MessageStore(console.database.admin)) as store:
        for number in range(1, last + 1):
            try:
                messages.message(store, str(number))
            except UnreadableMessage as error:
                if number in (1, last):
                    row.note(f"the genuine message {number} beside {column}: {error}")
        listed = {each.id for each in listing.deliveries(store, limit=2 * last)}
    for name, seen in (("list", listed), ("stream", _streamed(console, last))):
        missing = {1, last} - seen
        row.lost += len(missing)
        if missing:
            row.note(f"{name}: the genuine messages {missing} beside {column} are left out")


def _run(column: _Column, console: Console, words: str, row: Row) -> None:
    """Assert that a command ends without a traceback."""
    try:
        done = subprocess.run(
            console.command(*words.split()), capture_output=True, text=True, env=ENVIRONMENT, cwd="/", timeout=120
        )
    except subprocess.TimeoutExpired:
        row.note(f"{words} does not end beside {column}")
        return
    if done.returncode not in REPORTS.get(words.split()[0], (0,)) or "Traceback" in done.stderr + done.stdout:
        row.note(f"{words} beside {column}: {done.returncode}, {done.stderr[-600:]}")
