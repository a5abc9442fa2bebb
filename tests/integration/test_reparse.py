"""Reparsing: stored values become what ingest would store now, message by message, and the bytes stay unchanged."""

import json
import re
import signal
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness.console import Console, everything
from harness.database import Database
from harness.poison import POISON, lethal, slow
from harness.service import wait_until
from harness.submission import MESSAGE, submission
from psycopg.errors import InsufficientPrivilege

from pipehandler.delivery import reparse as module
from pipehandler.delivery.reparse import AGAIN, KEPT, PARSED, STILL_FAILED, Change, Reparsed, reparse
from pipehandler.mail.identity import identify
from pipehandler.mail.parsed import Address, Attachment, Defect, ParsedMessage
from pipehandler.mail.sysexits import EX_NOINPUT, EX_UNAVAILABLE
from pipehandler.parse.message import PARSER_VERSION, parse
from pipehandler.settings.config import Config
from pipehandler.store.ingest import IngestRequest
from pipehandler.store.message_store import MessageStore

GOLDEN = Path(__file__).parents[1] / "golden"
SOME = sorted(GOLDEN.glob("*.eml"))
FAILED = ParsedMessage(error="not parsed within 10 s")
EX_INTERRUPTED = 130
USAGE = 2
BOUNDED = b"From: a@example.org\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\nContent-Type: image/gif\n\nGIF\n--b--\n"

# The parser would return none of these values.
GARBAGE = ParsedMessage(
    message_id="x" * 2000,
    in_reply_to=["garbage"],
    references=["garbage", "more"],
    date=parse(b"Date: Mon, 7 Sep 2026 10:00:00 +0900\n\n").date,
    date_offset=540,
    subject="garbage",
    from_=[Address("garbage", "garbage@example.org", "group")],
    sender=[Address("garbage", "garbage@example.org")],
    reply_to=[Address("garbage", "garbage@example.org")],
    to=[Address("garbage", "garbage@example.org")],
    cc=[Address("garbage", "garbage@example.org")],
    bcc=[Address("garbage", "garbage@example.org")],
    list_id="garbage",
    list_unsubscribe=["garbage:"],
    list_unsubscribe_post=True,
    auto_submitted="garbage",
    precedence="garbage",
    text="garbage",
    html="<p>garbage",
    text_from_html="garbage",
    preview="garbage",
    report={"type": "garbage"},
    header=[("Garbage", "garbage")],
    attachments=[
        Attachment(
            str(number),
            "a/b",
            b"garbage",
            "garbage",
            "garbage",
            "garbage",
            "garbage",
            "garbage",
            {"garbage": "garbage"},
        )
        for number in range(3)
    ],
    authentication={"spf": "garbage"},
    defects=[Defect("date-invalid", "garbage", "garbage")],
)


def store(database: Database, *submissions: IngestRequest) -> list[str]:
    """Store messages; returns their UUIDs in the order in which they are processed."""
    opened = MessageStore(database.conninfo)
    try:
        return sorted(opened.ingest(each)[0].message for each in submissions)
    finally:
        opened.close()


def failed(number: int, **changes: Any) -> IngestRequest:
    """One of many different messages, in quarantine."""
    return submission(MESSAGE + b"%d" % number, parsed=FAILED, **changes)


def untouched(database: Database) -> list[Any]:
    """What reparse must never change: the rows of raw_message with the transactions that wrote them, and of delivery."""
    return [
        database.rows("SELECT message, sha256(raw), xmin, xmax, ctid FROM pipehandler.raw_message ORDER BY message"),
        database.rows("SELECT d.*, xmin, ctid FROM pipehandler.delivery d ORDER BY id"),
        database.rows("SELECT id, received_at, size, sha256 FROM pipehandler.message ORDER BY id"),
    ]


def states(database: Database) -> set[str]:
    """The states in the database."""
    return {row.state for row in database.rows("SELECT DISTINCT state FROM pipehandler.message")}


def test_failed_ones_are_parsed(console: Console, database: Database) -> None:
    """By default the messages in quarantine are parsed; the others are left unchanged, and so are the bytes."""
    store(database, failed(1), submission(b"Subject: other\n\n", parser="0"), submission(BOUNDED, parsed=FAILED))
    before = untouched(database)
    assert console.run("reparse").text == "2 tried, 2 changed, 2 parsed now\n"
    assert untouched(database) == before
    assert states(database) == {"parsed"}
    rows = database.rows("SELECT subject, parser, error FROM pipehandler.message ORDER BY subject")
    assert [tuple(row) for row in rows] == [
        *(("one", PARSER_VERSION, None), ("other", "0", None), (None, PARSER_VERSION, None)),
    ]
    assert database.value("SELECT content FROM pipehandler.attachment") == b"GIF"
    assert console.run("reparse").text == "0 tried, 0 changed\n"


def test_equals_what_ingest_stores(every_database: Database, folder: Path) -> None:
    """Whatever was in the derived columns, afterwards each row of each golden message is as ingest stores it now."""
    stored_as_now(every_database, folder, GARBAGE)


def test_equals_what_ingest_stores_after_a_failure(database: Database, folder: Path) -> None:
    """The same where the message could not be parsed."""
    stored_as_now(database, folder, FAILED)


def stored_as_now(database: Database, folder: Path, parsed: ParsedMessage) -> None:
    """Compare the rows of each golden message, stored with `parsed` and parsed again, with what ingest stores."""
    raws = list({identify(path.read_bytes()).id: path.read_bytes() for path in SOME}.values())
    assert len(raws) >= 12
    store(
        database,
        *(submission(raw, f"{number}@x", parser="0 old", parsed=parsed) for number, raw in enumerate(raws)),
    )
    before = untouched(database)
    assert f"{len(raws)} tried, {len(raws)} changed" in Console(folder, database).run("reparse", "--older").text
    assert untouched(database) == before
    got = everything(database, "message", "attachment")
    database.execute(
        "TRUNCATE pipehandler.message, pipehandler.raw_message, pipehandler.attachment, pipehandler.delivery"
    )
    store(database, *(submission(raw[identify(raw).prepended :], f"{number}@x") for number, raw in enumerate(raws)))
    wanted = everything(database, "message", "attachment")
    for table, rows in got.items():
        assert len(rows) == len(wanted[table])
        for one, other in zip(rows, wanted[table], strict=True):
            assert one._asdict() == other._asdict()


def test_every_derived_column_is_replaced(untouched_columns: set[str], database: Database, console: Console) -> None:
    """No column of message keeps its garbage, except those that do not come from the parser."""
    (found,) = store(database, submission(MESSAGE, parsed=GARBAGE, parser="0"))
    assert console.run("reparse", found).status == 0
    rows = database.rows("SELECT to_jsonb(m) AS row FROM pipehandler.message m")
    assert "garbage" not in json.dumps(rows[0].row)
    function = database.value("SELECT prosrc FROM pg_proc WHERE oid = 'pipehandler.reparse_on'::regproc")
    columns = database.rows(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'pipehandler.message'::regclass AND attnum > 0"
    )
    assert {column.attname for column in columns if f"derived.{column.attname}" not in function} == untouched_columns


@pytest.fixture
def untouched_columns() -> set[str]:
    """The values that a message keeps."""
    return {"day", "id", "received_at", "size", "sha256"}


def test_what_is_as_it_should_be_is_not_written(console: Console, database: Database) -> None:
    """Nothing changed: no new version of a row, of the message or of its attachments."""
    store(database, submission(BOUNDED), submission(MESSAGE))
    versions = "SELECT xmin, ctid FROM pipehandler.message UNION ALL SELECT xmin, ctid FROM pipehandler.attachment"
    before = database.rows(versions)
    assert console.run("reparse", "--all").text == "2 tried, 0 changed, 2 parsed again\n"
    assert database.rows(versions) == before


def test_what_counts_as_changed() -> None:
    """Any column but the version of the parser."""
    version, subject = Change("parser", "1", "2"), Change("subject", "a", "b")
    changes: list[tuple[Change, ...]] = [(), (version,), (subject,), (version, subject)]
    assert [Reparsed("x", AGAIN, each).changed for each in changes] == [False, False, True, True]


def test_dry_run(console: Console, database: Database) -> None:
    """--dry-run shows what would change, for people and for programs, and changes nothing."""
    hostile = b"Subject: =?utf-8?q?=1b]0;t=07?=\n\n" + b"x\x1b[31m" * 10_000
    store(database, submission(hostile, parsed=FAILED), submission(BOUNDED, parsed=GARBAGE, parser="0"))
    before = everything(database)
    text = console.run("reparse", "--all", "--dry-run").text
    assert everything(database) == before
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text)
    assert max(map(len, text.splitlines())) < 250
    for wanted in (
        '\n  state: "failed" -> "parsed"\n  subject: null -> "',
        f"{identify(BOUNDED).id}: would be parsed again\n",
        f'\n  parser: "0" -> "{PARSER_VERSION}"\n',
        "\n  attachments: [",
        "\n2 tried, 2 would change, ",
    ):
        assert wanted in text
    *messages, last = map(json.loads, console.run("reparse", "--all", "--dry-run", "--json").text.splitlines())
    changes = {each["message"]: each["changes"] for each in messages}
    assert changes[identify(hostile).id]["subject"] == [None, "]0;t"]
    assert [each["content_type"] for each in changes[identify(BOUNDED).id]["attachments"][1]] == ["image/gif"]
    assert (last["summary"]["tried"], last["summary"]["changed"], last["dry_run"]) == (2, 2, True)
    assert everything(database) == before
    assert "would be" not in console.run("reparse", "--all", "--verbose").text
    assert everything(database) != before


def test_choice(console: Console, database: Database) -> None:
    """--older takes those of another version, --all all, ids those; --after continues after a message."""
    ids = store(database, failed(1), submission(b"older", parser="0"), submission(b"new"))
    assert console.run("reparse", "--older", "--dry-run").text.endswith("1 tried, 0 would change, 1 parsed again\n")
    assert "3 tried" in console.run("reparse", "--all", "--dry-run").text
    assert "2 tried" in console.run("reparse", "--all", "--after", ids[0], "--dry-run").text
    delivery = database.value("SELECT id FROM pipehandler.delivery WHERE message = %s", ids[0])
    assert "2 tried" in console.run("reparse", ids[1], ids[0], delivery, "--dry-run").text
    done = console.run("reparse", identify(b"new").id, "999")
    assert (done.status, done.output) == (EX_NOINPUT, b"")
    for wrong in (["--all", "--older"], ["1", "--all"], ["1", "--after", ids[0]], ["--after", "x"]):
        assert console.run("reparse", *wrong).status == USAGE


def test_batches(console: Console, database: Database) -> None:
    """More messages than one batch holds, each in a separate transaction."""
    store(database, *(failed(number) for number in range(230)))
    assert console.run("reparse").text == "230 tried, 230 changed, 230 parsed now\n"
    assert database.value("SELECT count(DISTINCT xmin::text) FROM pipehandler.message") == 230


def test_still_failing(console: Console, database: Database) -> None:
    """A message that fails again stays in quarantine with the new reason, and is counted by it; the next run tries
    again. A message parsed before is left unchanged."""
    store(database, submission(POISON, parsed=replace(FAILED, defects=[])), failed(1))
    said = console.run_under(lethal(), "reparse").text
    assert "2 tried, " in said
    assert "1 parsed now" in said
    assert "1 still not parsed: the parser died of this message\n" in said
    assert "The next run tries the failed messages again" in said
    assert (
        database.value("SELECT error FROM pipehandler.message WHERE state = 'failed'")
        == "the parser died of this message"
    )
    assert "1 tried" in console.run_under(lethal(), "reparse").text
    database.execute(
        "UPDATE pipehandler.message SET state = 'parsed', error = NULL, subject = 'good' WHERE state = 'failed'"
    )
    before = everything(database)
    console.configure(more="limits.parse_timeout = 1")
    said = console.run_under(slow(1.5), "reparse", "--all").text
    assert "1 left as it was: not parsed within 1 s\n" in said
    assert everything(database) == before


def test_message_that_kills(console: Console, database: Database) -> None:
    """A message that kills its parser ends a run once, if marks can be written; after that it is left unchanged."""
    (console.folder / "nowhere").mkdir()
    store(database, submission(POISON, parsed=parse(MESSAGE)), submission(MESSAGE, parsed=GARBAGE))
    marks = console.folder / "nowhere"
    assert console.run_under(lethal(), "reparse", "--all").status == -signal.SIGKILL
    assert len(list(marks.iterdir())) == 1
    said = console.run_under(lethal(), "reparse", "--all").text
    assert "2 tried" in said
    assert "1 left as it was: the parser died of this message" in said
    assert not list(marks.iterdir())


def test_without_bytes(console: Console, database: Database) -> None:
    """A message whose bytes were dropped is counted and left unchanged."""
    store(database, failed(1))
    database.execute("DELETE FROM pipehandler.raw_message")
    before = everything(database)
    assert console.run("reparse").text == "1 tried, 0 changed, 1 without bytes\n"
    assert everything(database) == before


@pytest.mark.parametrize("code", ["smaller-than-declared", "shorter-than-told"])
def test_defect_of_the_delivery_stays(console: Console, database: Database, code: str) -> None:
    """The defect that fewer octets arrived than declared does not follow from the bytes, and is kept before the
    parser's."""
    short = Defect(code)
    store(
        database,
        submission(b"Date: never\n\n", parsed=ParsedMessage(error="x", defects=[short, Defect("date-guessed")])),
    )
    for _ in range(2):
        console.run("reparse", "--all")
        (row,) = database.rows("SELECT defects FROM pipehandler.message")
        assert [defect["code"] for defect in row.defects] == ["smaller-than-declared", "date-invalid"]


def test_facts_of_the_delivery_stay_once(database: Database) -> None:
    """A delivery that parses what another could not, with the same defects, adds nothing."""
    defects = [Defect("envelope-value", "client-port"), Defect("smaller-than-declared")]
    store(database, submission(parsed=replace(FAILED, defects=defects)))
    store(database, submission(MESSAGE, "b@example.com", parsed=replace(parse(MESSAGE), defects=defects)))
    (row,) = database.rows("SELECT state, defects FROM pipehandler.message")
    assert row.state == "parsed"
    assert [each["code"] for each in row.defects] == ["envelope-value", "smaller-than-declared"]


def call(database: Database, parsed: ParsedMessage, **changes: Any) -> dict[str, tuple[Any, Any]]:
    """Call the SQL function for MESSAGE under the maintenance role."""
    arguments = submission(parsed=parsed, **changes).arguments()
    with psycopg.connect(database.server.conninfo(database.name, user="upkeep"), autocommit=True) as connection:
        rows = connection.execute(
            "SELECT * FROM pipehandler.reparse(%s, %s, %s, %s, %b)",
            [identify(MESSAGE).id, *arguments[1:4], arguments[6]],
        ).fetchall()
    return {name: (before, after) for name, before, after in rows}


def test_function_goes_both_ways(every_database: Database) -> None:
    """From parsed to failed and back, in one call each; it returns each column that changed, and nothing else."""
    store(every_database, submission())
    before = everything(every_database)
    there = call(every_database, FAILED)
    assert there["state"] == ("parsed", "failed")
    assert there["error"] == (None, FAILED.error)
    assert there["text_body"] == ("body\n", None)
    assert there["subject"] == ("one", None)
    assert "attachments" not in there
    back = call(every_database, parse(MESSAGE))
    assert back == {name: (after, before) for name, (before, after) in there.items()}
    assert everything(every_database) == before
    assert call(every_database, parse(MESSAGE)) == {}


def test_function_is_complete(every_database: Database) -> None:
    """Bodies of any length, values that are too long for an index, and a parsed message that names other columns."""
    store(every_database, submission())
    long = "x" * 1_500_000
    changes = call(every_database, replace(GARBAGE, text=long, from_=[Address("n", long)]))
    assert changes["text_body"][1] == long[:1_000_000]
    assert changes["message_id"] == ("1@example.org", None)
    assert changes["from_address"] == ("a@example.org", None)
    assert [each["stored"] for each in changes["attachments"][1]] == [True] * 3
    (row,) = every_database.rows("SELECT text_body, from_list, size FROM pipehandler.message")
    assert (row.text_body, row.from_list[0]["address"]) == (long, long)
    every_database.rows(
        "SELECT * FROM pipehandler.reparse(%s, %s, NULL, NULL, NULL)",
        identify(MESSAGE).id,
        json.dumps(
            {**json.loads(submission().arguments()[1]), "size": 1, "id": None, "received_at": None, "sha256": None}
        ),
    )
    assert every_database.value("SELECT size FROM pipehandler.message") == row.size
    changes = call(every_database, GARBAGE, attachments=False)
    assert [each["stored"] for each in changes["attachments"][1]] == [False] * 3
    assert set(changes["attachments"][1][0]) == {
        *("ordinal", "part", "file_name", "content_type", "content_id", "disposition", "size", "sha256", "stored"),
        *("parameters", "content_location", "content_description"),
    }


def test_refused_by_the_server(console: Console, database: Database) -> None:
    """Parsed data that PostgreSQL refuses does not fail the run: the message stays in quarantine with that reason."""
    store(database, failed(1), failed(2))
    database.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.state = 'parsed' AND NEW.text_body LIKE '%1' THEN RAISE 'no' USING ERRCODE = '22P05'; END IF; RETURN NEW; END $$"
    )
    database.execute(
        "CREATE TRIGGER refuse BEFORE UPDATE ON pipehandler.message FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    said = console.run("reparse").text
    assert "1 parsed now" in said
    assert "1 still not parsed: the data was refused" in said
    assert "SQLSTATE 22P05" in database.value("SELECT error FROM pipehandler.message WHERE state = 'failed'")


def test_out_of_memory(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed data for which this process has no memory leaves the message in quarantine, or as it was."""
    (message,) = store(database, failed(1))
    replace_content = module._store
    tried: list[ParsedMessage] = []

    def starved(
        opened: MessageStore, config: Config, message: str, parsed: ParsedMessage, dry_run: bool
    ) -> tuple[Change, ...]:
        tried.append(parsed)
        if parsed.error is None:
            raise MemoryError
        return replace_content(opened, config, message, parsed, dry_run)

    reason = "what was read from the message does not fit into the memory"
    rows = "SELECT state, error, subject FROM pipehandler.message"
    with closing(MessageStore(database.admin)) as opened, monkeypatch.context() as patched:
        patched.setattr(module, "_store", starved)
        assert reparse(opened, Config(), message)[1::2] == (STILL_FAILED, reason)
        assert database.rows(rows) == [("failed", reason, None)]
    with closing(MessageStore(database.admin)) as opened:
        assert reparse(opened, Config(), message).how == PARSED
        before = database.rows(rows)
        monkeypatch.setattr(module, "_store", starved)
        assert reparse(opened, Config(), message) == Reparsed(message, KEPT, reason=reason)
    assert database.rows(rows) == before == [("parsed", None, "one")]
    assert [parsed.error for parsed in tried] == [None, reason, None]


# Interruptions and concurrency.

MANY = 150  # more than a run has done when it is interrupted


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_interrupted(console: Console, database: Database, how: signal.Signals) -> None:
    """Each message is either unchanged or done, and the next run does the rest; Ctrl-C prints how to continue."""
    store(database, *(failed(number) for number in range(MANY)))
    before = untouched(database)
    old = {row.id: row for row in database.rows("SELECT * FROM pipehandler.message")}
    running = console.start("reparse", "--all")
    done = "SELECT count(*) FROM pipehandler.message WHERE state = 'parsed'"
    wait_until(lambda: database.value(done) > 20)
    running.send_signal(how)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == (EX_INTERRUPTED if how == signal.SIGINT else -how)
    half = {row.id: row for row in database.rows("SELECT * FROM pipehandler.message")}
    assert 20 < sum(row.state == "parsed" for row in half.values()) < MANY
    for found, row in half.items():
        assert row == old[found] or (row.state, row.subject, row.parser, row.error) == (
            "parsed",
            "one",
            PARSER_VERSION,
            None,
        )
    assert untouched(database) == before
    if how == signal.SIGINT:
        last = re.fullmatch(
            r"Error: interrupted; to continue: pipehandler reparse --all --after ([0-9a-f-]{36})\n", errors.decode()
        )
        assert last, errors
        # The messages after it are all that is left, except perhaps the one that was just done.
        left = sorted(str(found) for found, row in half.items() if row.state == "failed")
        assert last[1] < left[0]
        assert b" tried, " in output
        said = console.run("reparse", "--all", "--after", last[1]).text
        assert int(said.split()[0]) - len(left) in (0, 1)
    else:
        console.run("reparse")
    assert states(database) == {"parsed"}
    assert untouched(database) == before


def test_two_runs_at_once(console: Console, database: Database) -> None:
    """They do not disturb each other, and each change is made once."""
    store(database, *(failed(number) for number in range(150)), submission(BOUNDED, parsed=FAILED))
    before = untouched(database)
    running = [console.start("reparse", "--all") for _ in range(3)]
    said = [each.communicate(timeout=100) for each in running]
    assert [each.returncode for each in running] == [0] * 3, said
    assert sum(int(re.findall(rb"(\d+) changed", output)[0]) for output, _ in said) == 151
    assert states(database) == {"parsed"}
    assert untouched(database) == before
    assert database.value("SELECT count(*) FROM pipehandler.attachment") == 1


def test_while_it_is_delivered_again(console: Console, database: Database) -> None:
    """Deliveries of the same message continue meanwhile, and nothing is lost or fails."""
    store(database, failed(1))
    errors: list[BaseException] = []

    def deliver() -> None:
        try:
            for number in range(60):
                store(database, failed(1), failed(1)._replace(envelope=submission(b"", f"{number}@x").envelope))
        except BaseException as error:  # noqa: BLE001 # a failure in a thread is kept, whatever it is
            errors.append(error)

    thread = threading.Thread(target=deliver)
    thread.start()
    while thread.is_alive():
        assert console.run("reparse", "--all").status == 0
        database.execute("UPDATE pipehandler.message SET state = 'failed', error = 'again'")
    thread.join(60)
    assert not errors
    assert console.run("reparse").status == 0
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 61
    assert states(database) == {"parsed"}


def waiting(database: Database) -> int:
    """The number of sessions that wait for a lock."""
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return int(database.value(waits))


def test_does_not_wait_for_a_delivery(database: Database, console: Console) -> None:
    """An uncommitted delivery of the message to another recipient blocks nothing."""
    store(database, failed(1))
    with psycopg.connect(database.conninfo) as other:
        second = failed(1)._replace(envelope=submission(b"", "second@x").envelope)
        other.execute("SELECT FROM pipehandler.ingest(%s, %s, %s, %s, %b, %b, %b)", second.arguments())
        assert console.run("reparse").text == "1 tried, 1 changed, 1 parsed now\n"
        other.commit()
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 2


def test_others_wait_for_one_message(database: Database, console: Console) -> None:
    """While a message is being replaced, another run and a delivery of it wait, and then see the new values."""
    store(database, failed(1))
    with psycopg.connect(database.admin) as other:
        other.execute(
            "SELECT FROM pipehandler.reparse(%s, %s, NULL, NULL, NULL)",
            [identify(MESSAGE + b"1").id, submission(MESSAGE + b"1").arguments()[1]],
        )
        second = failed(1)._replace(envelope=submission(b"", "second@x").envelope)
        thread = threading.Thread(target=store, args=(database, second))
        thread.start()
        running = console.start("reparse", "--all")
        wait_until(lambda: waiting(database) == 2)
        other.commit()
        thread.join(30)
        output, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (0, b"")
    assert b"1 parsed again" in output or b"1 parsed now" in output  # it may have looked before
    assert (states(database), database.value("SELECT count(*) FROM pipehandler.delivery")) == ({"parsed"}, 2)


def test_removed_meanwhile(database: Database, console: Console) -> None:
    """A message that is dropped while reparse waits for it is not an error."""
    store(database, failed(1), failed(2))
    with psycopg.connect(database.admin) as other:
        other.execute("DELETE FROM pipehandler.delivery")
        other.execute("DELETE FROM pipehandler.message")
        running = console.start("reparse")
        wait_until(lambda: waiting(database))
        other.commit()
    output, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (0, b"")
    assert output.startswith(b"2 tried, 0 changed")


def test_database_goes_away(own_database: Database, folder: Path) -> None:
    """It stops, and reports how far it got and how to continue; nothing is half done."""
    console = Console(folder, own_database)
    store(own_database, *(failed(number) for number in range(MANY)))
    running = console.start("reparse")
    done = "SELECT count(*) FROM pipehandler.message WHERE state = 'parsed'"
    wait_until(lambda: own_database.value(done) > 20)
    own_database.server.stop()
    output, errors = running.communicate(timeout=60)
    own_database.server.start()
    assert running.returncode == EX_UNAVAILABLE
    assert b" tried, " in output
    assert re.match(rb"to continue: pipehandler reparse --after [0-9a-f-]{36}\nError: database: ", errors), errors
    assert console.run("reparse").status == 0
    assert states(own_database) == {"parsed"}


def test_roles(console: Console, database: Database) -> None:
    """The maintenance role may (above); readers and the handler may not, and get a hint; no other role may call the
    function."""
    store(database, failed(1))
    before = everything(database)
    for role in ("reader", "pipehandler"):
        console.configure(role)
        done = console.run("reparse")
        assert done.status == EX_UNAVAILABLE
        assert "permission denied" in done.errors
        assert "pipehandler_maintenance" in done.errors
        with (
            psycopg.connect(database.server.conninfo(database.name, user=role)) as connection,
            pytest.raises(InsufficientPrivilege),
        ):
            connection.execute("SELECT * FROM pipehandler.reparse(NULL, NULL, NULL, NULL, NULL)")
    assert everything(database) == before


def test_on_a_terminal(console: Console, database: Database) -> None:
    """A progress bar for people, and lines that do not run into it."""
    store(database, *(failed(number) for number in range(3)))
    shown = console.on_a_terminal("reparse", "--verbose")
    assert b"100%" in shown
    assert shown.count(b"parsed now") == 4
