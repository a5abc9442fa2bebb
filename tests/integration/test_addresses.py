"""Addresses and leases in SQL: which lease owns a recipient's mail, in every spelling, and for how long."""

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from harness.database import Database
from harness.postgresql import VERSION, PostgreSQL
from harness.service import stuck, wait_until
from hypothesis import assume, given
from hypothesis import strategies as st
from psycopg.errors import Error, NoDataFound, RaiseException, UniqueViolation

# RFC 3492 7.1 in lower case, without (S), which is ASCII.
RFC_3492 = {
    "(A) Arabic (Egyptian)": ("ليهمابتكلموشعربي؟", "egbpdaj6bu4bxfgehfvwxn"),
    "(B) Chinese (simplified)": ("他们为什么不说中文", "ihqwcrb4cv8a8dqg056pqjye"),
    "(C) Chinese (traditional)": ("他們爲什麽不說中文", "ihqwctvzc91f659drss3x8bo0yb"),
    "(D) Czech": ("pročprostěnemluvíčesky", "proprostnemluvesky-uyb24dma41a"),
    "(E) Hebrew": ("למההםפשוטלאמדבריםעברית", "4dbcagdahymbxekheh6e0a7fei0b"),
    "(F) Hindi (Devanagari)": ("यहलोगहिन्दीक्योंनहींबोलसकतेहैं", "i1baa7eci9glrd9b2ae1bj0hfcgg6iyaf8o0a1dig0cd"),
    "(G) Japanese": ("なぜみんな日本語を話してくれないのか", "n8jok5ay5dzabd5bym9f0cm5685rrjetr6pdxa"),
    "(H) Korean": (
        "세계의모든사람들이한국어를이해한다면얼마나좋을까",
        "989aomsvi5e83db1d2a355cv1e0vak1dwrv93d5xbh15a0dt30a5jpsd879ccm6fea98c",
    ),
    "(I) Russian": ("почемужеонинеговорятпорусски", "b1abfaaepdrnnbgefbadotcwatmq2g4l"),
    "(J) Spanish": ("porquénopuedensimplementehablarenespañol", "porqunopuedensimplementehablarenespaol-fmd56a"),
    "(K) Vietnamese": ("tạisaohọkhôngthểchỉnóitiếngviệt", "tisaohkhngthchnitingvit-kjcr8268qyxafd2f1b9g"),
    "(L) 3B": ("3年b組金八先生", "3b-ww4c5e180e575a65lsy2b"),
    "(M)": ("安室奈美恵-with-super-monkeys", "-with-super-monkeys-pc58ag80a8qai00g7n9n"),
    "(N)": ("hello-another-way-それぞれの場所", "hello-another-way--fc4qua05auwb3674vfr0b"),
    "(O)": ("ひとつ屋根の下2", "2-u9tlzr9756bt3uc0v"),
    "(P)": ("majiでkoiする5秒前", "majikoi5-783gue6qz075azm5e"),
    "(Q)": ("パフィーdeルンバ", "de-jg4avhby1noc0d"),
    "(R)": ("そのスピードで", "d9juau41awczczp"),
}


Connection = psycopg.Connection[tuple[Any, ...]]


@pytest.fixture(scope="module")
def connection(servers: Callable[[int], PostgreSQL]) -> Iterator[Connection]:
    """A connection to a database with some leases, which no test changes."""
    with Database.fresh(servers(VERSION)) as fresh, psycopg.connect(fresh.admin, autocommit=True) as connection:
        for address, ttl in POOL.items():
            connection.execute("SELECT pipehandler.lease_address(%s, %s)", [address, ttl])
        yield connection


def test_u_labels_of_the_rfc(untouched: Database) -> None:
    """RFC 3492 7.1: its sample strings are decoded."""
    wanted = {f"xn--{encoded}": text for text, encoded in RFC_3492.values() if len(encoded) <= 59}
    assert len(wanted) == len(RFC_3492) - 1
    rows = untouched.rows("SELECT a, pipehandler.u_label(a) AS u FROM unnest(%s::text[]) AS a", list(wanted))
    assert {row.a: row.u for row in rows} == wanted


def u_label(connection: Connection, label: str) -> str:
    """The label as the server decodes it."""
    ((found,),) = connection.execute("SELECT pipehandler.u_label(%s)", [label]).fetchall()
    return str(found)


LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789-"


# One connection for all examples: the function changes nothing.
@given(st.text(st.characters(min_codepoint=0x80, exclude_categories=["Cs"]) | st.sampled_from(LETTERS), max_size=50))
def test_what_is_encoded_is_decoded(connection: Connection, text: str) -> None:
    """RFC 3492: every encoded label decodes to the original; one longer than a label may be (RFC 1035) is left
    unchanged."""
    assume(not text.isascii())
    label = f"xn--{text.encode('punycode').decode()}"
    assert u_label(connection, label) == (text if len(label) <= 63 else label)


@given(st.text(LETTERS, max_size=30))
def test_what_is_no_a_label_stays(connection: Connection, text: str) -> None:
    """Any label is decoded as by another decoder, or left unchanged if that one refuses it."""
    label = f"xn--{text}"
    try:
        expected = text.encode().decode("punycode")
        expected.encode()  # no surrogates
    except UnicodeError:
        expected = label
    if text.endswith("-") or not text:
        expected = label  # only ASCII
    assert u_label(connection, label) == expected


def test_case_is_folded_as_postfix_folds_it(untouched: Database) -> None:
    """Postfix folds the case of addresses in lookups (Unicode, full case folding), but not in deliveries: the form for
    comparison is the same for both, for every letter."""
    letters = [
        chr(code) for code in range(0x80, 0x110000) if not 0xD800 <= code < 0xE000 and chr(code).casefold() != chr(code)
    ]
    assert len(letters) > 1000
    rows = untouched.rows(
        "SELECT f.letter, pipehandler.canonical('x' || f.letter || '@x') AS one, pipehandler.canonical('x' || f.folded || '@x') AS other,"
        "       pipehandler.canonical(pipehandler.canonical('x' || f.letter || '@x')) AS again"
        "  FROM unnest(%s::text[], %s::text[]) AS f (letter, folded)",
        letters,
        [letter.casefold() for letter in letters],
    )
    assert [row for row in rows if not row.one == row.other == row.again] == []


CANONICAL = {
    "User@Example.COM": "user@example.com",
    "u@xn--bcher-kva.EXAMPLE": "u@bücher.example",
    "u@XN--BCHER-KVA.example": "u@bücher.example",
    "u@BÜCHER.example": "u@bücher.example",
    "u@mail.xn--bcher-kva.xn--p1ai": "u@mail.bücher.рф",
    "@xn--bcher-kva.example": "@bücher.example",
    "u@xn--strae-oqa.example": "u@strasse.example",
    "xn--bcher-kva@example.com": "xn--bcher-kva@example.com",
    "x@y@xn--bcher-kva": "x@y@bücher",
    "u@xn--.example": "u@xn--.example",
    "u@xn--99999999.example": "u@xn--99999999.example",
    "no-address": "no-address",
    "": "",
}


def test_canonical(untouched: Database) -> None:
    """Domains are compared as U-labels, everything in one case and one form of Unicode."""
    rows = untouched.rows("SELECT a, pipehandler.canonical(a) AS c FROM unnest(%s::text[]) AS a", list(CANONICAL))
    assert {row.a: row.c for row in rows} == CANONICAL


POOL = {
    "user@example.com": None,
    "user+own@example.com": None,
    "was+own@example.com": "1 us",
    "was@example.com": None,
    "gone@example.com": "1 us",
    "@catch.example": None,
    "gone@catch.example": "1 us",
    "a@catch.example": None,
    "@gone.example": "1 us",
    "foo-request@example.com": None,
    "a=b@example.com": None,
    "@bücher.example": None,
}
"""The leases, in their order, from 1."""

WHOSE: dict[tuple[str, str], tuple[str | None, str | None]] = {
    ("user@example.com", "+"): ("user@example.com", None),
    ("USER@EXAMPLE.COM", "+"): ("user@example.com", None),
    ("user+x@example.com", "+"): ("user@example.com", "x"),
    ("user+X+y@example.com", "+"): ("user@example.com", "X+y"),
    ("user+@example.com", "+"): ("user@example.com", ""),
    ("user+own@example.com", "+"): ("user+own@example.com", None),
    ("was+own@example.com", "+"): ("was@example.com", "own"),
    ("+user@example.com", "+"): (None, None),
    ("nobody@example.com", "+"): (None, None),
    ("nobody+x@example.com", "+"): (None, "x"),
    ("gone@example.com", "+"): ("gone@example.com", None),
    ("gone+x@example.com", "+"): ("gone@example.com", "x"),
    ("user-x@example.com", "+"): (None, None),
    ("user-x@example.com", "+-"): ("user@example.com", "x"),
    ("user-x+y@example.com", "+-"): ("user@example.com", "x+y"),
    ("user+x-y@example.com", "-+"): ("user@example.com", "x-y"),
    ("user+x@example.com", ""): (None, None),
    ("user+x@example.com", "%"): (None, None),
    ("a=b=c@example.com", "="): (None, "b=c"),
    ("foo-request@example.com", "-"): ("foo-request@example.com", None),
    ("user-request@example.com", "-"): (None, None),
    ("owner-user@example.com", "-"): (None, None),
    ("a@catch.example", "+"): ("a@catch.example", None),
    ("a+x@catch.example", "+"): ("a@catch.example", "x"),
    ("b@catch.example", "+"): ("@catch.example", None),
    ("b+x@catch.example", "+"): ("@catch.example", "x"),
    ("gone@catch.example", "+"): ("@catch.example", None),
    ("b@sub.catch.example", "+"): (None, None),
    ("b@gone.example", "+"): ("@gone.example", None),
    ("b@xn--bcher-kva.example", "+"): ("@bücher.example", None),
    ("catch.example", "+"): (None, None),
    ("@", "+"): (None, None),
    ("", "+"): (None, None),
    ("'; DROP TABLE pipehandler.address; --@catch.example", "';"): ("@catch.example", None),
}


@pytest.mark.parametrize(("recipient", "delimiter"), WHOSE)
def test_whose_mail_it_is(connection: Connection, recipient: str, delimiter: str) -> None:
    """The whole address, then without its extension, then @domain, as in virtual(5); an expired lease only if none is
    alive."""
    ((lease, extension),) = connection.execute(
        "SELECT lease, extension FROM pipehandler.lease_of(%s, %s)", [recipient, delimiter]
    ).fetchall()
    address, expected = WHOSE[recipient, delimiter]
    assert (lease, extension) == (list(POOL).index(address) + 1 if address else None, expected)


def test_lookup(connection: Connection) -> None:
    """Postfix gets OK for a live lease, and no row, not even a null, without one."""
    asked = [
        "user@example.com",
        "user+x@example.com",
        "x@catch.example",
        "@catch.example",
        "nobody@example.com",
        "gone@example.com",
        "",
    ]
    found = [connection.execute("SELECT pipehandler.lookup(%s, '+')", [each]).fetchall() for each in asked]
    assert found == [[("OK",)]] * 4 + [[]] * 3
    assert connection.execute("SELECT pipehandler.lookup('user+x@example.com', '')").fetchall() == []


def test_lookup_in_latin_1(database: Database) -> None:
    """Postfix before 3.8 declares LATIN1 and sends UTF-8. A value that is not UTF-8 matches no lease, without an error,
    which would defer the mail."""
    database.execute("SELECT pipehandler.lease_address('grüße@bücher.example')")
    with psycopg.connect(database.admin, autocommit=True, client_encoding="LATIN1") as connection:
        for said, found in (("grüße@bücher.example", [("OK",)]), ("nobody-ü@bücher.example", [])):
            as_latin_1 = said.encode().decode("latin-1")
            assert connection.execute("SELECT pipehandler.lookup(%s)", [as_latin_1]).fetchall() == found
        assert connection.execute("SELECT pipehandler.lookup(%s)", ["grüße@bücher.example"]).fetchall() == []


LIFE = "SELECT * FROM pipehandler."


def test_a_lease_from_its_beginning_to_its_end(every_database: Database) -> None:
    """A lease is issued, extended and never shortened, ended, reactivated, and superseded when its address is issued
    again."""
    rows = every_database.rows
    (lease,) = rows(LIFE + "lease_address('A@Example.com', '10 minutes', 'mine')")
    assert (lease.address, lease.label, lease.expires_at - lease.created_at) == (
        "a@example.com",
        "mine",
        timedelta(minutes=10),
    )
    with pytest.raises(UniqueViolation, match=r"a@example\.com already has a current lease"):
        rows(LIFE + "lease_address('a@EXAMPLE.com')")
    (shorter,) = rows(LIFE + "extend_lease(%s, '1 minute')", lease.lease)
    assert shorter.expires_at == lease.expires_at
    (longer,) = rows(LIFE + "extend_lease(%s, '1 hour')", lease.lease)
    assert longer.expires_at - lease.expires_at > timedelta(minutes=49)
    (ended,) = rows(LIFE + "expire_lease(%s)", lease.lease)
    assert rows(LIFE + "expire_lease(%s)", lease.lease) == [ended]
    (back,) = rows(LIFE + "extend_lease(%s)", lease.lease)
    assert back.expires_at is None
    assert rows(LIFE + "extend_lease(%s, '1 hour')", lease.lease) == [back]
    rows(LIFE + "expire_lease(%s)", lease.lease)
    (second,) = rows(LIFE + "lease_address('a@example.com')")
    assert second.lease > lease.lease
    with pytest.raises(NoDataFound, match="issued again"):
        rows(LIFE + "extend_lease(%s)", lease.lease)
    with pytest.raises(NoDataFound, match="removed"):
        rows(LIFE + "expire_lease(12345)")
    assert [row.superseded for row in rows("SELECT superseded FROM pipehandler.address ORDER BY lease")] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    "call",
    [
        *(
            "lease_address(NULL)",
            "lease_address('')",
            "lease_address('user')",
            "lease_address('user@')",
            "lease_address('u@exa mple')",
            """lease_address('"a b"@example.com')""",
        ),
        *(
            "lease_address(E'u\\n@example.com')",
            "lease_address(repeat('x', 990) || '@example.com')",
            "lease_address('u@example.com', '0')",
        ),
        *(
            "lease_random_address('')",
            "lease_random_address(NULL)",
            "lease_random_address('@example.com')",
            "lease_random_address('u@example.com')",
        ),
        *("lease_random_address('example.com', '-1 s')", "extend_lease(1, '0')"),
    ],
)
def test_no_address_and_no_time(connection: Connection, call: str) -> None:
    """An invalid address or time is refused with a clear message."""
    with pytest.raises(
        RaiseException, match=r"(?s)^(invalid (address|domain) .*: (expected|write)|ttl must be positive)"
    ):
        connection.execute("SELECT pipehandler." + call)


def test_longest_time(connection: Connection) -> None:
    """A thousand years; clients cannot read times after the year 9999."""
    lease = connection.execute("SELECT lease FROM pipehandler.lease_address('u@example.com', '1000 years')").fetchone()
    assert lease
    for call in ("lease_address('v@example.com', '1001 years')", f"extend_lease({lease[0]}, '1001 years')"):
        with pytest.raises(RaiseException, match=r"^ttl must be at most 1000 years, or null .* got 1001 years"):
            connection.execute("SELECT pipehandler." + call)


def test_random_addresses(database: Database) -> None:
    """Random addresses can be read aloud, and are never the same."""
    rows = database.rows(
        "SELECT (pipehandler.lease_random_address('Example.com', '1 h')).address FROM generate_series(1, 500)"
    )
    assert len({row.address for row in rows}) == 500
    pattern = r"^([bdfghjklmnprstvz][aiou]){2}(\.([bdfghjklmnprstvz][aiou]){2}){3}@example\.com$"
    assert database.value("SELECT bool_and(address ~ %s) FROM pipehandler.address", pattern)


@pytest.mark.parametrize(
    "call",
    [
        "lease_address('b@example.com')",
        "lease_random_address('example.com')",
        "extend_lease(1, '1 hour')",
        "expire_lease(1)",
        "remove_lease(1)",
    ],
)
def test_leases_are_durable(database: Database, call: str) -> None:
    """An acknowledged change of a lease is as durable as a message, whatever the role or the session sets."""
    database.execute("SELECT pipehandler.lease_address('a@example.com', '1 minute')")
    with psycopg.connect(database.server.conninfo(database.name, user="lessor")) as connection:
        for before, after in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
            connection.execute(f"SET synchronous_commit = {before}".encode())
            connection.execute(f"SELECT pipehandler.{call}".encode())
            assert connection.execute("SHOW synchronous_commit").fetchone() == (after,)
            connection.rollback()


def test_an_older_transaction_may_end_a_lease(database: Database) -> None:
    """A transaction that began before the lease can end it."""
    with psycopg.connect(database.admin) as connection:
        connection.execute("SELECT now()")
        lease = database.value("SELECT lease FROM pipehandler.lease_address('a@example.com')")
        connection.execute("SELECT pipehandler.expire_lease(%s)", [lease])
    assert database.value("SELECT expires_at = created_at FROM pipehandler.address")


def race(database: Database, statement: str, count: int = 6) -> list[Any]:
    """Run a statement in several sessions at once; returns the result of each, or its error. A session that gets
    through commits once all others wait for a lock or have ended."""
    results: list[Any] = []
    barrier = threading.Barrier(count)

    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    def one() -> None:
        with psycopg.connect(database.admin) as connection:
            barrier.wait(60)
            try:
                results.append(connection.execute(statement).fetchall()[0][0])
                wait_until(lambda: database.value(waiting) + len(results) >= count, "all others")
                connection.commit()
            except Error as error:
                results.append(type(error))

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


@pytest.mark.parametrize("before", [None, "1 us"], ids=["new", "expired"])
def test_one_address_is_given_out_once(database: Database, before: str | None) -> None:
    """Of several sessions that request one address at the same moment, even one whose lease has just ended, one gets it
    and the others get an error."""
    if before:
        database.execute("SELECT pipehandler.lease_address('a@example.com', %s)", before)
    results = race(database, "SELECT lease FROM pipehandler.lease_address('a@example.com')")
    assert results.count(UniqueViolation) == 5
    live = database.rows("SELECT lease FROM pipehandler.address WHERE NOT superseded")
    assert [row.lease for row in live] == [result for result in results if result is not UniqueViolation]


@pytest.mark.parametrize("first", ["lease", "extend"])
def test_extended_or_given_out_again(database: Database, first: str) -> None:
    """An expired lease is either extended by its holder or its address is issued again, whichever comes first."""
    lease = database.value("SELECT lease FROM pipehandler.lease_address('a@example.com', '1 us')")
    statements = {
        "extend": f"SELECT lease FROM pipehandler.extend_lease({lease}, '1 h')",
        "lease": "SELECT lease FROM pipehandler.lease_address('a@example.com')",
    }
    second = statements.pop("extend" if first == "lease" else "lease")
    (statement,) = statements.values()
    with psycopg.connect(database.admin) as connection:
        connection.execute(statement)
        waiting: list[Any] = []

        def other() -> None:
            try:
                waiting.append(database.rows(second))
            except Error as error:
                waiting.append(type(error))

        thread = threading.Thread(target=other)
        thread.start()
        stuck(database)
        connection.commit()
        thread.join(60)
    assert waiting == [NoDataFound if first == "lease" else UniqueViolation]


def test_a_large_pool_is_not_read(database: Database) -> None:
    """However many addresses exist, each call reads only a few of them."""
    database.execute(
        "INSERT INTO pipehandler.address (address, superseded) SELECT n || '@example.com', n % 2 = 0 FROM generate_series(1, 20000) AS n"
    )
    read = "SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables WHERE relname = 'address'"
    with psycopg.connect(database.admin) as connection:
        for call in (
            *("lookup('7+x@example.com')", "lease_address('x@example.com')", "lease_random_address('example.com')"),
            *("extend_lease(5)", "expire_lease(5)"),
        ):
            connection.execute("SELECT pipehandler." + call)
        assert connection.execute(read).fetchall() == [(0,)]
