"""What the handler's role may pass to pipehandler.ingest: only what every reader can read, whatever its JSON holds."""

import json
from contextlib import closing
from typing import Any

import psycopg
import pytest
from harness.database import Database
from harness.submission import INGEST, submission

from pipehandler.store import messages
from pipehandler.store.errors import DataRefused
from pipehandler.store.message_store import MessageStore

SHAPES: list[Any] = [
    None,
    0,
    -1,
    1e300,
    True,
    "",
    "x",
    [],
    [None],
    [[]],
    [1],
    ["x"],
    {},
    {"x": 1},
    [{"x": 1}],
    [[["x"]]],
]

ATTACHMENT = {"ordinal": 1, "part": "1", "content_type": "image/gif", "size": 3, "sha256": "00" * 32}

DEEP: Any = 1
for _ in range(30):
    DEEP = {"a": [DEEP]}

TOO_MUCH: list[Any] = [DEEP, {"a": {"b": DEEP}}, {"a": 10**400}, {"a": [{"b": -(10**400)}]}]
"""Objects nested deeper than readers can follow, and numbers that no float can hold."""

REPORTED: list[Any] = ["x", [1], ["x"], [None], [[]], [{"action": 1}], [{"x": []}]]
"""Values that are not a list of recipients of a report."""

PARSED: dict[str, list[Any]] = {
    "header": [[["Subject"]], [["a", "b", "c"]], [["a", 1]], [["a", None]], [{}], ["ab"], [["a", "b"], "ab"]],
    **{
        f"{name}_list": [
            [{"name": "", "address": ""}],
            [{"name": None, "address": "", "group": ""}],
            [{"name": "", "address": 1, "group": ""}],
            [{"name": "", "address": "", "group": ""}, 7],
        ]
        for name in ("from", "sender", "reply_to", "to", "cc", "bcc")
    },
    "in_reply_to": [[1], [None], [["x"]]],
    "reference_ids": [[1], [None], [["x"]]],
    "defects": [[{"code": None}], [{}], [7], [{"code": "x"}], [{"code": "x", "where": 1, "detail": ""}]],
    "authentication": TOO_MUCH,
    "attachments": [
        [{"ordinal": "1"}],
        [{}],
        *(
            [ATTACHMENT | {"parameters": shape}]
            for shape in [*(shape for shape in SHAPES if shape is not None and shape != {}), {"x": None}, {"x": {}}]
        ),
    ],
    "report": [
        *TOO_MUCH,
        *({"type": "x"} | shape for shape in TOO_MUCH),
        {"type": "x", "status": [10**400]},
        {"type": None},
        {"type": ["x"]},
        *({"type": "x", name: shape} for name in ("status", "recipients") for shape in [None, 1, True, {}, {"x": 1}]),
        *({"type": "x", "recipients": shape} for shape in REPORTED),
        *({"type": "x", name: ["x"]} for name in ("feedback_type", "disposition", "original_message_id")),
    ],
    "parser": [],
}
"""More wrong values of each column that has a shape, in addition to SHAPES."""

RIGHT: dict[str, Any] = {
    "header": [[]],
    "authentication": [{}, {"x": 1}],
    "report": [None],
    "parser": ["", "x"],
} | {name: [[]] for name in PARSED if name not in ("header", "authentication", "report", "parser")}
"""The valid values of SHAPES."""
RIGHT["in_reply_to"] = RIGHT["reference_ids"] = [[], ["x"]]

TIMES = [
    "infinity",
    "-infinity",
    "200000-01-01T00:00:00Z",
    "4000-01-01T00:00:00Z BC",
    "10000-01-01T00:00:00Z",
    "x",
    "9999-12-31T23:59:59-01:00",
    "0001-01-01T00:00:00+01:00",
]

ENVELOPE: dict[str, list[Any]] = {
    "fingerprint": [shape for shape in SHAPES if not isinstance(shape, str)],  # a string is only compared
    "fingerprint_2": [*(shape for shape in SHAPES if shape is not None), "00", "zz" * 32, "00" * 33],
    "recipients": [*(shape for shape in SHAPES), [{"recipient": None}], [{"recipient": 1}], [{"recipient": {}}, 1]],
    "sender": [shape for shape in SHAPES if not isinstance(shape, str)],
    "mail_host": [shape for shape in SHAPES if not isinstance(shape, str)],
    "ingress": [shape for shape in SHAPES if not isinstance(shape, str)],
    "client_address": ["x", "1.2.3.4/99", "::1::"],
}


def ingest(database: Database, envelope: Any, parsed: Any, *rest: Any) -> None:
    """Call the function with the handler's rights."""
    with closing(MessageStore(database.conninfo)) as store:
        store.rows(INGEST, [envelope, parsed, *rest])


def wrong() -> list[tuple[str, str, Any]]:
    """Each wrong value: the argument, its member, the value."""
    parsed = [
        ("parsed", name, value)
        for name, more in PARSED.items()
        for value in [*(shape for shape in SHAPES if shape not in RIGHT[name] or shape is True), *more]
    ]
    dates = [("parsed", "date", value) for value in TIMES]
    numbers: list[Any] = [-32768, -6000, 6000, 32767, 32768, 1e300, "x", []]
    offsets = [("parsed", "date_offset", value) for value in numbers]
    envelope = [("envelope", name, value) for name, values in ENVELOPE.items() for value in values]
    return [*parsed, *dates, *offsets, *envelope]


def test_wrong_values_are_refused(every_database: Database) -> None:
    """Each wrong value of each member is refused as an error in this message, and leaves no row."""
    envelope, parsed, *rest = submission().arguments()
    arguments = {"envelope": json.loads(envelope), "parsed": json.loads(parsed)}
    accepted = []
    for argument, name, value in wrong():
        changed = arguments | {argument: arguments[argument] | {name: value}}
        try:
            ingest(every_database, json.dumps(changed["envelope"]), json.dumps(changed["parsed"]), *rest)
            accepted.append((argument, name, value))
        except DataRefused:
            pass
    assert accepted == []
    for argument in ("envelope", "parsed"):
        for shape in (json.dumps(shape) for shape in SHAPES):
            with pytest.raises(DataRefused):
                ingest(
                    every_database,
                    *(shape if argument == each else json.dumps(arguments[each]) for each in arguments),
                    *rest,
                )
        with pytest.raises(DataRefused):
            ingest(
                every_database,
                *(None if argument == each else json.dumps(arguments[each]) for each in arguments),
                *rest,
            )
    for contents in ([[b"a"], [b"b"]],):
        with pytest.raises(DataRefused):
            ingest(every_database, envelope, parsed, *rest[:-1], contents)
    with pytest.raises(DataRefused):
        ingest(every_database, envelope, parsed, *rest[:-2], None, None)  # no bytes
    assert (
        every_database.value(
            "SELECT (SELECT count(*) FROM pipehandler.delivery) + (SELECT count(*) FROM pipehandler.message)"
        )
        == 0
    )
    right: list[dict[str, Any]] = [{}, {"parameters": None}, {"parameters": {}}, {"parameters": {"x": "y"}}]
    for parameters in right:
        changed = arguments["parsed"] | {"attachments": [ATTACHMENT | parameters]}
        ingest(every_database, envelope, json.dumps(changed), *rest)
    assert every_database.value("SELECT count(*) FROM pipehandler.inbox") == 1


@pytest.mark.parametrize("date", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
@pytest.mark.parametrize("offset", [-5999, 0, 5999])
def test_every_reader_reads_the_extremes(database: Database, date: str, offset: int) -> None:
    """The first and the last moment that the schema accepts can be listed, shown and followed."""
    envelope, parsed, *rest = submission().arguments()
    ingest(database, envelope, json.dumps(json.loads(parsed) | {"date": date, "date_offset": offset}), *rest)
    with closing(MessageStore(database.server.conninfo(database.name, user="reader"))) as store:
        store.script("SET timezone = 'UTC'")
        (row,) = store.rows("SELECT message::text, date FROM pipehandler.inbox")
        assert row["date"].year in (1, 9999)
        assert messages.message(store, row["message"]).date_offset == offset
        assert len(store.rows("SELECT * FROM pipehandler.deliveries_after('')")) == 1


@pytest.mark.parametrize(
    "port", ["65536", "99999999999", "2147483648", "-1", "x", "", "1.5", None, [], {}, True, 1e300]
)
def test_a_port_that_is_none(database: Database, port: Any) -> None:
    """A value that is not a port is stored as unknown, and the message is stored: no later attempt would have another
    port."""
    envelope, parsed, *rest = submission().arguments()
    ingest(database, json.dumps(json.loads(envelope) | {"client_port": port}), parsed, *rest)
    assert database.value("SELECT client_port FROM pipehandler.delivery") is None


@pytest.mark.parametrize("port", [0, 25, "65535"])
def test_a_port(database: Database, port: Any) -> None:
    """A port is stored."""
    envelope, parsed, *rest = submission().arguments()
    ingest(database, json.dumps(json.loads(envelope) | {"client_port": port}), parsed, *rest)
    assert database.value("SELECT client_port FROM pipehandler.delivery") == int(port)


LONG = {
    "grows": "ǰ" * 990 + "@example.com",
    "marks": "\u0301\u0323" * 400 + "@example.com",
    "letters": "x" * 6_000 + "@example.com",
    "random": "".join(chr(0x4E00 + i * 7919 % 20_000) for i in range(4_000)) + "@example.com",
}


@pytest.mark.parametrize("name", LONG)
def test_long_recipients(every_database: Database, name: str) -> None:
    """A recipient of any length is stored once; one that differs only at its end is another recipient."""
    one, other = LONG[name], LONG[name] + "m"
    with closing(MessageStore(every_database.conninfo)) as store:
        for duplicate in (False, True):
            stored = store.ingest(submission(b"Subject: x\n\n", one, other))
            assert {(row.recipient, row.duplicate) for row in stored} == {(one, duplicate), (other, duplicate)}
    rows = every_database.rows(
        "SELECT coalesce(original_recipient, recipient) AS full FROM pipehandler.delivery ORDER BY id"
    )
    assert {row.full for row in rows} == {one, other}
    (defects,) = every_database.rows("SELECT defects AS found FROM pipehandler.message")
    assert defects.found == [{"code": "envelope-value", "where": "recipient", "detail": ""}]
    statement = "SELECT count(*) FROM pipehandler.delivery d WHERE d.recipient = pipehandler.stored_recipient(%s)"
    assert [every_database.value(statement, recipient) for recipient in (one, other)] == [1, 1]


@pytest.mark.parametrize("character", ["x", "ä", "ΰ", "\ufdfa", "\U0001d15f", "\u3300", "\u1e9e"])
def test_recipients_about_the_limit(database: Database, character: str) -> None:
    """998 octets are kept unchanged, without a defect, and one more is too many; both fit into every index."""
    end = "@example.com"
    fits = character * ((998 - len(end)) // len(character.encode()))
    fits = "y" * (998 - len((fits + end).encode())) + fits + end
    with closing(MessageStore(database.conninfo)) as store:
        store.ingest(submission(b"Subject: fits\n\n", fits))
        store.ingest(submission(b"Subject: long\n\n", "y" + fits))
    rows = database.rows(
        "SELECT d.recipient, jsonb_array_length(m.defects) AS defects FROM pipehandler.delivery d"
        "  JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message ORDER BY d.id"
    )
    assert (rows[0].recipient, rows[0].defects) == (fits, 0)
    assert rows[1].recipient.startswith(f"y{fits[:199]}...")
    assert rows[1].defects == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [("off", "on"), ("local", "on"), ("remote_write", "on"), ("on", "on"), ("remote_apply", "remote_apply")],
)
def test_a_commit_is_never_weaker(database: Database, before: str, after: str) -> None:
    """Settings of a role do not weaken the commit of a message, and stronger ones are kept."""
    database.execute(f"ALTER ROLE pipehandler SET synchronous_commit = {before}")
    try:
        with psycopg.connect(database.conninfo) as connection:
            assert connection.execute("SHOW synchronous_commit").fetchone() == (before,)
            connection.execute(INGEST, submission().arguments())
            assert connection.execute("SHOW synchronous_commit").fetchone() == (after,)
            connection.commit()
            assert connection.execute("SHOW synchronous_commit").fetchone() == (before,)
    finally:
        database.execute("ALTER ROLE pipehandler RESET synchronous_commit")


SETTINGS = {
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "escape_string_warning": "off",
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "sql_standard",
    "timezone": "'Asia/Kathmandu'",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
    "search_path": "public",
    "array_nulls": "off",
    "client_min_messages": "error",
    "lc_numeric": "'C'",
    "enable_indexscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "default_toast_compression": "pglz",
    "check_function_bodies": "off",
    "xmloption": "document",
    "row_security": "off",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_change_nothing(database: Database, name: str) -> None:
    """A setting of the role does not change what the functions do."""
    envelope, *rest = submission(b"Subject: x\n\n", "Grüße+tag@XN--BCHER-KVA.example").arguments()
    database.execute("SELECT pipehandler.lease_address('grüße@bücher.example', '1 day')")
    database.execute(f"ALTER ROLE pipehandler SET {name} = {SETTINGS[name]}")
    try:
        with psycopg.connect(database.conninfo, autocommit=True) as connection:
            found = [
                connection.execute(
                    INGEST.replace("recipient, delivery, message::text, ", ""), [envelope, *rest]
                ).fetchall()
                for _ in range(2)
            ]
            assert found == [[(False,)], [(True,)]]
            status = connection.execute(
                "SELECT cardinality(damaged), cardinality(unknown) FROM pipehandler.code_status()"
            )
            assert status.fetchall() == [(0, 0)]
    finally:
        database.execute(f"ALTER ROLE pipehandler RESET {name}")
    (row,) = database.rows("SELECT lease, extension FROM pipehandler.delivery")
    assert (row.lease, row.extension) == (1, "tag")
