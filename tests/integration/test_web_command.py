"""`pipehandler web key, keys, revoke, close, reopen`, and what `pipehandler expire` copies for the inbox page."""

import json
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest
from harness.console import Console
from harness.database import Database
from harness.inboxes import DOMAIN, Page, issue, send

from pipehandler.mail.sysexits import EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE
from pipehandler.store import inboxes as client

PUBLIC = f"""
recipients.policy = 'known'
recipients.delimiter = '+-'
[web]
public = true
hosts = ['inbox.example.com', 'other.example.com']
domains = ['{DOMAIN}', 'second.example']
trusted_proxies = ['127.0.0.1']
reserved_names = ['acme']
ttl = 300
extension = 900
max_life = 1800
grace = 60
held_days = 2
max_messages = 7
max_octets = 2000000
domain_opened_per_hour = 20
max_inboxes = 200
"""


def key_of(link: str) -> bytes:
    """The key of a link."""
    return urlsafe_b64decode(link.strip().rpartition("#")[2] + "=")


def test_a_key_to_a_mailbox(console: Console, database: Database) -> None:
    """`web key` prints a link, once; the key in it reads the lease, the list shows its label, and `revoke` ends it."""
    console.configure(more="[web]\nhosts = ['inbox.example.com']")
    console.run("address", "add", "@project.example")
    (delivery,) = send(database, "anyone@project.example")
    send(database, "me@elsewhere.example")
    page = Page(database)
    link = console.run("web", "key", "@project.example", "--label", "project", "--ttl", "1h").text
    assert link.startswith("https://inbox.example.com/en/open#")
    key = key_of(link)
    assert [row.delivery for row in page.run(lambda inboxes: inboxes.page(key)).rows] == [delivery]

    found = json.loads(console.run("web", "key", "--all", "--label", "team", "--json").text)
    every = key_of(found["link"])
    assert (found["lease"], found["label"], key_of(found["key"])) == (None, "team", every)
    assert len(page.run(lambda inboxes: inboxes.page(every)).rows) == 2

    listed = console.run("web", "keys").text
    assert "project" in listed
    assert "@project.example" in listed
    assert "all mail" in listed
    assert not any(secret in listed for secret in (link.strip().rpartition("#")[2], found["key"]))
    rows = json.loads(console.run("web", "keys", "--json").text)
    assert {row["label"]: row["expires_at"] is None for row in rows} == {"project": False, "team": True}

    assert console.run("web", "revoke", "project").text == "1 key revoked\n"
    with pytest.raises(client.KeyRefused):
        page.run(lambda inboxes: inboxes.page(key))
    assert console.run("web", "revoke", "project").status == EX_NOINPUT
    assert json.loads(console.run("web", "revoke", "team", "--json").text) == {"revoked": 1}
    assert console.run("web", "keys").text == "nothing found\n"


def test_wrong_usage(console: Console) -> None:
    """A key is for a lease or for all mail, a lease has to exist, and what is for networks says so."""
    for arguments in (
        ("key", "--label", "x"),
        ("key", "a@b.example", "--all", "--label", "x"),
        ("key", "--all"),
        ("key", "--all", "--label", ""),
        ("close", "a@b.example", "--inboxes", "--yes"),
    ):
        assert console.run("web", *arguments).status == 2, arguments
    assert console.run("web", "key", "a@b.example", "--label", "x").status == EX_NOINPUT
    assert console.run("web", "close", "a@b.example", "--yes").status == EX_NOINPUT
    assert console.run("web", "reopen", "x").status == EX_DATAERR
    assert console.run("web", "reopen", "192.0.2.0/24").status == EX_NOINPUT


def test_closing(console: Console, database: Database) -> None:
    """`web close` ends an inbox, or a network with the inboxes opened from there, after a question."""
    issue(database)
    page = Page(database)
    key, inbox = page.open("anna")
    page.open(client="192.0.2.7")
    asked = console.run("web", "close", f"anna@{DOMAIN}")
    assert asked.status == 1
    assert page.run(lambda inboxes: inboxes.inbox(key)).state == "active"
    assert (
        console.run("web", "close", f"anna@{DOMAIN}", "--yes").text == f"anna@{DOMAIN}: lease {inbox.lease} is closed\n"
    )
    with pytest.raises(client.KeyRefused):
        page.run(lambda inboxes: inboxes.inbox(key))
    console.run("address", "add", "me@elsewhere.example")
    assert "not opened on the inbox page" in console.run("web", "close", "me@elsewhere.example", "--yes").errors

    done = console.run("web", "close", "192.0.2.7/24", "--inboxes", "--label", "abuse", "--ttl", "2d", "--yes")
    assert done.text == "192.0.2.0/24 is closed, with 1 inbox\n"
    with pytest.raises(client.NetworkClosed):
        page.open(client="192.0.2.9")
    listed = console.run("web", "reopen").text
    assert "192.0.2.0/24" in listed
    assert "abuse" in listed
    assert console.run("web", "reopen", "192.0.2.0/24").text == "192.0.2.0/24 is open again\n"
    assert page.open(client="192.0.2.9")[1].address
    closed = json.loads(console.run("web", "close", "2001:db8::/32", "--yes", "--json").text)
    assert closed == {"network": "2001:db8::/32", "inboxes": 0}


def test_expire_copies_the_domains(console: Console, database: Database) -> None:
    """The domains of a public page are in the database after the next `expire`, with their rules, and gone when the page
    is not public any more; one with a catch-all is reported, and nothing else waits for it."""
    console.configure(more=PUBLIC)
    assert console.run("expire").status == 0
    rows = database.rows(
        "SELECT domain, extract(epoch FROM max_ttl)::int AS ttl, extract(epoch FROM max_life)::int AS life,"
        " extract(epoch FROM grace)::int AS grace, extract(epoch FROM held)::int AS held, delimiter, reserved_names,"
        " max_messages, max_octets, max_opened_per_hour, max_inboxes"
        " FROM pipehandler.web_domain ORDER BY ordinal"
    )
    rules = (900, 1800, 60, 172_800, "+-", ["acme"], 7, 2_000_000, 20, 200)
    assert [tuple(row) for row in rows] == [(DOMAIN, *rules), ("second.example", *rules)]
    assert Page(database).open("anna", domain="second.example")[1].address == "anna@second.example"
    with pytest.raises(client.NameRefused):
        Page(database).open("acme")
    taken = console.run("address", "add", f"anna+bank@{DOMAIN}".replace(DOMAIN, "second.example"))
    assert "would share mail" in taken.errors

    database.execute("DELETE FROM pipehandler.web_domain WHERE domain = 'tmp.example'")
    console.run("address", "add", f"@{DOMAIN}")
    done = console.run("expire")
    assert done.status == 0
    assert f"no addresses of {DOMAIN}" in done.errors
    assert done.output == b"removed nothing\n"

    console.configure(more=PUBLIC.replace("public = true", "public = false"))
    console.run("expire")
    assert database.value("SELECT count(*) FROM pipehandler.web_domain") == 0


def test_expire_counts_as_it_removes(console: Console, database: Database, folder: Path) -> None:
    """The mail of an inbox that ended is not due until its grace ends: --dry-run counts what is removed."""
    issue(database)
    page = Page(database)
    key, inbox = page.open()
    send(database, inbox.address)
    page.run(lambda inboxes: inboxes.expire(key))
    for due in (0, 1):
        counted = json.loads(console.run("expire", "--dry-run", "--json").text)
        done = json.loads(console.run("expire", "--json").text)
        assert (counted["deliveries"], done["deliveries"]) == (due, due)
        database.execute(
            "UPDATE pipehandler.address SET created_at = now() - interval '2 d', expires_at = now() - interval '1 d'"
        )


def test_rights(console: Console) -> None:
    """A role that may only read issues no key, and the error names the group that may."""
    console.configure("reader")
    done = console.run("web", "key", "--all", "--label", "x")
    assert done.status == EX_UNAVAILABLE
    assert "pipehandler_maintenance" in done.errors
