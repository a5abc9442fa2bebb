"""Four shards behind a proxy: where mail goes, what a dead shard costs the others, and what a reader gets."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from signal import SIGKILL

import psycopg
import pytest
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.inboxes import DOMAIN, Page, issue, send
from harness.service import ResidentHandler, wait_until
from harness.shards import COUNT, ROLE, Shards
from harness.stream import stored
from harness.submission import MESSAGE, submission
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import RaiseException
from psycopg.sql import quote

from pipehandler.store.errors import StoreError
from pipehandler.store.health import health
from pipehandler.store.inbox_errors import NameRefused
from pipehandler.store.inbox_shards import new_key
from pipehandler.store.message_store import MessageStore
from pipehandler.store.migrate import MigrationError
from pipehandler.store.shards import become_shard, make_shards, migrate_all, proxy_conninfo
from pipehandler.store.shards import shards as shards_behind
from pipehandler.store.sql_files import migrations
from pipehandler.store.stream import follow

_WAITING = "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND usename = 'pipehandler'"


@pytest.fixture
def handler(shards: Shards) -> Iterator[Handler]:
    """A cold handler, whose configuration names the proxy."""
    with account.folder("pipehandler-") as folder:
        yield Handler(folder, shards.proxy.conninfo)


@contextmanager
def _worker(shards: Shards) -> Iterator[Handler]:
    """A handler with one resident worker, which waits for a statement for two seconds."""
    with account.folder("pipehandler-") as folder:
        handler = ResidentHandler(folder, shards.proxy.conninfo)
        limits: dict[str, dict[str, object]] = {
            "database": {"statement_timeout": 2},
            "limits": {"deadline": 40},
            "serve": {"workers": 1},
        }
        handler.configure(shards.proxy.conninfo, **limits)
        try:
            yield handler
        finally:
            handler.stop()


@pytest.mark.parametrize("address", ["User+x@Example.com", "user@example.com", "USER+y+z@EXAMPLE.COM"])
def test_one_shard_for_all_spellings(shards: Shards, address: str) -> None:
    """A recipient in any case and with any extension is on the shard of its address without it."""
    assert shards.number(address) == shards.number("user@example.com")


def test_lookup_lease_and_delivery_agree(shards: Shards, handler: Handler) -> None:
    """RCPT TO, the lease and the delivery meet on one shard, for every spelling; nothing is on another."""
    for number, address in list(enumerate(shards.addresses("agree.example")))[1:3]:
        lease = shards.proxy.value("SELECT lease FROM pipehandler.lease_address(%s)", address)
        local = address.partition("@")[0]
        spelling = f"{local.upper()}+x@Agree.Example"
        assert shards.proxy.rows("SELECT pipehandler.lookup(%s, '+')", spelling) == [("OK",)]
        assert handler.deliver(MESSAGE, spelling).status == 0
        (row,) = shards.of[number].rows("SELECT lease, extension, id FROM pipehandler.delivery WHERE lease = %s", lease)
        assert (row.extension, row.id % 64, lease % 64) == ("x", number, number)
        elsewhere = [shard for other, shard in enumerate(shards.of) if other != number]
        assert all(not each.rows("SELECT FROM pipehandler.delivery WHERE lease = %s", lease) for each in elsewhere)
        assert handler.deliver(MESSAGE, spelling).output.startswith("2.0.0 stored before")


def test_catch_all(shards: Shards, handler: Handler) -> None:
    """A catch-all has one number on all shards, and ends on all of them."""
    lease = shards.proxy.value("SELECT lease FROM pipehandler.lease_address('@all.example')")
    addresses = shards.addresses("all.example")
    assert handler.deliver(MESSAGE, *addresses).status == 0
    for number, address in enumerate(addresses):
        assert shards.proxy.rows("SELECT pipehandler.lookup(%s, '+')", address) == [("OK",)]
        assert shards.of[number].value("SELECT lease FROM pipehandler.delivery WHERE recipient = %s", address) == lease
    found = "SELECT deliveries FROM pipehandler.find_lease(by_address => '@all.example')"
    assert shards.proxy.value(found) == COUNT
    shards.proxy.execute("SELECT pipehandler.expire_lease(%s)", lease)
    assert not [address for address in addresses if shards.proxy.rows("SELECT pipehandler.lookup(%s)", address)]
    assert shards.proxy.value("SELECT pipehandler.remove_lease(%s)", lease) == COUNT
    assert not [each for each in shards.of if each.rows("SELECT FROM pipehandler.address WHERE lease = %s", lease)]


def test_catch_all_is_completed(shards: Shards) -> None:
    """A catch-all that could not be created on every shard is not reported as created; the same call completes it."""
    last = shards.of[-1]
    last.server.stop(SIGKILL)
    with pytest.raises(psycopg.DatabaseError, match="shard 3 is away: connection to server"):
        shards.proxy.execute("SELECT pipehandler.lease_address('@later.example')")
    last.server.start()
    shards.of[0].execute("SELECT pipehandler.lease_address('@later.example')")  # so far a call came that broke off
    lease = shards.proxy.value("SELECT lease FROM pipehandler.lease_address('@later.example')")
    everywhere = "SELECT lease FROM pipehandler.address WHERE address = '@later.example'"
    assert [shard.value(everywhere) for shard in shards.of] == [lease] * COUNT
    with pytest.raises(Exception, match="already has a current lease"):
        shards.proxy.execute("SELECT pipehandler.lease_address('@later.example')")


def test_another_delimiter(shards: Shards) -> None:
    """A handler with another delimiter would look on another shard, and is refused."""
    with pytest.raises(RaiseException, match="created with the delimiter"):
        shards.proxy.execute("SELECT pipehandler.route(ARRAY['a@example.com'], '-')")


def test_recipients_on_all_shards(shards: Shards, handler: Handler) -> None:
    """A message for recipients on all shards is stored for each of them."""
    addresses = shards.addresses("many.example")
    assert handler.deliver(MESSAGE, *addresses).status == 0
    found = [each for each in shards.deliveries() if each.endswith("@many.example")]
    assert found == [f"{number} {address}" for number, address in enumerate(addresses)]


def test_a_dead_shard(shards: Shards, handler: Handler) -> None:
    """One shard is killed: mail for the others is delivered, its own deferred, and nothing is lost or stored twice."""
    addresses = shards.addresses("dead.example")
    for address in addresses:
        shards.proxy.execute("SELECT pipehandler.lease_address(%s)", address)
    shards.of[1].server.stop(SIGKILL)
    looked_up = [shards.proxy.rows("SELECT pipehandler.lookup(%s)", address)[0][0] for address in addresses]
    assert [answer.partition(" ")[0] for answer in looked_up] == ["OK", "DEFER", "OK", "OK"]
    assert shards.proxy.rows("SELECT pipehandler.lookup('dead.example')") == []

    first = [handler.deliver(MESSAGE, address).status for address in addresses[:2]]
    assert first == [0, 75]
    assert (handler.state / "outages" / "1").exists()
    assert not (handler.state / "outage").exists()
    os.utime(handler.state / "outages" / "1")  # however long the deliveries took
    again = handler.deliver(MESSAGE, *addresses)  # one call for all: what failed decides
    assert (again.status, again.output) == (75, "4.3.0 message store unavailable\n")
    assert "outcome=outage" in handler.log_lines()[-1]

    shards.of[1].server.start()
    (handler.state / "outages" / "1").unlink()
    assert handler.deliver(MESSAGE, *addresses).status == 0
    found = [each for each in shards.deliveries() if each.endswith("@dead.example")]
    assert found == [f"{number} {address}" for number, address in enumerate(addresses)]


def test_a_frozen_shard(shards: Shards, handler: Handler) -> None:
    """The server of a shard does not answer at all: its mail is deferred within the deadline, and then at once; mail for the
    others goes on. The message is not blamed."""
    own, other = shards.addresses("frozen.example")[1:3]
    handler.configure(shards.proxy.conninfo, database={"statement_timeout": 2}, limits={"deadline": 30})
    breaker = handler.state / "outages" / "1"
    past = time.time() - 60
    shards.of[1].server.freeze()
    try:
        assert handler.deliver(MESSAGE, own).status == 75
        assert 'reason="shard 1 does not answer"' in handler.log_lines()[-1]
        assert handler.deliver(MESSAGE, other).status == 0
        os.utime(breaker)  # however long the deliveries took
        assert handler.deliver(MESSAGE, own).status == 75
        assert 'reason="shard 1 is known to be down"' in handler.log_lines()[-1]
        os.utime(breaker, (past, past))  # the next one probes, and is not held up by its message
        assert handler.deliver(MESSAGE, own, other).status == 75
        assert not list(handler.state.glob("storing-*"))
        assert not (handler.state / "outage").exists()
        assert breaker.stat().st_mtime > past + 1  # it was tried, and stays open
    finally:
        shards.of[1].server.thaw()
    os.utime(breaker, (past, past))
    assert handler.deliver(MESSAGE, own).output.startswith("2.0.0 stored ")
    assert not breaker.exists()
    found = [each for each in shards.deliveries() if each.endswith("@frozen.example")]
    assert found == [f"1 {own}", f"2 {other}"]


def test_a_shard_freezes_that_is_connected(shards: Shards) -> None:
    """A worker whose session has a connection to a shard that freezes defers its mail long before the deadline, and stores
    that for the others; no session of the proxy waits for the shard afterwards."""
    own, other = shards.addresses("connected.example")[1:3]
    with _worker(shards) as handler:
        assert [handler.deliver(MESSAGE, address).status for address in (own, other)] == [0, 0], handler.log_lines()
        shards.of[1].server.freeze()
        try:
            second = MESSAGE.replace(b"<1@", b"<2@")
            assert handler.deliver(second, own).status == 75
            assert 'reason="shard 1 does not answer"' in handler.log_lines()[-1]
            assert (handler.state / "outages" / "1").exists()
            assert handler.deliver(second, other).output.startswith("2.0.0 stored ")
            wait_until(lambda: not shards.proxy.rows(_WAITING), "the end of the sessions that waited for the shard")
        finally:
            shards.of[1].server.thaw()
        (handler.state / "outages" / "1").unlink()
        assert handler.deliver(second, own).status == 0
    found = [each for each in shards.deliveries() if each.endswith("@connected.example")]
    assert found == [f"1 {own}", f"1 {own}", f"2 {other}", f"2 {other}"]


@pytest.fixture
def lookup(shards: Shards) -> Iterator[Callable[[str], str]]:
    """Postfix's session with the proxy, which stays connected: what it gets for an address."""
    with psycopg.connect(shards.proxy.server.conninfo(shards.proxy.name, "postfix"), autocommit=True) as connection:
        connection.execute("SET statement_timeout = 5000")  # as in pgsql-recipients.cf

        def answer(address: str) -> str:
            row = connection.execute("SELECT pipehandler.lookup(%s, '+')", [address]).fetchone()
            return str(row[0]).partition(" ")[0] if row else ""

        yield answer


def test_a_shard_freezes_that_a_lookup_is_connected_to(shards: Shards, lookup: Callable[[str], str]) -> None:
    """Postfix gets an answer about each address: DEFER for those of the shard, which has been connected before."""
    addresses = shards.addresses("asked.example")
    for address in addresses:
        shards.proxy.execute("SELECT pipehandler.lease_address(%s)", address)
    assert [lookup(address) for address in addresses] == ["OK"] * COUNT
    shards.of[1].server.freeze()
    try:
        assert [lookup(address) for address in addresses] == ["OK", "DEFER", "OK", "OK"]
        assert not shards.proxy.rows(_WAITING.replace("'pipehandler'", "'postfix'"))
        assert lookup(addresses[1]) == "DEFER"
    finally:
        shards.of[1].server.thaw()
    # Another session asks it at once.
    assert shards.proxy.rows("SELECT pipehandler.lookup(%s, '+')", addresses[1]) == [("OK",)]


def test_a_lookup_after_a_restart(shards: Shards, lookup: Callable[[str], str]) -> None:
    """The connection of an earlier look-up ended with the server, and the next one makes another; an address that was never
    issued has no row in either."""
    address = shards.addresses("again.example")[2]
    shards.proxy.execute("SELECT pipehandler.lease_address(%s)", address)
    assert [lookup(address), lookup(f"un{address}")] == ["OK", ""]
    shards.of[2].server.stop()
    shards.of[2].server.start()
    assert [lookup(address), lookup(f"un{address}")] == ["OK", ""]
    with pytest.raises(psycopg.errors.InsufficientPrivilege), psycopg.connect(shards.proxy.conninfo) as other:
        other.execute("SELECT pipehandler_dblink.dblink_get_connections()")


def test_no_proxy_any_more(shards: Shards, handler: Handler) -> None:
    """A shard fails, and the database that the handler asks for the route then is not a proxy: the message is deferred, as
    after any failure of the database, and no shard is blamed."""
    address = shards.addresses("plain.example")[1]
    shards.of[1].server.stop(SIGKILL)
    shards.proxy.execute("DROP FUNCTION pipehandler.route(text[], text)")
    try:
        assert handler.deliver(MESSAGE, address).status == 75
        assert "outcome=store_unavailable" in handler.log_lines()[-1]
        assert (handler.state / "outage").exists()
        assert not (handler.state / "outages").exists()
    finally:
        shards.of[1].server.start()
        with closing(MessageStore(shards.proxy.admin, statement_timeout=100)) as store:
            migrate_all(store, shards.proxy.admin, print)
    handler.end_hold()
    assert handler.deliver(MESSAGE, address).output.startswith("2.0.0 stored ")


def test_the_proxy_is_down(shards: Shards, handler: Handler) -> None:
    """Without the proxy no shard is reached: the breaker of the host opens, and none of a shard."""
    shards.proxy.server.stop(SIGKILL)
    assert handler.deliver(MESSAGE, "user@example.com").status == 75
    assert [file.name for file in handler.state.glob("outage*")] == ["outage"]
    shards.proxy.server.start()


def test_several_shards_in_one_call_of_sql(shards: Shards) -> None:
    """A handler that does not ask for the route first is deferred, and stores nothing."""
    request = submission(MESSAGE, *shards.addresses("unrouted.example"))
    with (
        closing(MessageStore(shards.proxy.conninfo)) as store,
        pytest.raises(StoreError, match="ask pipehandler") as refused,
    ):
        store.ingest(request)
    assert refused.value.sqlstate == "PH101"
    assert not [each for each in shards.deliveries() if each.endswith("@unrouted.example")]


def test_migrate(shards: Shards) -> None:
    """`migrate` on the proxy reaches every shard, and installs again what was damaged there."""
    with closing(MessageStore(shards.proxy.admin, statement_timeout=100)) as store:
        assert migrate_all(store, shards.proxy.admin, print) == []
        shards.of[3].execute("DROP FUNCTION pipehandler.cut_text(text, integer)")
        (applied,) = migrate_all(store, shards.proxy.admin, print)
        assert applied.endswith("on shard 3")
        with pytest.raises(StoreError, match="and stays it"):
            make_shards(store, shards.proxy.admin, [shard.admin for shard in shards.of[:2]], "+", "nobody", print)
        with pytest.raises(MigrationError, match="3 shards"):
            make_shards(store, shards.proxy.admin, [shard.admin for shard in shards.of[:3]], "+", "nobody", print)


def test_a_database_with_mail_is_no_shard(shards: Shards) -> None:
    """Mail that is already there would belong to other shards."""
    with Database.fresh(shards.proxy.server) as database:
        stored(database, 1)
        with closing(MessageStore(database.admin)) as store, pytest.raises(StoreError, match="has mail"):
            become_shard(store, 0, COUNT, "+")


def test_health(shards: Shards) -> None:
    """The numbers of the shards that answer are added up, and one that is away is named."""
    with closing(MessageStore(shards.proxy.conninfo)) as store:
        assert health(store).shards == (None,) * COUNT
        shards.of[0].server.stop(SIGKILL)
        found = health(store)
        assert [away is None for away in found.shards] == [False, True, True, True]
        assert found.schema_version == migrations()[-1].version
        shards.of[0].server.start()


def test_stream_over_a_move(shards: Shards, handler: Handler) -> None:
    """The stream of all shards goes on while one is killed, promoted on another server and found there: each delivery
    comes once, and those of one recipient in their order."""
    addresses = shards.addresses("stream.example")
    begin = shards.proxy.value("SELECT pipehandler.cursor_now()")

    def store_one(round_number: int, number: int) -> int:
        raw = MESSAGE.replace(b"<1@", b"<%d@" % (100 + COUNT * round_number + number))
        return handler.deliver(raw, addresses[number]).status

    moved = shards.of[2]
    old = moved.server
    standby = old.standby(old.folder.with_name("standby2"))
    old.synchronous()
    with standby, closing(follow(shards.proxy.server.conninfo(shards.proxy.name, "reader"), begin, poll=0.1)) as stream:
        assert [store_one(0, number) for number in range(COUNT)] == [0] * COUNT
        seen = [next(stream) for _ in range(COUNT)]
        old.stop(SIGKILL)
        assert [store_one(1, number) for number in range(COUNT)] == [0, 0, 75, 0]
        seen += [next(stream) for _ in range(COUNT - 1)]
        standby.promote()
        standby.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
        standby.reload()
        moved.move(standby)
        with closing(MessageStore(shards.proxy.admin, statement_timeout=100)) as store:  # as `migrate --proxy-of` does
            make_shards(store, shards.proxy.admin, [shard.admin for shard in shards.of], "+", ROLE, print)
        (handler.state / "outages" / "2").unlink()
        assert [store_one(number, 2) for number in (1, 2)] == [0, 0]
        seen += [next(stream) for _ in range(2)]
        ids = {delivery.id for delivery in seen}
        assert len(ids) == len(seen) == 2 * COUNT + 1
        of_moved = [delivery.id for delivery in seen if delivery.recipient == addresses[2]]
        assert of_moved == sorted(of_moved)
        middle = seen[COUNT - 1].cursor
        again = shards.proxy.rows("SELECT id FROM pipehandler.deliveries_after(%s)", middle)
        assert {row.id for row in again} == {delivery.id for delivery in seen[COUNT:]}
        with pytest.raises(RaiseException, match="of these 4 shards"):
            shards.proxy.rows("SELECT id FROM pipehandler.deliveries_after('700-1')")
    old.configure({"synchronous_standby_names": ""})
    (old.data / "postgresql.auto.conf").write_text("")
    shards.move(2, old.start())


def test_a_shard_with_two_servers(shards: Shards, handler: Handler) -> None:
    """The proxy, and the operator's commands, find the primary among the servers that a place names."""
    server, address = shards.of[1].server, shards.addresses("pair.example")[1]
    with server.standby(server.folder.with_name("standby1")) as standby:
        both = (standby, server)
        place = f"host={','.join(str(each.folder) for each in both)} port={','.join(str(each.port) for each in both)}"
        text = proxy_conninfo(f"{place} dbname={shards.of[1].name} user=postgres")
        with closing(MessageStore(shards.proxy.admin, statement_timeout=100)) as store:
            store.script(f"ALTER SERVER pipehandler OPTIONS (SET p1 {quote(text)})")
            assert handler.deliver(MESSAGE, address).status == 0
            found = shards_behind(store)[1]
        with closing(MessageStore(found.own(shards.proxy.admin))) as own:
            assert own.values("SELECT pg_is_in_recovery()", of=bool) == [False]
    shards.move(1, server)


def test_how_a_shard_is_reached() -> None:
    """Of what a place says, the proxy keeps all but the user, secrets and settings, encryption above all."""
    given = "host=db0 dbname=mail user=postgres password=secret passfile=/x sslmode=verify-full sslrootcert=/etc/ca.pem"
    kept = conninfo_to_dict(proxy_conninfo(given))
    assert {name: kept.get(name) for name in ("sslmode", "sslrootcert", "target_session_attrs")} == {
        "sslmode": "verify-full",
        "sslrootcert": "/etc/ca.pem",
        "target_session_attrs": None,
    }
    assert not {"user", "password", "passfile"} & kept.keys()


def test_the_synchronous_standby_of_a_shard(shards: Shards, handler: Handler) -> None:
    """A commit on a shard that did not wait for its standby is deferred: the warning arrives through the proxy."""
    address = shards.addresses("standby.example")[3]
    server = shards.of[3].server
    server.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    server.reload()
    running = handler.start(handler.command(address))
    assert running.stdin
    running.stdin.write(MESSAGE)
    running.stdin.close()
    waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    wait_until(lambda: bool(shards.of[3].rows(waits)), "the wait for the standby")
    shards.of[3].execute(f"SELECT pg_cancel_backend(pid) FROM ({waits}) AS w")
    assert running.wait(60) == 75
    assert running.stdout
    running.stdout.close()
    assert "did not confirm the commit" in handler.log_lines()[-1]
    server.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
    server.reload()
    assert handler.deliver(MESSAGE, address).output.startswith("2.0.0 stored before")


def test_a_worker_leaves_no_session_waiting_for_a_standby(shards: Shards) -> None:
    """A worker ends the wait of a shard for its standby, which answers otherwise: the session there does not go on
    waiting, and nothing is acknowledged."""
    address = shards.addresses("waiting.example")[3]
    shard = shards.of[3]
    waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with _worker(shards) as handler:
        assert handler.deliver(MESSAGE, address).status == 0
        shard.server.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        shard.server.reload()
        try:
            assert handler.deliver(MESSAGE.replace(b"<1@", b"<2@"), address).status == 75
            wait_until(lambda: not shard.rows(waits), "the end of the wait for the standby")
        finally:
            shard.server.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
            shard.server.reload()


def test_a_shard_issues_its_own_addresses_alone(shards: Shards) -> None:
    """Asked directly, a shard issues random addresses whose mail comes to it, and refuses those of other shards: nothing
    would arrive there. So does the inbox page of one."""
    own, other = shards.addresses("direct.example")[2:4]
    shard = shards.of[2]
    assert shard.value("SELECT address FROM pipehandler.lease_address(%s)", own) == own
    for address in (other, "@direct.example"):
        with pytest.raises(psycopg.DatabaseError, match=f"the mail of {address} goes to another shard") as refused:
            shard.execute("SELECT pipehandler.lease_address(%s)", address)
        assert refused.value.sqlstate == "PH003"
    with pytest.raises(psycopg.errors.RaiseException, match="invalid address"):
        shard.execute("SELECT pipehandler.lease_address('nothing')")
    for _ in range(8):
        assert shards.number(shard.value("SELECT address FROM pipehandler.lease_random_address('direct.example')")) == 2

    issue(shard)
    page = Page(shard)
    names = shards.addresses(DOMAIN)
    key, inbox = page.open(key=new_key(2, COUNT))
    chosen = page.open(names[2].partition("@")[0], key=new_key(2, COUNT))[1]
    with pytest.raises(NameRefused):
        page.open(names[3].partition("@")[0], key=new_key(2, COUNT))
    assert (shards.number(str(inbox.address)), chosen.address) == (2, names[2])
    (delivery,) = send(shards.proxy, inbox.address)
    assert [row.delivery for row in page.run(lambda inboxes: inboxes.page(key)).rows] == [delivery]
