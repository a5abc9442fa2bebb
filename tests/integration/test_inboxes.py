"""The inbox page's database: what a key opens, for how long, and what it never opens."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from harness.database import Database
from harness.inboxes import DOMAIN, RULES, TTL, Page, issue, new_key, send
from psycopg.errors import InsufficientPrivilege

from pipehandler.store import inboxes as client
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE, StoreError
from pipehandler.store.inboxes import Inboxes

DAY = timedelta(days=1)
ATTACHED = (
    b"From: Ann <ann@example.org>\nTo: all@example.org\nMessage-ID: <1@x>\nSubject: report\nMIME-Version: 1.0\n"
    b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nText with 100% of it\n"
    b"--b\nContent-Type: application/pdf; name=bill.pdf\nContent-Disposition: attachment; filename=bill.pdf\n"
    b"Content-Transfer-Encoding: base64\n\nUERG\n--b--\n"
)


@pytest.fixture
def page(database: Database) -> Page:
    """The page's client of a database that gives out addresses of DOMAIN."""
    issue(database)
    return Page(database)


async def joined(pieces: Any) -> list[bytes]:
    """All pieces."""
    return [piece async for piece in pieces]


def test_life_of_an_inbox(every_database: Database) -> None:
    """A visitor opens an inbox, mail arrives in the list and the stream, is read with all its parts, and is removed; the
    inbox is shared, extended, ended, brought back and removed."""
    database = every_database
    issue(database)
    page = Page(database)
    key, inbox = page.open(label="shop", client="192.0.2.7")
    assert inbox.address is not None
    assert inbox.address.endswith(f"@{DOMAIN}")
    assert (inbox.kind, inbox.owner, inbox.state, inbox.label, inbox.deliveries) == ("owner", True, "active", "shop", 0)
    assert inbox.expires_at == inbox.created_at + TTL
    assert inbox.grace_until == inbox.expires_at + DAY
    assert inbox.life_until == inbox.created_at + timedelta(hours=2)
    (delivery,) = send(database, inbox.address, raw=ATTACHED)

    (row,) = page.run(lambda inboxes: inboxes.after(key, inbox.cursor))
    assert (row.delivery, row.subject, row.sender_name, row.sender_address) == (
        delivery,
        "report",
        "Ann",
        "ann@example.org",
    )
    assert (row.attachments, row.state, row.recipient, row.size) == (1, "parsed", inbox.address, len(ATTACHED))
    assert "100%" in str(row.preview)
    listed = page.run(lambda inboxes: inboxes.page(key))
    assert (listed.rows, listed.older) == ((row,), None)
    assert page.run(lambda inboxes: inboxes.after(key, listed.newest)) == []

    message = page.run(lambda inboxes: inboxes.message(key, delivery))
    assert (message.delivery, message.cursor, message.text_body) == (delivery, row.cursor, "Text with 100% of it")
    assert (message.previous, message.next, message.has_raw, message.is_cut) == (None, None, True, False)
    (attachment,) = message.attachments
    assert (attachment.file_name, attachment.kept, attachment.size) == ("bill.pdf", True, 3)
    assert page.run(lambda inboxes: joined(inboxes.attachment(key, delivery, 1))) == [b"PDF"]
    assert page.run(lambda inboxes: joined(inboxes.raw(key, delivery))) == [ATTACHED]
    now = page.run(lambda inboxes: inboxes.inbox(key))
    assert (now.deliveries, now.octets) == (1, len(ATTACHED))

    assert page.run(lambda inboxes: inboxes.remove_mail(key, [delivery, delivery + 1])) == 1
    assert database.value("SELECT count(*) FROM pipehandler.message") == 0
    assert page.run(lambda inboxes: inboxes.page(key)).rows == ()

    (delivery,) = send(database, inbox.address, raw=ATTACHED)
    assert len(page.run(lambda inboxes: inboxes.page(key, wanted="report -absent")).rows) == 1
    assert ends(page, READING, key, delivery) == all_are(READING, "ok")
    for name in ("share", "unshare", "expire", "extend", "remove_mail", "remove"):
        assert ends(page, {name: OWNER[name]}, key, delivery) == {name: "ok"}
    assert ends(page, ALL, key, delivery) == all_are(ALL, "KeyRefused")
    assert page.open("anna", key)[1].address == f"anna@{DOMAIN}"
    database.execute("SELECT pipehandler.remove_lease(lease) FROM pipehandler.address")
    assert database.value("SELECT count(*) FROM pipehandler.web_tombstone") == 2
    database.execute("SELECT pipehandler.expire(), pipehandler.remove_leases()")


Call = Callable[[Inboxes, bytes, int], Awaitable[Any]]

READING: dict[str, Call] = {
    "page": lambda inboxes, key, delivery: inboxes.page(key),
    "after": lambda inboxes, key, delivery: inboxes.after(key, ""),
    "message": lambda inboxes, key, delivery: inboxes.message(key, delivery),
    "attachment": lambda inboxes, key, delivery: joined(inboxes.attachment(key, delivery, 1)),
    "small_attachments": lambda inboxes, key, delivery: inboxes.small_attachments(key, delivery, [1]),
    "raw": lambda inboxes, key, delivery: joined(inboxes.raw(key, delivery)),
}
OWNER: dict[str, Call] = {
    "extend": lambda inboxes, key, delivery: inboxes.extend(key, TTL),
    "expire": lambda inboxes, key, delivery: inboxes.expire(key),
    "remove": lambda inboxes, key, delivery: inboxes.remove(key),
    "remove_mail": lambda inboxes, key, delivery: inboxes.remove_mail(key, [delivery]),
    "share": lambda inboxes, key, delivery: inboxes.share(key, new_key()),
    "unshare": lambda inboxes, key, delivery: inboxes.unshare(key),
}
ALL: dict[str, Call] = {"inbox": lambda inboxes, key, delivery: inboxes.inbox(key), **READING, **OWNER}
"""Each method that takes a key."""

PUBLIC = {"open", "open_pool", "close", "move", "domains", "inboxes", "shard_of"} | {
    "arrivals_after",
    "arrivals_waiting",
    "cursor_now",
}
"""The methods that take no key of an inbox, or leave out what it does not open."""


def ends(page: Page, calls: dict[str, Call], key: bytes, delivery: int) -> dict[str, str]:
    """How each call with this key ends: "ok", or the name of the error."""

    async def whole(inboxes: Inboxes) -> dict[str, str]:
        found = {}
        for name, call in calls.items():
            try:
                await call(inboxes, key, delivery)
                found[name] = "ok"
            except StoreError as error:
                found[name] = type(error).__name__
        return found

    return page.run(whole)


def all_are(calls: dict[str, Call], end: str) -> dict[str, str]:
    """Each call ends in the same way."""
    return dict.fromkeys(calls, end)


def test_every_method_is_tried() -> None:
    """The tests below know every method of the client."""
    methods = {name for name in vars(Inboxes) if not name.startswith("_")}
    assert methods == set(ALL) | PUBLIC


def test_another_inbox_is_never_opened(page: Page, database: Database) -> None:
    """The key of one inbox with a delivery of another: each function that takes a delivery refuses it, as one that does
    not exist; and the mail is still there."""
    key, _ = page.open()
    other, inbox = page.open()
    (foreign,) = send(database, inbox.address, raw=ATTACHED)
    calls = {name: ALL[name] for name in ("message", "attachment", "raw", "remove_mail")}
    assert ends(page, calls, key, foreign) == all_are(calls, "NoSuchMail")
    assert ends(page, calls, key, foreign + 999) == all_are(calls, "NoSuchMail")
    assert ends(page, {"after": READING["after"]}, key, 0) == {"after": "ok"}
    assert page.run(lambda inboxes: inboxes.after(key, "")) == []
    assert page.run(lambda inboxes: inboxes.page(key)).rows == ()
    assert page.run(lambda inboxes: inboxes.message(other, foreign)).subject == "report"
    (mine,) = send(database, page.run(lambda inboxes: inboxes.inbox(key)).address)
    assert page.run(lambda inboxes: inboxes.remove_mail(key, [mine, foreign])) == 1
    assert page.run(lambda inboxes: inboxes.message(other, foreign)).subject == "report"


def test_unknown_keys(page: Page, database: Database) -> None:
    """A key that was never issued opens nothing."""
    (delivery,) = send(database, page.open()[1].address)
    for key in (b"", b"x", bytes(32), bytes(33), bytes(1000)):
        assert ends(page, ALL, key, delivery) == all_are(ALL, "KeyRefused"), key
        assert page.run(lambda inboxes, key=key: inboxes.inboxes([key, key])) == {}  # type: ignore[misc]


def test_a_shared_key_reads(page: Page, database: Database) -> None:
    """A shared key reads everything and changes nothing; after unshare it is unknown, and the owner's goes on."""
    key, inbox = page.open()
    (delivery,) = send(database, inbox.address, raw=ATTACHED)
    shared = new_key()
    opened = page.run(lambda inboxes: inboxes.share(key, shared))
    assert (opened.kind, opened.owner, opened.lease, opened.life_until) == ("shared", False, inbox.lease, None)
    assert ends(page, READING, shared, delivery) == all_are(READING, "ok")
    assert ends(page, OWNER, shared, delivery) == all_are(OWNER, "KeyRefused")
    assert page.run(lambda inboxes: inboxes.unshare(key)) == 1
    assert ends(page, ALL, shared, delivery) == all_are(ALL, "KeyRefused")
    assert ends(page, READING, key, delivery) == all_are(READING, "ok")


def test_a_shared_key_ends_by_itself(page: Page, database: Database) -> None:
    """A shared key with a ttl ends with it; twenty keys are enough."""
    key, inbox = page.open()
    short = new_key()
    opened = page.run(lambda inboxes: inboxes.share(key, short, timedelta(seconds=30)))
    assert inbox.expires_at is not None
    assert opened.expires_at is not None
    assert opened.expires_at < inbox.expires_at
    database.execute("UPDATE pipehandler.capability SET expires_at = now() WHERE kind = 'shared'")
    assert ends(page, ALL, short, 1) == all_are(ALL, "KeyRefused")
    database.execute("SELECT pipehandler.remove_leases()")
    assert database.value("SELECT count(*) FROM pipehandler.capability") == 1

    async def too_many(inboxes: Inboxes) -> None:
        for _ in range(20):
            await inboxes.share(key, new_key())
        with pytest.raises(client.QuotaReached):
            await inboxes.share(key, new_key())

    page.run(too_many)


def test_an_ended_inbox_comes_back(page: Page, database: Database) -> None:
    """An inbox that has ended: reading says so, mail is kept though hidden, and the owner brings it back until its grace
    ends. Then the key opens nothing, and expire removes the mail."""
    key, inbox = page.open()
    shared = new_key()
    page.run(lambda inboxes: inboxes.share(key, shared))
    (delivery,) = send(database, inbox.address, raw=ATTACHED)
    ended = page.run(lambda inboxes: inboxes.expire(key))
    assert (ended.state, ended.deliveries) == ("expired", 1)
    assert ended.expires_at is not None
    assert ended.grace_until == ended.expires_at + DAY
    assert ends(page, READING, key, delivery) == all_are(READING, "InboxExpired")
    assert ends(page, READING, shared, delivery) == all_are(READING, "InboxExpired")
    assert ends(page, {"extend": OWNER["extend"]}, shared, delivery) == {"extend": "KeyRefused"}
    assert database.value("SELECT count(*) FROM pipehandler.inbox") == 0
    assert database.rows("SELECT * FROM pipehandler.lookup(%s)", inbox.address) == []
    assert database.value("SELECT deliveries FROM pipehandler.expire()") == 0
    assert database.value("SELECT oldest_expired FROM pipehandler.health()") is None

    back = page.run(lambda inboxes: inboxes.extend(key, TTL))
    assert (back.state, back.lease) == ("active", inbox.lease)
    assert page.run(lambda inboxes: inboxes.message(key, delivery)).subject == "report"

    page.run(lambda inboxes: inboxes.expire(key))
    later(database, inbox.lease, DAY)
    assert ends(page, ALL, key, delivery) == all_are(ALL, "KeyRefused")
    assert database.value("SELECT oldest_expired FROM pipehandler.health()") is not None
    assert database.value("SELECT deliveries FROM pipehandler.expire()") == 1
    assert database.value("SELECT oldest_expired FROM pipehandler.health()") is None
    assert database.value("SELECT count(*) FROM pipehandler.message") == 0


def later(database: Database, lease: int | None, time: timedelta) -> None:
    """Let a lease have begun and ended so much earlier."""
    database.execute(
        "UPDATE pipehandler.address SET created_at = created_at - %s, expires_at = expires_at - %s WHERE lease = %s",
        time,
        time,
        lease,
    )


def test_the_longest_lifetime(page: Page, database: Database) -> None:
    """Ten more minutes are ten more, but never beyond the longest lifetime, whatever is called how often."""
    key, inbox = page.open()
    assert inbox.expires_at is not None
    more = page.run(lambda inboxes: inboxes.extend(key, TTL))
    assert more.expires_at == inbox.expires_at + TTL
    hour = timedelta(hours=1)
    for _ in range(3):
        last = page.run(lambda inboxes: inboxes.extend(key, hour))
    assert last.expires_at == inbox.created_at + timedelta(hours=2)
    later(database, inbox.lease, timedelta(hours=2))
    with pytest.raises(client.LifetimeReached):
        page.run(lambda inboxes: inboxes.extend(key, TTL))
    for ttl in (timedelta(0), timedelta(seconds=-1), timedelta(hours=1, seconds=1)):
        with pytest.raises(StoreError, match="refused"):
            page.run(lambda inboxes, ttl=ttl: inboxes.extend(key, ttl))  # type: ignore[misc]
        with pytest.raises(StoreError, match="refused"):
            page.open(ttl=ttl)
    issue(database, "other.example")
    with pytest.raises(client.NameRefused):
        page.run(lambda inboxes: inboxes.extend(key, TTL))


def test_remove_inbox(page: Page, database: Database) -> None:
    """Delete everything: mail and keys are gone, the row stays, so that late mail is refused and not stored without a
    lease. Only the same key gets the address back, empty."""
    key, inbox = page.open("anna")
    shared = new_key()
    page.run(lambda inboxes: inboxes.share(key, shared))
    (delivery,) = send(database, inbox.address)
    assert page.run(lambda inboxes: inboxes.remove(key)) == 1
    for each in (key, shared):
        assert ends(page, ALL, each, delivery) == all_are(ALL, "KeyRefused")
    assert database.value("SELECT count(*) FROM pipehandler.message") == 0
    assert database.value("SELECT count(*) FROM pipehandler.capability") == 0
    assert database.rows("SELECT * FROM pipehandler.lookup(%s)", inbox.address) == []
    (late,) = send(database, inbox.address)
    assert database.value("SELECT lease FROM pipehandler.delivery WHERE id = %s", late) == inbox.lease
    assert database.value("SELECT deliveries FROM pipehandler.expire()") == 1
    with pytest.raises(client.NameTaken):
        page.open("anna")
    _, again = page.open("anna", key)
    assert again.lease != inbox.lease
    assert again.deliveries == 0


def test_viewers(page: Page, database: Database) -> None:
    """A viewer's key of one lease reads it; one of all mail reads everything; neither changes anything, and both end
    when their label is revoked."""
    lease = database.value("SELECT lease FROM pipehandler.lease_address('@project.example')")
    (ours,) = send(database, "a@project.example", raw=ATTACHED)
    (theirs,) = send(database, "b@elsewhere.example", raw=ATTACHED.replace(b"1@x", b"2@x"))
    one, every = new_key(), new_key()
    for key, which in ((one, lease), (every, None)):
        database.execute("SELECT pipehandler.grant_view(sha256(%s), %s, 'team')", key, which)
    assert [row.delivery for row in page.run(lambda inboxes: inboxes.page(one)).rows] == [ours]
    assert [row.delivery for row in page.run(lambda inboxes: inboxes.page(every)).rows] == [theirs, ours]
    assert [row.delivery for row in page.run(lambda inboxes: inboxes.after(every, ""))] == [ours, theirs]
    inbox = page.run(lambda inboxes: inboxes.inbox(every))
    assert (inbox.lease, inbox.address, inbox.kind, inbox.label, inbox.deliveries) == (
        None,
        None,
        "viewer",
        "team",
        None,
    )
    assert page.run(lambda inboxes: inboxes.message(every, ours)).previous == theirs
    assert page.run(lambda inboxes: inboxes.message(every, theirs)).next == ours
    assert ends(page, READING, one, ours) == all_are(READING, "ok")
    assert ends(page, {"raw": READING["raw"]}, one, theirs) == {"raw": "NoSuchMail"}
    for key in (one, every):
        assert ends(page, OWNER, key, ours) == all_are(OWNER, "KeyRefused")
    assert database.value("SELECT pipehandler.revoke_view('team')") == 2
    for key in (one, every):
        assert ends(page, ALL, key, ours) == all_are(ALL, "KeyRefused")


def test_inboxes_of_many_keys(page: Page) -> None:
    """What is asked for all open streams at once is what each key gets; others are left out."""
    first, inbox = page.open()
    second, _ = page.open()
    page.run(lambda inboxes: inboxes.expire(second))
    found = page.run(lambda inboxes: inboxes.inboxes([first, new_key(), second]))
    assert {key: (each.state, each.deliveries) for key, each in found.items()} == {
        first: ("active", 0),
        second: ("expired", 0),
    }
    assert found[first].address == inbox.address


def test_pages(page: Page, database: Database) -> None:
    """Pages are newest first and go on where the last one ended; the stream goes on where the page was read."""
    key, inbox = page.open()
    sent = [send(database, inbox.address)[0] for _ in range(5)]

    async def whole(inboxes: Inboxes) -> list[list[int]]:
        pages, before = [], None
        while True:
            one = await inboxes.page(key, before, 2)
            pages.append([row.delivery for row in one.rows])
            if one.older is None:
                return pages
            before = one.older

    assert page.run(whole) == [sent[:2:-1], [sent[2], sent[1]], [sent[0]]]
    assert [row.delivery for row in page.run(lambda inboxes: inboxes.after(key, ""))] == sent
    message = page.run(lambda inboxes: inboxes.message(key, sent[2]))
    assert (message.previous, message.next) == (sent[3], sent[1])
    for cursor in ("x", "1", "99999999999-1", "0a0a0a0a-1-1"):
        with pytest.raises(client.BadCursor):
            page.run(lambda inboxes, cursor=cursor: inboxes.after(key, cursor))  # type: ignore[misc]
        with pytest.raises(client.BadCursor):
            page.run(lambda inboxes, cursor=cursor: inboxes.page(key, cursor))  # type: ignore[misc]
        with pytest.raises(client.BadCursor):
            page.run(lambda inboxes, cursor=cursor: inboxes.arrivals_after(cursor))  # type: ignore[misc]


def test_a_page_and_its_stream_have_no_gap(page: Page, database: Database) -> None:
    """A delivery whose transaction was open while the page was read is not on the page, and is in the stream that goes on
    after it, exactly once; so is one that was committed before the older one."""
    key, inbox = page.open()
    with psycopg.connect(database.admin) as slow:
        slow.execute("SELECT pg_current_xact_id()")
        (early,) = send(database, inbox.address)
        read = page.run(lambda inboxes: inboxes.page(key))
        assert read.rows == ()
        assert page.run(lambda inboxes: inboxes.arrivals_waiting())
        assert page.run(lambda inboxes: inboxes.after(key, read.newest)) == []
        slow.commit()
    assert [row.delivery for row in page.run(lambda inboxes: inboxes.after(key, read.newest))] == [early]
    assert page.run(lambda inboxes: inboxes.arrivals_after(read.newest)) == [
        (page.run(lambda inboxes: inboxes.after(key, read.newest))[0].cursor, inbox.lease)
    ]
    assert not page.run(lambda inboxes: inboxes.arrivals_waiting())


SEARCHES = {
    "REPORT": True,
    "absent": False,
    "ann": True,
    "from:ann": True,
    "from:report": False,
    "to:all@": True,
    "subject:rep": True,
    "-subject:rep": False,
    "-absent": True,
    "text:100%": True,
    "text:1%0": False,
    "_": False,
    "file:bill": True,
    "bill.pdf ann": True,
    '"with 100%"': True,
    '"100% with"': False,
    "has:attachment": True,
    "larger:1m": False,
    "smaller:1m": True,
    "before:2020-01-01": False,
    "after:2020-01-01": True,
    "unknown:report": False,
    "": True,
    "-": False,
}


def test_search(page: Page, database: Database) -> None:
    """A search finds what was typed, in the place that was named; % and _ are letters."""
    key, inbox = page.open()
    send(database, inbox.address, raw=ATTACHED)

    async def whole(inboxes: Inboxes) -> dict[str, bool]:
        return {wanted: bool((await inboxes.page(key, wanted=wanted)).rows) for wanted in SEARCHES}

    assert page.run(whole) == SEARCHES


BOTH_PARTS = (
    b"From: shop@example.org\nMessage-ID: <2@x>\nSubject: news\nMIME-Version: 1.0\n"
    b"Content-Type: multipart/alternative; boundary=b\n\n--b\nContent-Type: text/plain\n\nPlease read the other part\n"
    b"--b\nContent-Type: text/html; charset=utf-8\n\n"
    b"<html><head><title>Untitled</title><style>p > b { color: maroon }</style><script>var secret = 1</script></head>\n"
    b"<body><!-- remark --><p title=tooltip class='greeting'>Your <b>discount</b>\n of 20&nbsp;% ends on Sunday.</p>\n"
    b"<!--[if !mso]><!--><p>R&eacute;servation &#252;ber &#x416; \xd0\xbf\xd0\xb8\xd1\x81\xd1\x8c\xd0\xbc\xd0\xbe</p>"
    b"<!--<![endif]--><p>super&shy;market 1 < 2 &amp;c &bogus; &#0; &#xD800; &#x110000;</p>"
    b"<!-- open: <p>never shown</p></body></html>\n--b--\n"
)
SEARCHES_OF_HTML = {
    "discount": True,
    "DISCOUNT": True,
    "text:discount": True,
    "subject:discount": False,
    "-discount": False,
    '"your discount of 20 %"': True,
    "discount other": True,
    "discount absent": False,
    '"ends on sunday"': True,
    "réservation": True,
    "über": True,
    "Ж": True,
    "письмо": True,
    "supermarket": True,
    '"1 < 2 &c"': True,
    "bogus": True,
    **dict.fromkeys(
        ("untitled", "maroon", "secret", "remark", "tooltip", "greeting", "class", "endif", "never", "shown", "body"),
        False,
    ),
}


def test_search_in_html(page: Page, database: Database) -> None:
    """Of mail with a text and HTML, a search finds the words that only the HTML has, and none of its markup."""
    key, inbox = page.open()
    send(database, inbox.address, raw=BOTH_PARTS)

    async def whole(inboxes: Inboxes) -> dict[str, bool]:
        return {wanted: bool((await inboxes.page(key, wanted=wanted)).rows) for wanted in SEARCHES_OF_HTML}

    assert page.run(whole) == SEARCHES_OF_HTML


IN_ANY_CASE = {
    "ÄUSSERST": False,  # the capital of one letter, not of two
    "äußerst": True,
    "subject:ÄUẞERST": True,
    "file:PRÜFBERICHT": True,
    "to:ΟΔΌΣ": True,
    "to:οδόσ": True,  # a sigma at the end of a word is another letter
    "text:ÜBER": True,
    "RÉSERVATION": True,
    "ПИСЬМО": True,
    "text:ж": True,
    "uber": False,
    "-ÜBER": True,
    "[ü]": False,
    ".": True,
    "text:.": True,
    "file:f.pdf": False,
    "file:t.PDF": True,
    "ü.er": False,
    "^": False,
    "\\d": False,
    "***:x": False,
}


def test_search_in_any_case(page: Page, database: Database) -> None:
    """The case of no letter counts, even where the collation of the database knows those of ASCII only; and every mark
    stands for itself."""
    assert database.value("SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"
    key, inbox = page.open()
    named = ATTACHED.replace(b"bill.pdf", "Prüfbericht.pdf".encode()).replace(b"of it", b"of it.")
    named = named.replace(b"\nSubject: ", "\nSubject: Äußerst ".encode()).replace(
        b"To: ", "To: η Οδός <o@x>, ".encode()
    )
    send(database, inbox.address, raw=named)
    send(database, inbox.address, raw=BOTH_PARTS)

    async def whole(inboxes: Inboxes) -> dict[str, bool]:
        return {wanted: bool((await inboxes.page(key, wanted=wanted)).rows) for wanted in IN_ANY_CASE}

    assert page.run(whole) == IN_ANY_CASE


def test_search_in_the_beginning_of_html(page: Page, database: Database) -> None:
    """The first 100,000 characters of HTML are searched."""
    key, inbox = page.open()
    send(database, inbox.address, raw=BOTH_PARTS)
    for before, found in ((99_990, True), (100_000, False)):
        database.execute("UPDATE pipehandler.message SET html_body = %s", "ü" * before + " word")
        assert bool(page.run(lambda inboxes: inboxes.page(key, wanted="word")).rows) is found


@pytest.mark.parametrize(
    "piece",
    [
        "<",
        "<!--",
        "-->",
        "<a>",
        "<a b='",
        "<style>",
        "</style",
        "<script><",
        "&amp;",
        "&",
        "&#",
        "&#65;",
        " ",
        "<!",
        "é",
    ],
)
def test_html_that_is_costly_to_search(page: Page, database: Database, piece: str) -> None:
    """Whatever the HTML repeats, one message takes a small part of the time of a search: nothing begins again."""
    key, inbox = page.open()
    send(database, inbox.address, raw=BOTH_PARTS)
    database.execute("UPDATE pipehandler.message SET html_body = 'x' || %s", (piece * 200_000)[:200_000])
    assert len(Page(database, search_timeout=20).run(lambda inboxes: inboxes.page(key, wanted="-absent -é1")).rows) == 1


def test_a_search_ends_with_the_last_message(page: Page, database: Database) -> None:
    """A search that has looked at a thousand messages has another page only where there are more."""
    key, inbox = page.open()
    (first,) = send(database, inbox.address, raw=ATTACHED)
    columns = database.value(
        "SELECT string_agg(quote_ident(attname), ', ') FROM pg_attribute WHERE attrelid = 'pipehandler.delivery'::regclass"
        " AND attnum > 0 AND NOT attisdropped AND attname NOT IN ('id', 'fingerprint')"
    )
    more = (
        f"INSERT INTO pipehandler.delivery (fingerprint, {columns}) SELECT sha256(int4send(n)), {columns}"
        " FROM pipehandler.delivery, generate_series(%s::integer, %s::integer) AS n WHERE id = %s"
    )
    for numbers, has_older in (((1, 998), False), ((999, 999), False), ((1000, 1000), True)):
        database.execute(more, *numbers, first)
        for wanted in ("absent", "report"):
            found = page.run(lambda inboxes, wanted=wanted: inboxes.page(key, wanted=wanted, max_rows=200))  # type: ignore[misc]
            assert len(found.rows) == (200 if wanted == "report" else 0)
            assert (found.older is not None) is (wanted == "report" or has_older)
    last = page.run(lambda inboxes: inboxes.page(key, found.older, wanted="-absent"))
    assert last.rows


def test_a_search_that_takes_too_long(page: Page, database: Database) -> None:
    """A search is given up when its time is over."""
    key, inbox = page.open()
    (delivery,) = send(database, inbox.address, raw=ATTACHED)

    async def whole(inboxes: Inboxes) -> None:
        with pytest.raises(client.SearchTooSlow):
            await inboxes.page(key, wanted="report")

    with psycopg.connect(database.admin) as slow:
        slow.execute("LOCK TABLE pipehandler.attachment IN ACCESS EXCLUSIVE MODE")
        Page(database, search_timeout=1).run(whole)
    assert [row.delivery for row in page.run(lambda inboxes: inboxes.page(key, wanted="report")).rows] == [delivery]


def test_large_mail_comes_in_pieces(page: Page, database: Database) -> None:
    """Bytes and attachments come in pieces of 256 KiB and are exact, with what Postfix prepended; bodies are cut at 2 MiB,
    between characters; what was not kept has an answer."""
    key, inbox = page.open()
    content = bytes(range(256)) * 2048  # 512 KiB: two whole pieces
    raw = (
        b"Message-ID: <3@x>\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: 8bit\n\n"
        + b"x" * 700_000
    )
    (delivery,) = send(database, inbox.address, raw=raw)
    prepended = b"Delivered-To: you\n" * 20_000
    database.execute("UPDATE pipehandler.delivery SET prepended = %s", prepended)
    database.execute("UPDATE pipehandler.attachment SET content = %s", content)
    text = "a" + "\U0001f600" * 600_000
    database.execute("UPDATE pipehandler.message SET text_body = %s, html_body = %s", text, "b" * 2_097_153)
    pieces = page.run(lambda inboxes: joined(inboxes.raw(key, delivery)))
    assert b"".join(pieces) == prepended + raw
    assert {len(piece) for piece in pieces[:-1]} == {client.PIECE}
    assert b"".join(page.run(lambda inboxes: joined(inboxes.attachment(key, delivery, 1)))) == content
    message = page.run(lambda inboxes: inboxes.message(key, delivery))
    assert message.is_cut
    assert message.text_body == "a" + "\U0001f600" * 524_287
    assert message.html_body == "b" * 2_097_152
    assert page.run(lambda inboxes: inboxes.small_attachments(key, delivery, [1])) == {1: content}
    with pytest.raises(client.NoSuchMail):
        page.run(lambda inboxes: joined(inboxes.attachment(key, delivery, 2)))
    with pytest.raises(client.NoSuchMail, match="2"):
        page.run(lambda inboxes: inboxes.small_attachments(key, delivery, [1, 2]))
    database.execute("UPDATE pipehandler.attachment SET content = content || content || 'x'")  # more than 1 MiB
    with pytest.raises(client.NoSuchMail):
        page.run(lambda inboxes: inboxes.small_attachments(key, delivery, [1]))
    database.execute("UPDATE pipehandler.attachment SET content = NULL")
    database.execute("DELETE FROM pipehandler.raw_message")
    with pytest.raises(client.NoSuchMail):
        page.run(lambda inboxes: inboxes.small_attachments(key, delivery, [1]))
    for call in (READING["raw"], READING["attachment"]):
        with pytest.raises(client.NotKept):
            page.run(lambda inboxes, call=call: call(inboxes, key, delivery))  # type: ignore[misc]
    message = page.run(lambda inboxes: inboxes.message(key, delivery))
    assert (message.has_raw, message.attachments[0].kept) == (False, False)


def test_a_revoked_key_ends_a_download(page: Page, database: Database) -> None:
    """A key that is revoked between two pieces gets no further one."""
    key, inbox = page.open()
    (delivery,) = send(database, inbox.address, raw=b"Message-ID: <3@x>\n\n" + b"x" * 900_000)

    async def whole(inboxes: Inboxes) -> None:
        pieces = inboxes.raw(key, delivery)
        assert len(await anext(pieces)) == client.PIECE
        await asyncio.to_thread(database.execute, "DELETE FROM pipehandler.capability")
        with pytest.raises(client.KeyRefused):
            await anext(pieces)

    page.run(whole)


def test_a_damaged_row_stops_nothing(page: Page, database: Database, caplog: pytest.LogCaptureFixture) -> None:
    """A row that Python cannot hold is left out of the list, and the message is not there."""
    key, inbox = page.open()
    (bad,) = send(database, inbox.address)
    (good,) = send(database, inbox.address)
    database.execute("ALTER TABLE pipehandler.delivery DROP CONSTRAINT delivery_times")
    database.execute("UPDATE pipehandler.delivery SET received_at = 'infinity' WHERE id = %s", bad)
    assert [row.delivery for row in page.run(lambda inboxes: inboxes.page(key)).rows] == [good]
    assert "left out" in caplog.text
    with pytest.raises(client.NoSuchMail):
        page.run(lambda inboxes: inboxes.message(key, bad))


def test_a_missing_right_is_no_refused_key(page: Page, database: Database) -> None:
    """42501 for want of a right is a fault of the set-up, not of the key."""
    for role in ("reader", "pipehandler"):
        with pytest.raises(StoreError) as caught:
            Page(database, role).run(lambda inboxes: inboxes.inbox(new_key()))
        assert caught.value.sqlstate == INSUFFICIENT_PRIVILEGE
        assert not isinstance(caught.value, client.InboxError)


def test_a_dump_holds_no_key(page: Page, database: Database) -> None:
    """Nobody who gets hold of a dump can open an inbox with it: neither a key is in it, nor is a digest a key."""
    keys = [page.open()[0], new_key(), new_key()]
    page.run(lambda inboxes: inboxes.share(keys[0], keys[1]))
    database.execute("SELECT pipehandler.grant_view(sha256(%s), NULL, 'all')", keys[2])
    server = database.server
    where = ["-h", str(server.folder), "-p", str(server.port), "-U", "postgres", "-d", database.name]
    dump = server.run("pg_dump", *where, "--data-only")
    digests = [bytes(row.digest) for row in database.rows("SELECT digest FROM pipehandler.capability")]
    assert len(digests) == 3
    assert all(digest.hex() in dump for digest in digests)
    assert not any(key.hex() in dump for key in keys)
    for digest in digests:
        assert ends(page, ALL, digest, 1) == all_are(ALL, "KeyRefused")


def test_the_page_reaches_no_internal_function(page: Page, database: Database) -> None:
    """What the functions call is not for the page: neither leases by number, nor keys by digest, nor the rules."""
    key, inbox = page.open()
    for statement in (
        f"SELECT pipehandler.expire_lease({inbox.lease})",
        f"SELECT pipehandler.remove_lease({inbox.lease})",
        "SELECT pipehandler.lease_address('a@b.example')",
        "SELECT pipehandler.issue_lease('a@b.example', NULL, NULL, NULL)",
        f"SELECT pipehandler.remove_mail_of_lease({inbox.lease})",
        "SELECT pipehandler.remove_deliveries(ARRAY[1])",
        f"SELECT pipehandler.usable_key('\\x{key.hex()}')",
        f"SELECT pipehandler.admit('\\x{key.hex()}')",
        f"SELECT pipehandler.delivery_of('\\x{key.hex()}', 1)",
        "SELECT pipehandler.wanted_of(ARRAY[1], '{}')",
        "SELECT pipehandler.deliveries_after('')",
        "SELECT pipehandler.grant_view(sha256(''), NULL, 'x')",
        "SELECT pipehandler.set_web_domains('[]')",
        f"SELECT pipehandler.close_inbox({inbox.lease})",
        "SELECT pipehandler.lookup('a@b.example')",
    ):
        with psycopg.connect(page.conninfo) as connection, pytest.raises(InsufficientPrivilege):
            connection.execute(statement)


def test_domains(page: Page) -> None:
    """The page knows which domains there are, and for how long."""
    (domain,) = page.run(lambda inboxes: inboxes.domains())
    assert (domain.domain, domain.grace) == (DOMAIN, DAY)
    assert domain.max_life == timedelta(seconds=float(str(RULES["max_life"])))
