"""The page on four shards: each visitor's inbox on one of them, a viewer's key on all, and a shard that is away."""

import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from signal import SIGKILL
from typing import Any

import psycopg
import pytest
from harness import account
from harness.console import Console
from harness.inboxes import DOMAIN, Page, issue, send
from harness.service import wait_until
from harness.shards import COUNT, Shards
from harness.stream import announce
from harness.web import JSON, EventSource, Visitor, WebServer, web_server

from pipehandler.check.web import check_web
from pipehandler.settings import config
from pipehandler.settings.config import Config, Recipients, Web
from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError
from pipehandler.store.inbox_errors import TooManyInboxes
from pipehandler.store.inbox_shards import new_key as key_of_shard
from pipehandler.store.inbox_shards import shard_of_key
from pipehandler.store.web_domains import configured, set_domains
from pipehandler.web.keys import key_of, text_of


@pytest.fixture(scope="module")
def sharded_page(made_shards: Shards) -> Iterator[WebServer]:
    """A page whose database is the proxy."""
    for shard in made_shards.of:
        issue(shard)
    with account.folder("pipehandler-web-") as folder, web_server(folder, made_shards.proxy) as server:
        wait_until(lambda: all_up(server), "all shards")
        yield server


@pytest.fixture
def live(sharded_page: WebServer, shards: Shards) -> Iterator[WebServer]:
    """The same; at the end it reaches all shards again."""
    yield sharded_page
    shards.revive()
    wait_until(lambda: all_up(sharded_page), "all shards")


@pytest.fixture
def console(shards: Shards) -> Iterator[Console]:
    """The operator's commands, on the proxy."""
    with account.folder("pipehandler-") as folder:
        console = Console(folder, shards.proxy)
        console.config.write_text(
            f"database.admin_conninfo = '{shards.proxy.admin}'\nlog.syslog = false\n"
            f"state.directory = '{folder / 'nowhere'}'\n"
        )
        yield console


def all_up(server: WebServer) -> bool:
    """Whether the page reaches every shard, and hears each."""
    return bool(server.get("/healthz").json == {"database": True, "listening": True, "shards": [True] * COUNT})


def opened(server: WebServer, shards: Shards, prefix: str) -> list[Visitor]:
    """A visitor with an inbox on each shard, in their order."""
    visitors = []
    for address in shards.addresses(DOMAIN, prefix):
        visitors.append(Visitor(server))
        assert address in visitors[-1].open(name=address.partition("@")[0].upper()).text
    return visitors


def labels(console: Console) -> list[str]:
    """The labels of the viewers' keys."""
    return [row["label"] for row in json.loads(console.run("web", "keys", "--json").text)]


def octets(visitor: Visitor) -> bytes:
    """The key of a visitor."""
    key = key_of(visitor.key)
    assert key
    return key


_seconds = itertools.count()


def store(shards: Shards, address: str) -> int:
    """Store a message through the proxy, received a second after the one before; the number of its delivery."""
    received = datetime(2026, 11, 27, 12, tzinfo=UTC) + timedelta(seconds=next(_seconds))
    (delivery,) = send(shards.proxy, address, received_at=received.isoformat())
    return delivery


def deliver(shards: Shards, address: str) -> int:
    """The same, and wake readers, as a handler does."""
    delivery = store(shards, address)
    announce(shards.proxy)
    return delivery


def test_an_inbox_on_each_shard(live: WebServer, shards: Shards) -> None:
    """A name, and its key, are those of one shard; the whole life of the inbox is there, and mail arrives at once."""
    for number, visitor in enumerate(opened(live, shards, "life")):
        found = visitor.inbox()
        assert shard_of_key(octets(visitor), COUNT) == shards.number(found["address"]) == number
        assert shards.of[number].value("SELECT address FROM pipehandler.address WHERE lease = %s", found["lease"])
        stream = EventSource(live, visitor.key)
        assert stream.next().kind == "inbox"
        delivery = deliver(shards, found["address"])
        assert delivery % COUNT == number
        assert stream.next("mail").data["delivery"] == delivery
        waited = visitor.get(f"rows?after={found['newest']}&wait=30", JSON).json
        assert [row["delivery"] for row in waited["rows"]] == [delivery]
        assert "body" in visitor.get(f"m/{delivery}?view=text").text
        assert b"Subject: hello" in visitor.get(f"m/{delivery}.eml").body
        assert "notice=extended" in visitor.post("extend").headers["location"]

        reader = Visitor(live)
        reader.cookies["__Host-inbox"] = visitor.post("share", {}, JSON).json["key"]
        assert reader.inbox()["rows"][0]["delivery"] == delivery
        assert visitor.get(f"m/{delivery + 1}", JSON).status == 404  # of another shard, and no one's
        assert visitor.post("remove", {"delivery": [delivery]}).status == 303
        assert visitor.inbox()["rows"] == []
        assert "notice=deleted" in visitor.post("end").headers["location"]
        assert stream.next("gone")
        stream.close()


def test_random_names(live: WebServer, shards: Shards) -> None:
    """They are spread over the shards; a browser has inboxes of several and switches between them."""
    visitor = Visitor(live)
    for _ in range(6):
        visitor.open()
    keys = [key_of(text) for text in visitor.cookies["__Host-inbox"].split(".")]
    inboxes = [
        Visitor(live, Authorization=f"Bearer {text}").inbox() for text in visitor.cookies["__Host-inbox"].split(".")
    ]
    for key, inbox in zip(keys, inboxes, strict=True):
        assert key
        assert shard_of_key(key, COUNT) == shards.number(inbox["address"]) == inbox["lease"] % COUNT
    visitor.post("switch", {"lease": inboxes[-1]["lease"]})
    assert visitor.inbox()["address"] == inboxes[-1]["address"]
    assert visitor.cookies["__Host-inbox"].count(".") == 5


def test_a_page_of_one_shard(shards: Shards) -> None:
    """A page whose database is a shard itself has the addresses and the keys of that shard."""
    issue(shards.of[1])
    with account.folder("pipehandler-web-") as folder, web_server(folder, shards.of[1]) as server:
        visitor = Visitor(server)
        visitor.open()
        found = visitor.inbox()
        assert shards.number(found["address"]) == shard_of_key(octets(visitor), COUNT) == 1
        assert visitor.get(f"rows?after={found['cursor']}", JSON).json["rows"] == []
        names = [address.partition("@")[0] for address in shards.addresses(DOMAIN, "one")]
        assert [Visitor(server).post("inbox", {"name": name}).status for name in names] == [422, 303, 422, 422]
        visitor.cookies["__Host-inbox"] = text_of(key_of_shard(2, COUNT))
        assert visitor.get("inbox", JSON).status == 403


def test_a_killed_shard(live: WebServer, shards: Shards) -> None:
    """Its inboxes answer 503, and their keys stay; others go on, streams included, and new addresses come from elsewhere."""
    _, alive, dead, _ = opened(live, shards, "killed")
    both = Visitor(live)
    both.cookies["__Host-inbox"] = f"{dead.key}.{alive.key}"
    its, other = dead.inbox(), alive.inbox()
    stream, cut = EventSource(live, alive.key), EventSource(live, dead.key)
    assert (stream.next().kind, cut.next().kind) == ("inbox", "inbox")
    shards.of[2].server.stop(SIGKILL)
    wait_until(lambda: live.get("/healthz").json["shards"] == [True, True, False, True], "its loss")
    assert live.get("/healthz").status == 200
    assert live.counts()["database_up"] == 0
    wait_until(lambda: dead.get("inbox").status == 503, "the refusal")
    refused = dead.get("inbox")
    assert (refused.headers["retry-after"], "Nothing is lost" in refused.text) == ("5", True)
    assert dead.get("inbox", JSON).json["error"] == "unavailable"
    assert both.get("inbox").status == 503
    assert other["address"] in both.get(f"inbox?inbox={other['lease']}").text
    assert both.get("").status == 200
    assert both.cookies["__Host-inbox"] == f"{dead.key}.{alive.key}"
    assert stream.next("mail").data["delivery"] if deliver(shards, other["address"]) else False
    for _ in range(4):
        new = Visitor(live)
        new.open()
        assert shards.number(new.inbox()["address"]) != 2
    name = shards.addresses(DOMAIN, "away")[2].partition("@")[0]
    assert new.post("inbox", {"name": name}).status == 503

    shards.of[2].server.start()
    wait_until(lambda: all_up(live), "its return")
    delivery = deliver(shards, its["address"])
    assert cut.next("mail").data["delivery"] == delivery
    assert both.get("inbox").status == 200
    for each in (stream, cut):
        each.close()


def test_a_frozen_shard(live: WebServer, shards: Shards) -> None:
    """Visitors of the others do not wait for those of a shard that neither answers nor ends connections."""
    visitors = opened(live, shards, "frozen")
    frozen, others = visitors[3], visitors[:3]
    order: list[tuple[Visitor, int]] = []

    def look(visitor: Visitor) -> None:
        order.append((visitor, visitor.get("inbox").status))

    waiting = [threading.Thread(target=look, args=[frozen]) for _ in range(6)]
    shards.of[3].server.freeze()
    try:
        for thread in waiting:
            thread.start()
        for visitor in others:
            look(visitor)
        for thread in waiting:
            thread.join(60)
        assert order == [(visitor, 200) for visitor in others] + [(frozen, 503)] * 6
        wait_until(lambda: live.get("/healthz").json["shards"] == [True, True, True, False], "its loss")
    finally:
        shards.of[3].server.thaw()
    wait_until(lambda: all_up(live), "its return")
    assert frozen.get("inbox").status == 200


@pytest.mark.long
def test_a_shard_that_moves(live: WebServer, shards: Shards) -> None:
    """The page finds it at the place that the proxy knows now."""
    visitor = opened(live, shards, "moved")[1]
    before = shards.proxy.value("SELECT conninfo FROM pipehandler.shards() WHERE shard = 1")
    host = shards.of[1].server.conninfo().partition("host=")[2].split()[0].strip("'")
    shards.of[1].server.stop(SIGKILL)
    wait_until(lambda: not live.get("/healthz").json["shards"][1], "its loss")
    place = before.replace(host, f"{host}/.")
    assert place != before
    with psycopg.connect(shards.proxy.admin, autocommit=True) as proxy:
        proxy.execute(f"ALTER SERVER pipehandler OPTIONS (SET p1 {psycopg.sql.Literal(place).as_string(proxy)})")
        wait_until(lambda: "shard 1 has moved" in live.log.read_text(), "the new place")
        shards.of[1].server.start()
        wait_until(lambda: all_up(live), "its return")
        assert visitor.get("inbox").status == 200
        proxy.execute(f"ALTER SERVER pipehandler OPTIONS (SET p1 {psycopg.sql.Literal(before).as_string(proxy)})")


def test_a_key_to_all_mail(live: WebServer, shards: Shards, console: Console) -> None:
    """It is on every shard. Its list has the mail of all by time, page by page; its stream misses none, whatever is away."""
    text = json.loads(console.run("web", "key", "--all", "--label", "team", "--json").text)["key"]
    assert labels(console).count("team") == 1
    viewer = Visitor(live)
    viewer.cookies["__Host-inbox"] = text
    addresses = shards.addresses("merged.example")
    stream = EventSource(live, text)
    stream.next("inbox")
    sent = []
    for _ in range(14):
        for address in addresses:
            sent.append(store(shards, address))
    announce(shards.proxy)
    assert {stream.next("mail").data["delivery"] for _ in sent} == set(sent)

    listed: list[dict[str, Any]] = []
    before = ""
    while len(listed) < len(sent):
        page = viewer.get(f"inbox{before}", JSON).json
        assert not page["partial"]
        listed += page["rows"]
        before = f"?before={page['older']}"
    assert [row["delivery"] for row in listed[: len(sent)]] == sent[::-1]
    middle = listed[30]
    assert [row["delivery"] for row in viewer.get(f"inbox?before={middle['cursor']}", JSON).json["rows"]][:20] == sent[
        ::-1
    ][31:51]
    shown = viewer.get(f"m/{sent[-3]}").text
    for neighbour in (sent[-2], sent[-4]):
        assert f"/en/m/{neighbour}" in shown.partition("<article")[2]
    everything, after = [], ""
    while rows := viewer.get(f"rows?after={after}", JSON).json["rows"]:
        everything += [row["delivery"] for row in rows]
        after = rows[-1]["cursor"]
    assert set(sent) < set(everything)
    assert len(everything) == len(set(everything))
    assert viewer.get("rows?after=0:1-1,1:x", JSON).status == 400

    shards.of[0].server.stop(SIGKILL)
    wait_until(lambda: viewer.get("inbox", JSON).json["partial"], "its loss")
    assert "Some of the mail cannot be shown" in viewer.get("inbox").text
    begun = viewer.inbox()
    assert {row["delivery"] % COUNT for row in begun["rows"]} == {1, 2, 3}
    delivery = deliver(shards, addresses[1])
    assert stream.next("mail").data["delivery"] == delivery
    later = EventSource(live, text, after=begun["newest"])
    assert later.next("mail").data["delivery"] == delivery
    shards.of[0].server.start()
    assert later.next("reset")  # of which it has shown nothing
    wait_until(lambda: all_up(live), "its return")
    delivery = deliver(shards, addresses[0])
    assert stream.next("mail").data["delivery"] == delivery

    assert console.run("web", "revoke", "team").text == "1 key revoked\n"
    assert stream.next("gone")
    assert viewer.get("inbox", JSON).status == 403
    for each in (stream, later):
        each.close()


def test_a_key_to_a_catch_all_and_to_an_address(live: WebServer, shards: Shards, console: Console) -> None:
    """That of a catch-all is on every shard, that of an address where its mail is; both are listed once, and revoked."""
    console.run("address", "add", "@caught.example")
    addresses = shards.addresses("caught.example")
    link = console.run("web", "key", "@caught.example", "--label", "project").text
    viewer = Visitor(live)
    viewer.cookies["__Host-inbox"] = link.strip().rpartition("#")[2]
    sent = [deliver(shards, address) for address in addresses]
    deliver(shards, shards.addresses("elsewhere.example")[0])
    found = viewer.inbox()
    assert [row["delivery"] for row in found["rows"]] == sent[::-1]
    assert (found["address"], found["deliveries"]) == ("@caught.example", COUNT)

    single = shards.addresses("single.example")[2]
    console.run("address", "add", single)
    text = json.loads(console.run("web", "key", single, "--label", "project", "--json").text)["key"]
    key = key_of(text)
    assert key
    assert shard_of_key(key, COUNT) == 2
    assert Visitor(live, Authorization=f"Bearer {text}").inbox()["rows"] == []
    assert labels(console).count("project") == 2
    shards.of[1].server.stop(SIGKILL)
    done = console.run("web", "key", "--all", "--label", "lost")
    assert (done.status, "shard 1: " in done.errors) == (69, True)
    shards.of[1].server.start()
    assert console.run("web", "revoke", "project").text == "2 keys revoked\n"
    assert console.run("web", "revoke", "lost").text == "1 key revoked\n"


def test_closing(live: WebServer, shards: Shards, console: Console) -> None:
    """An inbox is closed where it is, a network on every shard."""
    visitors = opened(live, shards, "closed")
    for visitor in visitors[:2]:
        address = visitor.inbox()["address"]
        assert "is closed" in console.run("web", "close", address, "--yes").text
        assert visitor.get("inbox", JSON).status == 403
    lease = visitors[2].inbox()["lease"]
    assert f"lease {lease} is closed" in console.run("web", "close", lease, "--yes").text
    network = "203.0.113.0/24"
    console.run("web", "close", network, "--inboxes", "--yes")
    blocked = Visitor(live, X_Forwarded_For="203.0.113.9")
    assert {blocked.post("inbox", {}).status for _ in range(6)} == {403}
    assert network in console.run("web", "reopen").text
    assert console.run("web", "reopen", network).text == f"{network} is open again\n"
    assert blocked.post("inbox", {}).status == 303


def test_rules_are_in_sql(live: WebServer, shards: Shards) -> None:
    """A page that was taken over places no inbox and no key elsewhere, and each shard has its share of the limits for all."""
    number, shard = 2, shards.of[2]
    page = Page(shard)
    wrong, right = key_of_shard(number + 1, COUNT), key_of_shard(number, COUNT)
    _, inbox = page.open(key=right)
    for statement, *parameters in (
        ("SELECT pipehandler.open_inbox(%s, %s, NULL, '10 min')", wrong, DOMAIN),
        ("SELECT pipehandler.share_inbox(%s, sha256(%s))", right, wrong),
        ("SELECT pipehandler.grant_view(sha256(%s), %s, 'x')", wrong, inbox.lease),
    ):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="another shard"):
            shard.execute(statement, *parameters)
    issue(shard, "few.example", DOMAIN, max_opened_per_hour=7)
    for _ in range(2):  # of seven each has two
        page.open(key=key_of_shard(number, COUNT), domain="few.example")
    with pytest.raises(TooManyInboxes):
        page.open(key=key_of_shard(number, COUNT), domain="few.example")
    issue(shard)
    with pytest.raises(StoreError, match="permission denied"):
        Page(shards.proxy).run(lambda inboxes: inboxes.inbox(right))


def test_check(live: WebServer, shards: Shards) -> None:
    """Each shard is compared with the configuration, and one that differs is named."""
    found = Config(
        database=config.Database(conninfo=shards.proxy.conninfo, admin_conninfo=shards.proxy.admin),
        recipients=Recipients(policy="known"),
        web=Web(
            public=True,
            hosts=("inbox.example",),
            domains=(DOMAIN,),
            trusted_proxies=("127.0.0.1",),
            status_socket=str(live.status_socket),
        ),
    )
    try:
        for shard in shards.of:
            with closing(Store(shard.admin)) as store:
                set_domains(store, configured(found))
        assert [each.code for each in check_web(found, "x")] == []
        issue(shards.of[2])
        (finding,) = check_web(found, "x")
        assert (finding.code, "shard 2 has other rules for tmp.example" in finding.what) == ("web-domains", True)
    finally:
        for shard in shards.of:
            issue(shard)
