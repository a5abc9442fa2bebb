"""How many inboxes visitors may open: the database counts, so a page that was taken over cannot open more."""

import psycopg
import pytest
from harness.database import Database
from harness.inboxes import DOMAIN, TTL, Page, issue, new_key, send

from pipehandler.parse.message import parse
from pipehandler.store import inboxes as client
from pipehandler.store.errors import TOO_MANY_INBOXES
from pipehandler.store.inboxes import Inboxes

HOUR = 3600


@pytest.fixture
def page(database: Database) -> Page:
    """The page's client; no rules yet."""
    return Page(database)


def refusal(page: Page, domain: str = DOMAIN, key: bytes | None = None) -> client.TooManyInboxes:
    """With what opening one more is refused."""
    with pytest.raises(client.TooManyInboxes) as caught:
        page.open(domain=domain, key=key)
    assert caught.value.sqlstate == TOO_MANY_INBOXES
    return caught.value


def test_within_an_hour(page: Page, database: Database) -> None:
    """So many of one domain, whatever became of them; another domain has a count of its own; time makes room."""
    issue(database, DOMAIN, "second.example", max_opened_per_hour=3)
    keys = [page.open()[0] for _ in range(3)]
    page.run(lambda inboxes: inboxes.remove(keys[0]))
    refused = refusal(page)
    assert (refused.limit, HOUR - 60 < refused.seconds <= HOUR) == ("domain_opened_per_hour", True)
    refusal(page, key=keys[0])  # also to get the same address back
    assert page.open(domain="second.example")[1].address
    database.execute(
        "UPDATE pipehandler.web_inbox SET opened_at = opened_at - interval '59 minutes 50 seconds'"
        " WHERE lease = (SELECT min(lease) FROM pipehandler.web_inbox)"
    )
    assert refusal(page).seconds <= 10
    database.execute("UPDATE pipehandler.web_inbox SET opened_at = opened_at - interval '1 hour'")
    assert page.open()[1].address
    page.run(lambda inboxes: inboxes.inbox(keys[1]))  # those that exist work


def test_in_all(page: Page, database: Database) -> None:
    """So many of all domains together, those included that can be brought back; one that is removed makes room."""
    issue(database, DOMAIN, "second.example", max_inboxes=2, grace=60)
    first, second = page.open()[0], page.open(domain="second.example")[0]
    page.run(lambda inboxes: inboxes.expire(first))
    refused = refusal(page)
    assert (refused.limit, 0 < refused.seconds <= 60) == ("max_inboxes", True)
    page.run(lambda inboxes: inboxes.extend(first, TTL))  # which opens none
    page.run(lambda inboxes: inboxes.remove(second))
    third = page.open()[0]
    refusal(page)
    send(database, "elsewhere@other.example")
    database.execute("SELECT pipehandler.lease_address('mine@other.example')")  # no visitor's
    database.execute("UPDATE pipehandler.web_inbox SET mail_until = now() WHERE holder = sha256(%s::bytea)", third)
    assert page.open()[1].address


def test_not_by_transactions_that_do_not_see_each_other(page: Page, database: Database) -> None:
    """A page that was taken over opens inboxes in several transactions at once: together they open as many as may be."""
    issue(database, max_opened_per_hour=2)
    opening = "SELECT pipehandler.open_inbox(%s, %s, NULL, '10 min')"
    with psycopg.connect(page.conninfo) as one, psycopg.connect(page.conninfo) as other:
        for _ in range(2):
            one.execute(opening, [new_key(), DOMAIN])
        other.execute("SET lock_timeout = '100ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            other.execute(opening, [new_key(), DOMAIN])
        other.rollback()
        one.commit()
        with pytest.raises(psycopg.Error) as caught:
            other.execute(opening, [new_key(), DOMAIN])
        assert caught.value.sqlstate == TOO_MANY_INBOXES


def test_not_by_a_transaction_that_began_long_ago(page: Page, database: Database) -> None:
    """What counts is when an inbox is opened, not when its client began the transaction."""
    issue(database, max_opened_per_hour=2)
    with psycopg.connect(page.conninfo) as session:
        (began,) = session.execute("SELECT now()").fetchone() or (None,)
        session.execute("SELECT pipehandler.open_inbox(%s, %s, NULL, '10 min')", [new_key(), DOMAIN])
    assert database.value("SELECT min(opened_at) > %s FROM pipehandler.web_inbox", began)


def test_the_page_changes_no_limit(page: Page, database: Database) -> None:
    """The role of the page neither sees nor changes what limits it."""
    issue(database)
    with psycopg.connect(page.conninfo, autocommit=True) as session:
        for statement in (
            "UPDATE pipehandler.web_domain SET max_inboxes = 1000000",
            "UPDATE pipehandler.web_inbox SET opened_at = 'epoch'",
            "SELECT pipehandler.set_web_domains('[]')",
            "SELECT pipehandler.require_room_for_inbox(NULL)",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(statement)


def test_images_of_the_html_are_no_attachments(page: Page, database: Database) -> None:
    """The list counts what a reader calls an attachment, and a search for attachments finds the same."""
    issue(database)
    key, opened = page.open()
    assert opened.address
    related = (
        b"From: a@x.example\nMessage-ID: <%s@x>\nMIME-Version: 1.0\nContent-Type: multipart/related; boundary=b\n\n"
        b"--b\nContent-Type: text/html\n\n<img src=cid:logo>\n--b\nContent-Type: image/png; name=logo.png\n"
        b"Content-ID: <%s>\nContent-Disposition: %s\n\nx\n--b--\n"
    )
    for number, (name, disposition) in enumerate(
        ((b"logo", b"inline"), (b"logo", b"attachment"), (b"other", b"inline"), (b"other", b"attachment"))
    ):
        raw = related % (b"%d" % number, name, disposition)
        send(database, opened.address, raw=raw, parsed=parse(raw))

    async def counts(inboxes: Inboxes) -> tuple[list[int], list[int], list[int]]:
        listed = (await inboxes.page(key)).rows
        found = (await inboxes.page(key, wanted="has:attachment")).rows
        streamed = await inboxes.after(key, "")
        return (
            [row.attachments for row in listed],
            [row.attachments for row in found],
            [row.attachments for row in streamed],
        )

    assert page.run(counts) == ([1, 1, 0, 0], [1, 1], [0, 0, 1, 1])
