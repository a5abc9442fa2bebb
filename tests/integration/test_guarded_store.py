"""Failures caused by a message alone: it is stored or quarantined at the first or second attempt, and no other message
is affected."""

import hashlib
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from harness import account, poison
from harness.database import Database
from harness.handler import Handler
from harness.proxy import AFTER, CUT, FRONTEND, STALL, Fault, proxy
from harness.service import Service, wait_until
from harness.submission import MESSAGE, submission

from pipehandler.delivery import guarded_store as module
from pipehandler.ingress.archived import unfit
from pipehandler.mail.parsed import Defect
from pipehandler.parse.message import parse
from pipehandler.runtime.deadline import Deadline, TimeUp, clear
from pipehandler.store.errors import DataRefused, StoreError
from pipehandler.store.ingest import IngestRequest, Stored
from pipehandler.store.message_store import MessageStore

CONTROLS = bytes(octet for octet in range(1, 32) if octet not in b"\t\n\r")
OTHER = b"Message-ID: <2@example.org>\nSubject: two\n\nanother\n"


def wide_header(octets: int) -> bytes:
    """A header of control characters, each field as long as Postfix allows."""
    line = (CONTROLS * 4000)[:90_000]
    return b"".join(b"X-%d: %s\n" % (number, line) for number in range(octets // 90_000)) + b"\nbody\n"


def wide_names(count: int) -> bytes:
    """Attachments whose names are control characters."""
    name = (CONTROLS * 1000)[:20_000].replace(b'"', b"").replace(b"\\", b"")
    part = b'--b\nContent-Type: image/gif; name="%s"\n\nx\n' % name
    return b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n" + part * count + b"--b--\n"


def quiet(handler: Handler) -> None:
    """The breaker is closed, and another message is stored at once."""
    assert not (handler.state / "outage").exists()
    assert handler.deliver(OTHER).status == 0


def states(database: Database) -> list[tuple[str, str | None]]:
    """State and error of MESSAGE, or whatever is not OTHER."""
    rows = database.rows("SELECT state, error FROM pipehandler.message WHERE subject IS DISTINCT FROM 'two'")
    return [(row.state, row.error) for row in rows]


@pytest.mark.parametrize("raw", [wide_header(2_000_000), wide_names(60)], ids=["header", "names"])
def test_wide_message(database: Database, raw: bytes) -> None:
    """Values sent as arrays give the same row as values sent as JSON."""
    parsed = parse(raw)
    with closing(MessageStore(database.conninfo)) as store:
        store.ingest(submission(raw))
    (row,) = database.rows("SELECT header, state FROM pipehandler.message")
    assert row.state == "parsed"
    assert row.header == json.loads(json.dumps(parsed.header))
    rows = database.rows("SELECT * FROM pipehandler.attachment ORDER BY ordinal")
    assert [(row.file_name, row.content_type, row.part, row.size) for row in rows] == [
        (each.file_name, each.content_type, each.part, len(each.content)) for each in parsed.attachments
    ]


def test_wide_message_is_not_larger_than_itself(database: Database) -> None:
    """Control characters cost an octet each on the wire, not six."""
    raw = wide_header(2_000_000)
    with proxy(database.server.port) as wire, closing(MessageStore(wire.conninfo(database.conninfo))) as store:
        store.ingest(submission(raw))
        octets = sum(len(each.octets) for each in wire.messages if each.sender == FRONTEND)
    assert octets < 2.5 * len(raw)


def test_largest_header(handler: Handler, database: Database) -> None:
    """36 MB of control characters are stored unchanged, within the memory and the time of one delivery."""
    raw = wide_header(36_000_000)
    ended = handler.deliver(raw)
    assert (ended.status, ended.output[:13]) == (0, "2.0.0 stored "), ended
    assert states(database) == [("parsed", None)]
    quiet(handler)


def test_libpq_out_of_memory(handler: Handler, database: Database) -> None:
    """A message for which libpq has not enough memory is stored unparsed."""
    raw = b"Content-Type: text/plain; charset=koi8-r\n\n" + bytes(range(0xC0, 0x100)) * 700_000
    handler.configure(database.conninfo, limits={"memory": 310_144_000, "message_size": 8_000_000})
    for attempt in range(3):
        ended = handler.deliver(raw[: 7_900_000 - attempt])
        assert ended.status == 0, (ended, handler.log_lines()[-1])
    quiet(handler)


def test_out_of_memory(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed data for which this process has no memory is left out at the first attempt; without it, the message is stored."""
    request, ingest = submission(MESSAGE), module._ingest

    def starved(store: MessageStore, given: IngestRequest, **how: bool) -> list[Stored]:
        if given.parsed.error is None:
            raise MemoryError
        return ingest(store, given, **how)

    monkeypatch.setattr(module, "_ingest", starved)
    defects = [Defect("envelope-value", "size")]
    with closing(MessageStore(database.conninfo)) as store:
        stored, parsed = module.guarded_store(store, request, str(tmp_path), defects)
    reason = "what was read from the message does not fit into the memory"
    assert len(stored) == 1
    assert (parsed.error, parsed.defects) == (reason, defects)
    assert states(database) == [("failed", reason)]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "body",
    [
        "PERFORM pg_sleep(10)",
        "RAISE 'no' USING ERRCODE = 'XX000'",
        "RAISE 'no' USING ERRCODE = '53200'",
        "RAISE 'no'",
        "INSERT INTO public.thread VALUES (NEW.message_id), (NEW.message_id)",
        "PERFORM 1 / (SELECT n FROM (VALUES (1), (2)) AS v (n))",
        "RAISE 'no' USING ERRCODE = 'P0002'",
        "RAISE 'no' USING ERRCODE = '38000'",
    ],
    ids=["slow", "internal", "memory", "raise", "unique", "cardinality", "no row", "another language"],
)
def test_a_message_that_the_database_fails_at(handler: Handler, database: Database, body: str) -> None:
    """Deferred once, then stored unparsed, whatever it does; nothing else is deferred meanwhile. Each delivery tries it once.
    An application's trigger may fail for one message in many ways."""
    database.execute(
        "CREATE TABLE public.thread (message_id text UNIQUE);"
        "CREATE SEQUENCE public.tried; CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        f" $$ BEGIN IF NEW.subject = 'one' THEN PERFORM nextval('public.tried'); {body}; END IF; RETURN NEW; END $$"
    )
    database.execute(
        "CREATE TRIGGER fail BEFORE INSERT ON pipehandler.message FOR EACH ROW EXECUTE FUNCTION public.fail()"
    )
    handler.configure(database.conninfo, database={"statement_timeout": 1})
    ended = handler.deliver(MESSAGE)
    assert (ended.status, ended.output) == (75, "4.3.0 message store unavailable\n")
    quiet(handler)
    ended = handler.deliver(MESSAGE)
    assert (ended.status, ended.output[:25]) == (0, "2.0.0 stored, not parsed "), ended
    ((state, error),) = states(database)
    assert state == "failed"
    assert error is not None
    assert error.startswith("the database failed twice")
    assert database.value("SELECT last_value FROM public.tried") == 2
    assert not [each for each in handler.state.iterdir() if each.name.startswith("storing-")]


NO_TRANSACTIONS = """
SET allow_system_table_mods = on;
ALTER FUNCTION pg_catalog.pg_current_xact_id() RENAME TO pg_current_xact_id_before;
CREATE FUNCTION pg_catalog.pg_current_xact_id() RETURNS xid8 LANGUAGE plpgsql AS $$ BEGIN
    RAISE 'database is not accepting commands that assign new transaction IDs' USING ERRCODE = 'program_limit_exceeded';
END $$;
"""
"""What a server reports that has used up its transaction ids (PostgreSQL documentation, 24.1.5), with the class of an error in
the data."""


def test_a_database_that_takes_nothing_is_not_the_message(database: Database, tmp_path: Path) -> None:
    """What every message would meet is an outage, whatever its SQLSTATE: nothing is called unstorable, or set aside."""
    database.execute(NO_TRANSACTIONS)
    with closing(MessageStore(database.conninfo)) as store, pytest.raises(StoreError) as raised:
        module.guarded_store(store, submission(), str(tmp_path), ())
    assert (raised.value.sqlstate, raised.value.outage, raised.value.result.outage) == ("54000", True, True)
    assert not isinstance(raised.value, DataRefused)
    assert not unfit(raised.value.result)
    assert list(tmp_path.iterdir()) == []
    database.execute(
        "SET allow_system_table_mods = on; DROP FUNCTION pg_catalog.pg_current_xact_id();"
        "ALTER FUNCTION pg_catalog.pg_current_xact_id_before() RENAME TO pg_current_xact_id"
    )
    with closing(MessageStore(database.conninfo)) as store:
        assert module.guarded_store(store, submission(), str(tmp_path), ())[0][0].duplicate is False
    assert states(database) == [("parsed", None)]


def test_no_numbers_left_is_not_the_message(database: Database, tmp_path: Path) -> None:
    """The sequence of deliveries is used up: every message waits until an operator has moved it."""
    database.execute("ALTER TABLE pipehandler.delivery ALTER COLUMN id SET MAXVALUE 2 RESTART WITH 2")
    with closing(MessageStore(database.conninfo)) as store:
        store.ingest(submission(OTHER))
        with pytest.raises(StoreError) as raised:
            module.guarded_store(store, submission(), str(tmp_path), ())
    assert raised.value.sqlstate == "2200H"
    assert not isinstance(raised.value, DataRefused)
    assert not unfit(raised.value.result)


def slow(database: Database, seconds: int) -> None:
    """Let the database take so long for whatever is stored of MESSAGE, as a host under load does for a large one."""
    database.execute(
        "CREATE SEQUENCE public.tried; CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        f" $$ BEGIN IF NEW.size = {len(MESSAGE)} THEN PERFORM nextval('public.tried'); PERFORM pg_sleep({seconds}); END IF;"
        " RETURN NEW; END $$"
    )
    database.execute(
        "CREATE TRIGGER fail BEFORE INSERT ON pipehandler.message FOR EACH ROW EXECUTE FUNCTION public.fail()"
    )


def test_the_raw_message_has_all_the_time(handler: Handler, database: Database) -> None:
    """A host that needs longer than statement_timeout for the raw message as well stores it in what is left of the deadline."""
    slow(database, 3)
    handler.configure(database.conninfo, database={"statement_timeout": 1})
    assert handler.deliver(MESSAGE).status == 75
    quiet(handler)
    assert "stored, not parsed" in handler.deliver(MESSAGE).output
    assert [state for state, _ in states(database)] == ["failed"]


def test_the_limits_after_a_last_call(database: Database) -> None:
    """Only that call may take all the time that is left, and nothing that follows it on the connection."""
    with closing(MessageStore(database.conninfo, statement_timeout=5)) as store:
        store.remaining = lambda: 60
        store.ingest(submission(MESSAGE), last=True)
        assert store.values("SELECT current_setting('statement_timeout')", of=str) == ["5s"]


def test_an_attempt_that_begins_with_the_raw_message(database: Database, tmp_path: Path) -> None:
    """Where even that is too long for the second attempt, the third one does not try what was parsed again: it is not
    deferred until it bounces."""
    slow(database, 5)
    request = submission(MESSAGE)
    mark = tmp_path / f"storing-{request.identity.id}"
    with closing(MessageStore(database.conninfo, statement_timeout=1)) as store:
        store.remaining = lambda: 4
        for length in (0, 1):
            with pytest.raises(StoreError) as raised:
                module.guarded_store(store, request, str(tmp_path), [])
            assert raised.value.by_message
            assert (mark.stat().st_size > 0) == length
        before = database.value("SELECT last_value FROM public.tried")
        store.remaining = lambda: 60
        stored, parsed = module.guarded_store(store, request, str(tmp_path), [])
    assert database.value("SELECT last_value FROM public.tried") == before + 1
    assert len(stored) == 1
    assert parsed.error
    assert parsed.error.startswith("the database failed twice to store what was parsed: ")
    assert not mark.exists()
    assert states(database) == [("failed", parsed.error)]


@pytest.mark.parametrize(
    "plant", ["file", *(pytest.param(each, marks=pytest.mark.long) for each in ("link", "directory"))]
)
def test_a_mark_that_is_another_file(database: Database, tmp_path: Path, plant: str) -> None:
    """`import` may run as root, in a directory of the handler's account: what stands in the place of the mark is not followed,
    not shown and not changed."""
    secret, folder = tmp_path / "secret", tmp_path / "state"
    folder.mkdir()
    secret.write_text("root's own")
    slow(database, 3)
    request = submission(MESSAGE)
    mark = folder / f"storing-{request.identity.id}"
    if plant == "file":
        mark.hardlink_to(secret)
    elif plant == "link":
        mark.symlink_to(secret)
    else:
        mark.mkdir()
    with closing(MessageStore(database.conninfo, statement_timeout=1)) as store:
        store.remaining = lambda: 3
        with pytest.raises(StoreError):
            module.guarded_store(store, request, str(folder), [])
        store.remaining = lambda: 60
        _, parsed = module.guarded_store(store, request, str(folder), [])
    assert secret.read_text() == "root's own"
    assert "root's own" not in str(parsed.error)


def test_a_wire_that_is_slow(database: Database, tmp_path: Path) -> None:
    """A large message that is still being sent at the deadline, though others get through, is quarantined at the second
    attempt. The server's own limit begins when it has received all of it."""
    request = submission(MESSAGE + b"x" * 20_000_000)
    clock = Deadline(600, time.monotonic())
    try:
        with proxy(database.server.port) as wire, closing(MessageStore(wire.conninfo(database.conninfo))) as store:
            calls = itertools.count()
            # After the statement comes what is sent of the message: nobody reads it.
            wire.fault = Fault(
                lambda each: each.kind == "P" and b"pipehandler.ingest" in each.octets and next(calls) < 2,
                where=AFTER,
                how=STALL,
                always=True,
            )
            with pytest.raises(TimeUp), clock.step(2):
                module.guarded_store(store, request, str(tmp_path), [])
            store.remaining, store.step = lambda: 4, clock.step
            stored, _ = module.guarded_store(store, request, str(tmp_path), [])
    finally:
        clear()
    assert len(stored) == 1
    assert states(database) == [
        (
            "failed",
            "the database failed twice to store what was parsed: the database did not answer in time SQLSTATE 57014",
        )
    ]


def test_a_wait_for_something_else_is_not_the_message(database: Database, tmp_path: Path) -> None:
    """A message that the server has received whole is not suspected at the deadline: it may wait for its standby."""
    slow(database, 30)
    clock = Deadline(600, time.monotonic())
    request = submission(MESSAGE)
    try:
        with closing(MessageStore(database.conninfo)) as store:
            with pytest.raises(TimeUp), clock.step(2):
                module.guarded_store(store, request, str(tmp_path), [])
            assert not list(tmp_path.iterdir())
            (tmp_path / f"storing-{request.identity.id}").touch()
            store.remaining, store.step = lambda: 60, lambda _: clock.step(2)
            with pytest.raises(StoreError, match="the database did not answer in time") as raised:
                module.guarded_store(store, request, str(tmp_path), [])
            assert not raised.value.by_message
    finally:
        clear()


@pytest.mark.long
@pytest.mark.parametrize("kind", ["header", "names"])
def test_four_large_messages_at_once(handler: Handler, database: Database, kind: str) -> None:
    """Four messages of 42 MB of control characters at once, through workers with the default limits: each is stored or
    quarantined after at most as many attempts as a host under load may need, and other mail goes on meanwhile."""
    made = {"header": lambda: wide_header(42_000_000), "names": lambda: wide_names(2090)}[kind]()
    assert 41_000_000 < len(made) < 43_000_000
    recipients = [f"{number}@example.com" for number in range(4)]
    done = threading.Event()
    others: list[int] = []

    def raw(recipient: str) -> bytes:
        return b"Message-ID: <%s>\n" % recipient.encode() + made

    def deliver(recipient: str) -> list[str]:
        content, ends = raw(recipient), [""]
        while not ends[-1].startswith("2.0.0 stored"):
            ended = handler.deliver(content, recipient, size=len(content) + content.count(b"\n"))
            ends.append(ended.output)
            deferred = [each for each in ends[1:] if each[:3] != "2.0" and "congested" not in each]
            assert len(deferred) <= 2, handler.log_lines()
            assert len(ends) < 60  # while the other large ones are delivered
        return ends

    def deliver_others() -> None:
        while not done.wait(0.2):
            other = OTHER.replace(b"<2@", b"<other%d@" % len(others))
            others.append(handler.deliver(other).status)

    with Service(handler) as service, ThreadPoolExecutor(5) as senders:
        wait_until(service.ready)
        beside = senders.submit(deliver_others)
        try:
            ends = list(senders.map(deliver, recipients))
        finally:
            done.set()
        beside.result()
    assert all(each[-1].startswith("2.0.0 stored") for each in ends)
    assert len(others) >= 4
    assert set(others) == {0}
    assert not (handler.state / "outage").exists()
    rows = database.rows(
        "SELECT d.recipient, sha256(r.raw) AS digest"
        " FROM pipehandler.delivery d JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message"
        " WHERE d.recipient = ANY(%s) ORDER BY d.recipient",
        recipients,
    )
    assert [(row.recipient, bytes(row.digest)) for row in rows] == [
        (each, hashlib.sha256(raw(each)).digest()) for each in recipients
    ]


FAILURES = {
    "internal": "RAISE 'no' USING ERRCODE = 'XX000'",
    "memory": "RAISE 'no' USING ERRCODE = '53200'",
    "raise": "RAISE 'no'",
    "slow": "PERFORM pg_sleep(10)",
}
"""What the database does at a message, by a name for the test."""


@pytest.mark.long
@pytest.mark.parametrize("failure", [*FAILURES, "connection", "parser"])
def test_a_hundred_attempts(handler: Handler, database: Database, failure: str) -> None:
    """A hundred attempts at fifty messages of one kind, through one worker: each message is stored at its second attempt at the
    latest, the breaker stays closed, and other mail is stored at once."""
    if failure in FAILURES:
        database.execute(
            "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN IF NEW.subject = 'one' THEN {FAILURES[failure]}; END IF; RETURN NEW; END $$;"
            "CREATE TRIGGER fail BEFORE INSERT ON pipehandler.message FOR EACH ROW EXECUTE FUNCTION public.fail()"
        )
    under = poison.lethal() if failure == "parser" else []
    with proxy(database.server.port) as wire:
        handler.configure(wire.conninfo(database.conninfo), serve={"workers": 1}, database={"statement_timeout": 1})
        if failure == "connection":
            wire.fault = Fault(lambda each: b'"subject": "one"' in each.octets, always=True)
        with Service(handler, under=under) as service:
            for number in range(50):
                raw = poison.POISON if failure == "parser" else MESSAGE
                raw = raw.replace(b"Message-ID: <", b"Message-ID: <%d" % number)
                statuses = [handler.deliver(raw, f"{number}@example.com").status for _ in range(2)]
                assert statuses in ([75, 0], [0, 0]), (number, statuses)
                assert not (handler.state / "outage").exists()
                assert handler.deliver(OTHER.replace(b"<2@", b"<other%d@" % number)).status == 0
                wait_until(service.ready)
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 100
    assert database.value("SELECT count(*) FROM pipehandler.message WHERE state = 'failed'") == 50


@pytest.mark.parametrize("subject", ["lock", "cancel"])
def test_what_never_counts(handler: Handler, database: Database, subject: str) -> None:
    """A lock that is not released, or an administrator's cancel, is not evidence against the message, however often it
    happens."""
    handler.configure(database.conninfo, database={"statement_timeout": 2})
    for _ in range(3):
        with psycopg.connect(database.admin) as other:
            other.execute("LOCK pipehandler.delivery")
            with handler.start(handler.command()) as running:
                assert running.stdin is not None
                running.stdin.write(MESSAGE)
                running.stdin.close()
                while running.poll() is None:
                    if subject == "cancel":
                        database.execute(
                            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'pipehandler'"
                            " AND wait_event_type = 'Lock'"
                        )
            assert running.returncode == 75
    assert handler.deliver(MESSAGE).status == 0
    assert states(database) == [("parsed", None)]


def test_connection_that_ends_once(handler: Handler, database: Database) -> None:
    """A session that ends while the database is up costs a retry, but no deferral."""
    with proxy(database.server.port) as wire:
        handler.configure(wire.conninfo(database.conninfo))
        wire.fault = Fault(lambda each: each.sender == FRONTEND and each.kind == "E", how=CUT)
        assert handler.deliver(MESSAGE).status == 0
        assert wire.hits == 1
    assert states(database) == [("parsed", None)]


def test_connection_that_ends_of_this_message(handler: Handler, database: Database) -> None:
    """A message at which every connection ends, without an error from the server, is quarantined at the second
    attempt."""
    with proxy(database.server.port) as wire:
        handler.configure(wire.conninfo(database.conninfo))
        wire.fault = Fault(lambda each: b'"subject": "one"' in each.octets, always=True)
        assert handler.deliver(MESSAGE).status == 75
        quiet(handler)
        assert "stored, not parsed" in handler.deliver(MESSAGE).output
    assert [state for state, _ in states(database)] == ["failed"]


def test_database_that_is_gone_opens_the_breaker(handler: Handler, own_database: Database) -> None:
    """When no server answers, the breaker opens, and no message is suspected."""
    handler.configure(own_database.conninfo)
    own_database.execute(
        "CREATE FUNCTION public.wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;"
        "CREATE TRIGGER wait BEFORE INSERT ON pipehandler.message FOR EACH ROW EXECUTE FUNCTION public.wait()"
    )
    with handler.start(handler.command()) as running:
        assert running.stdin is not None
        running.stdin.write(MESSAGE)
        running.stdin.close()
        while not own_database.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            pass
        own_database.server.stop(signal.SIGQUIT)
    assert running.returncode == 75
    assert [each.name for each in handler.state.iterdir() if each.name[:7] in ("outage", "storing")] == ["outage"]
    own_database.server.start()


@pytest.mark.parametrize("directory", ["missing", "closed"])
def test_without_a_state_directory(handler: Handler, database: Database, directory: str) -> None:
    """If the first failure cannot be counted, it decides: no message is deferred forever."""
    database.execute(
        "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN IF NEW.subject = 'one' THEN RAISE 'no' USING ERRCODE = 'XX000'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER fail BEFORE INSERT ON pipehandler.message FOR EACH ROW EXECUTE FUNCTION public.fail()"
    )
    state = handler.folder / "nowhere" if directory == "missing" else handler.state
    handler.configure(database.conninfo, state={"directory": str(state)})
    handler.state.chmod(0o000)
    assert "stored, not parsed" in handler.deliver(MESSAGE).output


def test_host_without_descriptors(handler: Handler) -> None:
    """If libpq gets no descriptor or no memory, the host lacks a resource (71), and the database is not down."""
    program = (
        "import os, resource, sys\n"
        "from pipehandler.store.message_store import MessageStore\n"
        "from pipehandler.store.errors import StoreError\n"
        "import psycopg\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))\n"
        "files = []\n"
        "try:\n"
        "    while True: files.append(os.dup(0))\n"
        "except OSError: pass\n"
        "try: MessageStore(sys.argv[1]).connect()\n"
        "except StoreError as error: print(error.outcome.name, error.outage)\n"
    )
    conninfo = f"host=127.0.0.1 port={account.free_port()}"
    done = subprocess.run([sys.executable, "-c", program, conninfo], capture_output=True, text=True, check=True)
    assert done.stdout == "exhausted False\n"
