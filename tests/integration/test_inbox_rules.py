"""The rules of the inbox page, which the database keeps whatever the page asks: names, quotas, networks, notifications."""

import json
import secrets
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from harness.database import Database
from harness.inboxes import DOMAIN, RULES, TTL, Page, issue, new_key, send
from harness.service import stuck
from psycopg.errors import Error, RaiseException

from pipehandler.store import inboxes as client
from pipehandler.store.errors import NAME_TAKEN, UNIQUE_VIOLATION, StoreError
from pipehandler.store.inboxes import Inboxes


@pytest.fixture
def page(database: Database) -> Page:
    """The page's client of a database that gives out addresses of DOMAIN."""
    issue(database)
    return Page(database)


def refused(call: Callable[[], Any]) -> str | None:
    """The SQLSTATE with which a call is refused; None if it is not."""
    try:
        call()
    except (Error, StoreError) as error:
        return error.sqlstate
    return None


def lease(database: Database, address: str, ttl: str | None = None) -> int:
    """Issue an address as the command line does."""
    return int(database.value("SELECT lease FROM pipehandler.lease_address(%s, %s)", address, ttl))


CHOSEN = ("anna", "Bert", "a", "7", "a.b-c", "a" * 32, "x--y")

NOT_CHOSEN = (
    *("", ".", "-", ".a", "a.", "-a", "a-", "a..b", "a" * 33, "a b", "a+b", "+", "a@b", "a\tb", "a\n", "anna\n", "ä"),
    *("ａnna", "аnna", "anna\u200b", "ﬁ", "ß", "\u212a", "a'b", 'a"b', "a%b", "a_b", "a/b", "@", f"a@{DOMAIN}"),
    *("postmaster", "Abuse", "web.master", "host-master", "admin", "no-reply", "mailer-daemon", "MAILER-DAEMON"),
    *("owner-list", "list-request", "brand.name", "BrandName", "security", "root", "ssl-admin"),
)


def test_names_that_visitors_may_choose(page: Page) -> None:
    """ASCII letters, digits, dot and hyphen, in whatever case."""

    async def whole(inboxes: Inboxes) -> list[str | None]:
        return [(await inboxes.open(new_key(), DOMAIN, name, TTL)).address for name in CHOSEN]

    assert page.run(whole) == [f"{name.lower()}@{DOMAIN}" for name in CHOSEN]


def not_issued(page: Page, wanted: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Which of these domains and names are refused by name, not for another reason."""

    async def whole(inboxes: Inboxes) -> list[tuple[str, str]]:
        found = []
        for domain, name in wanted:
            with suppress(client.NameRefused):
                await inboxes.open(new_key(), domain, name, TTL)
                continue
            found.append((domain, name))
        return found

    return page.run(whole)


def test_names_that_they_may_not(page: Page) -> None:
    """Other characters, also those that look like ASCII letters or are folded to them, a name of a role or of the
    configuration, in whatever spelling; and the delimiter."""
    wanted = [(DOMAIN, name) for name in NOT_CHOSEN]
    assert not_issued(page, wanted) == wanted


def test_domains_that_are_not_issued(page: Page) -> None:
    """The page issues addresses of its domains alone, whatever leases there are elsewhere."""
    domains = ("", "example.com", f"x@{DOMAIN}", f"@{DOMAIN}", f"{DOMAIN}.", "*", "a\nb")
    wanted = [(domain, "anna") for domain in domains]
    assert not_issued(page, wanted) == wanted


def test_delimiters(database: Database) -> None:
    """Each character that may begin an extension is refused, also one that a name may otherwise have."""
    issue(database, delimiter="+-")
    page = Page(database)
    with pytest.raises(client.NameRefused):
        page.open("a-b")
    assert page.open("a.b")[1].address == f"a.b@{DOMAIN}"


def test_spellings_of_a_domain(database: Database) -> None:
    """A domain with letters beyond ASCII is one domain in both spellings."""
    issue(database, "xn--bcher-kva.example")
    assert Page(database).open("anna", domain="BÜCHER.example")[1].address == "anna@bücher.example"


@pytest.mark.parametrize(("first", "second"), [("anna", "anna+bank"), ("anna+bank", "anna")])
def test_names_whose_lease_has_ended_do_not_count(database: Database, first: str, second: str) -> None:
    """Nor do those of another domain, or of a name that only ends alike."""
    issue(database)
    for other in (f"{first}@other.example", f"x{first}@{DOMAIN}"):
        lease(database, other)
    number = lease(database, f"{first}@{DOMAIN}", "1 h")
    assert refused(lambda: lease(database, f"{second}@{DOMAIN}")) == NAME_TAKEN
    database.execute("UPDATE pipehandler.address SET expires_at = now() WHERE lease = %s", number)
    assert refused(lambda: lease(database, f"{second}@{DOMAIN}")) is None


@pytest.mark.parametrize("extended", [f"anna+bank@{DOMAIN}", f"anna+@{DOMAIN}", f"ANNA+x+y@{DOMAIN}", f"anna@{DOMAIN}"])
def test_names_exclude_each_other(page: Page, database: Database, extended: str) -> None:
    """Whoever has anna has anna+bank: neither can be issued beside the other, by the page or by the command line."""
    kept = lease(database, extended, "1 h")
    with pytest.raises(client.NameTaken):
        page.open("anna")
    assert page.open("ann")[1].address
    assert page.open("annas")[1].address
    database.execute("SELECT pipehandler.remove_lease(%s)", kept)
    page.open("anna")
    assert refused(lambda: lease(database, extended)) in (NAME_TAKEN, UNIQUE_VIOLATION)
    assert refused(lambda: lease(database, extended.replace(DOMAIN, "elsewhere.example"))) is None
    assert refused(lambda: lease(database, f"bob+bank@{DOMAIN}")) is None
    assert refused(lambda: lease(database, f"bob+shop@{DOMAIN}")) is None


@pytest.mark.parametrize("first", ["page", "command line"])
def test_names_exclude_each_other_at_the_same_time(page: Page, database: Database, first: str) -> None:
    """Two sessions that issue anna and anna+bank at the same time: the second one waits, and is refused."""
    calls: dict[str, Callable[[psycopg.Connection[Any]], object]] = {
        "page": lambda session: session.execute(
            "SELECT pipehandler.open_inbox(%s, %s, 'anna', '10 min')", [new_key(), DOMAIN]
        ),
        "command line": lambda session: session.execute(f"SELECT pipehandler.lease_address('anna+bank@{DOMAIN}')"),
    }
    conninfos = {"page": page.conninfo, "command line": database.server.conninfo(database.name, user="upkeep")}
    (second,) = set(calls) - {first}
    ends: list[str | None] = []
    with psycopg.connect(conninfos[first]) as one, psycopg.connect(conninfos[second]) as other:
        calls[first](one)
        waiter = threading.Thread(target=lambda: ends.append(refused(lambda: calls[second](other))))
        waiter.start()
        stuck(database)
        one.commit()
        waiter.join()
    assert ends == [NAME_TAKEN]


def test_one_name_at_the_same_time(page: Page, database: Database) -> None:
    """Of eight visitors who want one name at the same time, one gets it."""
    ends: list[str | None] = []

    def want() -> None:
        with psycopg.connect(page.conninfo) as session:
            ends.append(
                refused(
                    lambda: session.execute(
                        "SELECT pipehandler.open_inbox(%s, %s, 'anna', '10 min')", [new_key(), DOMAIN]
                    )
                )
            )

    threads = [threading.Thread(target=want) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, ends)) == ["None"] + [NAME_TAKEN] * 7
    assert database.value("SELECT count(*) FROM pipehandler.address") == 1


def test_other_isolation(page: Page, database: Database) -> None:
    """A transaction that would not see what another one has committed meanwhile issues none of these addresses."""
    with psycopg.connect(page.conninfo) as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with pytest.raises(Error, match="READ COMMITTED"):
            session.execute("SELECT pipehandler.open_inbox(%s, %s, 'anna', '10 min')", [new_key(), DOMAIN])
    with psycopg.connect(database.admin) as session:
        session.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        session.execute("SELECT pipehandler.lease_address('anna@elsewhere.example')")


def test_no_catch_all(page: Page, database: Database) -> None:
    """A domain of the page has no catch-all, and one with a catch-all is not issued, until its lease ends."""
    assert refused(lambda: lease(database, f"@{DOMAIN}")) == NAME_TAKEN
    number = lease(database, "@caught.example")
    assert database.value("SELECT refused FROM pipehandler.set_web_domains(%s)", rules("caught.example", DOMAIN)) == [
        "caught.example"
    ]
    with pytest.raises(client.NameRefused):
        page.open(domain="caught.example")
    assert page.open()[1].address
    database.execute("SELECT pipehandler.expire_lease(%s)", number)
    changed = database.rows("SELECT * FROM pipehandler.set_web_domains(%s)", rules("caught.example", DOMAIN))
    assert [tuple(row) for row in changed] == [(True, [])]
    assert page.open(domain="caught.example")[1].address
    again = database.rows("SELECT * FROM pipehandler.set_web_domains(%s)", rules("caught.example", DOMAIN))
    assert [tuple(row) for row in again] == [(False, [])]


@pytest.mark.parametrize("first", ["catch-all", "domain of the page"])
def test_no_catch_all_at_the_same_time(database: Database, first: str) -> None:
    """Two sessions that issue a catch-all and make its domain one of the page at the same time: the second one waits, and gives up."""
    catch_all = f"SELECT address FROM pipehandler.lease_address('@{DOMAIN}')"
    domains = f"SELECT refused FROM pipehandler.set_web_domains('{rules(DOMAIN)}')"
    before, after = (catch_all, domains) if first == "catch-all" else (domains, catch_all)
    ends: list[object] = []

    def last(session: psycopg.Connection[Any]) -> None:
        try:
            ends.extend(session.execute(after).fetchone() or ())
        except Error as error:
            ends.append(error.sqlstate)

    with psycopg.connect(database.admin) as one, psycopg.connect(database.admin) as other:
        one.execute(before)
        waiter = threading.Thread(target=last, args=[other])
        waiter.start()
        stuck(database)
        one.commit()
        waiter.join()
    assert ends == ([[DOMAIN]] if first == "catch-all" else [NAME_TAKEN])


def test_no_lock_that_others_could_keep(page: Page, database: Database) -> None:
    """What happens one after the other is held up by no role that can only connect: no function takes an advisory lock."""
    assert not database.rows(
        "SELECT p.oid::regprocedure FROM pg_proc p"
        " WHERE p.pronamespace = 'pipehandler'::regnamespace AND p.prosrc ILIKE '%%advisory%%'"
    )
    calls = (
        f"SELECT pipehandler.set_web_domains('{rules(DOMAIN)}')",
        "SELECT pipehandler.create_days(9)",
        f"SELECT pipehandler.open_inbox('{secrets.token_hex(16)}', '{DOMAIN}', 'anna', '10 min')",
        f"SELECT pipehandler.lease_address('bert@{DOMAIN}')",
        "SELECT pipehandler.lease_address('@elsewhere.example')",
    )
    with psycopg.connect(database.admin) as session:
        for call in calls:
            session.execute(call)
        assert not session.execute(
            "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        ).fetchall()


def test_rules_that_stay_wait_for_nobody(page: Page, database: Database) -> None:
    """`expire` copies the rules before it removes mail: it waits for no session that has not ended its transaction."""
    with psycopg.connect(page.conninfo) as visitor, psycopg.connect(database.admin) as operator:
        visitor.execute("SELECT pipehandler.open_inbox(%s, %s, 'anna', '10 min')", [new_key(), DOMAIN])
        operator.execute("SELECT pipehandler.lease_address('@elsewhere.example')")
        with psycopg.connect(database.admin) as upkeep:
            upkeep.execute("SET lock_timeout = '10ms'")
            found = upkeep.execute("SELECT * FROM pipehandler.set_web_domains(%s)", [rules(DOMAIN)]).fetchone()
            assert found == (False, [])
            with pytest.raises(psycopg.errors.LockNotAvailable):
                upkeep.execute("SELECT pipehandler.set_web_domains('[]')")


def rules(*domains: str) -> str:
    """The rules of these domains as JSON."""
    return json.dumps([RULES | {"domain": domain} for domain in domains])


def test_an_address_is_held(page: Page, database: Database) -> None:
    """An address that has ended, in its grace, after it, and after its lease was removed, goes to nobody else for thirty
    days, by the page or by the command line; the same key gets it back; after that anybody does."""
    key, inbox = page.open("anna")
    extended = f"anna+bank@{DOMAIN}"

    def taken() -> bool:
        others = [
            refused(lambda: page.open("anna")),
            refused(lambda: lease(database, f"anna@{DOMAIN}")),
            refused(lambda: lease(database, extended)),
        ]
        assert set(others) <= {None, NAME_TAKEN}
        assert len(set(others)) == 1
        return others[0] is not None

    page.run(lambda inboxes: inboxes.expire(key))
    assert taken()
    with pytest.raises(client.NameTaken, match="another inbox"):
        page.open("bob", key)  # it can still be brought back
    later(database, timedelta(days=6))
    assert taken()
    assert database.value("SELECT leases FROM pipehandler.remove_leases()") == 1
    assert database.value("SELECT count(*) FROM pipehandler.address") == 0
    assert taken()
    database.execute("UPDATE pipehandler.web_tombstone SET held_until = held_until - interval '24 days'")
    assert taken()
    _, again = page.open("anna", key)
    assert again.lease != inbox.lease

    database.execute("SELECT pipehandler.remove_lease(%s)", again.lease)
    assert taken()
    database.execute("UPDATE pipehandler.web_tombstone SET held_until = now()")
    database.execute("SELECT pipehandler.remove_leases()")
    assert database.value("SELECT count(*) FROM pipehandler.web_tombstone") == 0
    assert page.open("anna")[1].address == f"anna@{DOMAIN}"


def later(database: Database, time: timedelta) -> None:
    """Let all leases have begun and ended so much earlier."""
    database.execute(
        "UPDATE pipehandler.address SET created_at = created_at - %s, expires_at = expires_at - %s", time, time
    )


def test_the_key_takes_its_address_back_after_the_grace(page: Page, database: Database) -> None:
    """After the grace, while the row of the lease is still there, the same key opens the same address again, empty."""
    key, inbox = page.open("anna")
    send(database, inbox.address)
    later(database, timedelta(days=2))
    _, again = page.open("anna", key)
    assert again.lease != inbox.lease
    assert again.deliveries == 0
    with pytest.raises(client.NameTaken, match="another inbox"):
        page.open("bob", key)


def test_quota_of_messages(page: Page, database: Database) -> None:
    """A full inbox is refused at RCPT TO and, for what was accepted meanwhile, on delivery; others are not; an import is
    not; and it takes mail again when some was removed."""
    issue(database, max_messages=3)
    key, inbox = page.open("anna")
    _, other = page.open("bob")
    assert inbox.max_messages == 3
    sent = [send(database, inbox.address)[0] for _ in range(3)]
    assert database.rows("SELECT * FROM pipehandler.lookup(%s)", inbox.address) == []
    assert database.rows("SELECT * FROM pipehandler.lookup(%s)", f"anna+x@{DOMAIN}") == []
    assert database.rows("SELECT * FROM pipehandler.lookup(%s)", other.address) != []
    assert send(database, inbox.address) == []
    assert send(database, f"anna+x@{DOMAIN}") == []
    assert len(send(database, inbox.address, other.address)) == 1
    assert len(send(database, inbox.address, ingress="import")) == 1
    page.run(lambda inboxes: inboxes.remove_mail(key, sent[:2]))
    assert database.rows("SELECT * FROM pipehandler.lookup(%s)", inbox.address) != []
    assert len(send(database, inbox.address)) == 1


def test_quota_of_octets(page: Page, database: Database) -> None:
    """The message that exceeds the octets is the last one. A message that is stored already is a duplicate, never a
    bounce."""
    issue(database, max_octets=10_000)
    _, inbox = page.open("anna")
    large = b"Message-ID: <large@x>\n\n" + b"x" * 9_000
    assert len(send(database, inbox.address, raw=large)) == 1
    (second,) = send(database, inbox.address, raw=large.replace(b"large@", b"other@"))
    assert send(database, inbox.address) == []
    assert send(database, inbox.address, raw=large.replace(b"large@", b"other@")) == [second]


def test_leases_of_others_have_no_quota(page: Page, database: Database) -> None:
    """Neither a lease of the command line on a domain of the page nor one elsewhere has a quota, or a time of grace."""
    issue(database, max_messages=1)
    for address in (f"me@{DOMAIN}", "me@elsewhere.example"):
        number = lease(database, address, "1 h")
        assert len(send(database, address)) == 1
        assert len(send(database, address)) == 1
        assert database.rows("SELECT * FROM pipehandler.lookup(%s)", address) != []
        database.execute("SELECT pipehandler.expire_lease(%s)", number)
    assert database.value("SELECT deliveries FROM pipehandler.expire()") == 4


def test_closed_networks(page: Page, database: Database) -> None:
    """Nobody opens an inbox from a closed network, until it is opened again or its time ends; others do, and inboxes that
    are open stay, unless those are closed as well."""
    key, _ = page.open(client="192.0.2.7")
    _, six = page.open(client="2001:db8::7")
    assert (
        database.value("SELECT network::text FROM pipehandler.web_inbox WHERE lease = %s", six.lease) == "2001:db8::/64"
    )
    database.execute("SELECT pipehandler.close_network('192.0.2.0/24')")
    for address in ("192.0.2.7", "192.0.2.255"):
        with pytest.raises(client.NetworkClosed):
            page.open(client=address)
    assert page.open(client="192.0.3.1")[1].address
    assert page.run(lambda inboxes: inboxes.inbox(key)).state == "active"
    assert database.value("SELECT pipehandler.close_network('192.0.2.0/24', inboxes => true)") == 1
    with pytest.raises(client.KeyRefused):
        page.run(lambda inboxes: inboxes.inbox(key))
    assert database.value("SELECT pipehandler.reopen_network('192.0.2.0/24')")
    assert page.open(client="192.0.2.7")[1].address
    database.execute("SELECT pipehandler.close_network('::/0', '1 us')")
    assert page.open(client="2001:db8::7")[1].address
    database.execute("SELECT pipehandler.remove_leases()")
    assert database.value("SELECT count(*) FROM pipehandler.web_closed_network") == 0


def test_a_closed_inbox(page: Page, database: Database) -> None:
    """An inbox that the operator closed opens for no key, and its visitor does not get the address back; the operator
    may."""
    key, inbox = page.open("anna")
    database.execute("SELECT pipehandler.close_inbox(%s)", inbox.lease)
    with pytest.raises(client.KeyRefused):
        page.run(lambda inboxes: inboxes.inbox(key))
    for visitor in (key, new_key()):
        with pytest.raises(client.NameTaken):
            page.open("anna", visitor)
    assert database.rows("SELECT * FROM pipehandler.lookup(%s)", inbox.address) == []
    lease(database, f"anna@{DOMAIN}")
    with pytest.raises(Error, match="not opened on the inbox page"):
        database.execute("SELECT pipehandler.close_inbox(%s)", lease(database, "x@elsewhere.example"))


def test_every_change_is_announced(page: Page, database: Database) -> None:
    """Whoever extends, ends, removes or revokes something that a key opens wakes the open streams, without saying what;
    a lease without keys, mail, and what changes nothing wake nobody."""
    key, inbox = page.open()
    _, second = page.open()
    _, third = page.open()
    plain = lease(database, "me@elsewhere.example", "1 h")
    sent = send(database, inbox.address) + send(database, inbox.address)
    with psycopg.connect(database.admin, autocommit=True) as listener:
        listener.execute("LISTEN pipehandler_inbox")

        def announced() -> list[str]:
            listener.execute("SELECT")
            return sorted({each.payload for each in listener.notifies(timeout=0)})

        loud: dict[str, Callable[[], Any]] = {
            "extend": lambda: page.run(lambda inboxes: inboxes.extend(key, TTL)),
            "extend_lease": lambda: database.execute("SELECT pipehandler.extend_lease(%s, '2 h')", inbox.lease),
            "update": lambda: database.execute(
                "UPDATE pipehandler.address SET expires_at = now() + interval '3 h' WHERE lease = %s", inbox.lease
            ),
            "share": lambda: page.run(lambda inboxes: inboxes.share(key, new_key())),
            "unshare": lambda: page.run(lambda inboxes: inboxes.unshare(key)),
            "remove_mail": lambda: page.run(lambda inboxes: inboxes.remove_mail(key, sent[:1])),
            "remove_deliveries": lambda: database.execute("SELECT pipehandler.remove_deliveries(%s)", sent[1:]),
            "expire": lambda: page.run(lambda inboxes: inboxes.expire(key)),
            "remove": lambda: page.run(lambda inboxes: inboxes.remove(key)),
            "remove_lease": lambda: database.execute("SELECT pipehandler.remove_lease(%s)", second.lease),
            "close": lambda: database.execute("SELECT pipehandler.close_inbox(%s)", third.lease),
        }
        heard = {}
        for name, call in loud.items():
            call()
            heard[name] = announced()
        assert heard == {name: [] if name == "share" else [""] for name in loud}

        quiet: dict[str, Callable[[], Any]] = {
            "mail": lambda: send(database, "me@elsewhere.example"),
            "another lease": lambda: database.execute("SELECT pipehandler.extend_lease(%s, '2 h')", plain),
            "its end": lambda: database.execute("SELECT pipehandler.expire_lease(%s)", plain),
            "nothing": lambda: database.execute("SELECT pipehandler.remove_leases()"),
            "expire": lambda: database.execute("SELECT pipehandler.expire()"),
            "no key": lambda: database.execute("DELETE FROM pipehandler.capability WHERE kind = 'viewer'"),
        }
        heard = {}
        for name, call in quiet.items():
            call()
            heard[name] = announced()
        assert heard == {name: [] for name in quiet}


def test_an_invalid_address_is_still_an_error(page: Page, database: Database) -> None:
    """What lease_address refused before, it refuses in the same way."""
    for address in (f"a b@ {DOMAIN}", "x", "", f"a@b@{DOMAIN}\n"):
        with pytest.raises(RaiseException, match="invalid address"):
            lease(database, address)
