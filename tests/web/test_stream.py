"""The stream: at once, in order, without a gap whatever is cut, and closed when its key opens nothing any more."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness.database import Database
from harness.inboxes import issue, send
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.service import wait_until
from harness.stream import announce
from harness.web import JSON, EventSource, Visitor, WebServer, web_server


def opened(server: WebServer) -> tuple[Visitor, str]:
    """A visitor with a new inbox, and its address."""
    visitor = Visitor(server)
    visitor.open()
    return visitor, visitor.inbox()["address"]


def test_arrival(page: WebServer, web_database: Database) -> None:
    """A row comes with its texts in the language of the page, then the sentence; each event has its cursor."""
    visitor, address = opened(page)
    stream = EventSource(page, visitor.key, lang="de")
    assert stream.next().kind == "inbox"
    send(web_database, address)
    announce(web_database)
    mail = stream.next("mail")
    assert (mail.data["subject"], mail.data["cursor"]) == ("hello", mail.cursor)
    assert mail.data["url"].startswith("/de/m/")
    news = stream.next("news").data
    assert news["count"] == 1
    assert news["text"] not in ("", "1 new message")
    stream.close()


def test_no_gap_between_page_and_stream(page: WebServer, web_database: Database) -> None:
    """What comes after a page was read is the beginning of the stream that goes on at its cursor."""
    visitor, address = opened(page)
    first = send(web_database, address)
    cursor = visitor.inbox()["newest"]
    later = [send(web_database, address)[0] for _ in range(3)]
    stream = EventSource(page, visitor.key, after=cursor)
    assert [stream.next("mail").data["delivery"] for _ in later] == later
    assert first[0] not in later
    stream.close()


def test_every_delivery_once(page: WebServer, web_database: Database) -> None:
    """Forty overlapping writers and a stream that is cut again and again: each row once, in the order of the stream."""
    visitor, address = opened(page)
    stream = EventSource(page, visitor.key)
    stream.next("inbox")
    done = threading.Event()

    def cut() -> None:
        for _ in range(40):  # without end, a busy machine would get nothing through
            if done.wait(0.05):
                break
            stream.cut()

    cutting = threading.Thread(target=cut)
    cutting.start()
    with ThreadPoolExecutor(8) as pool:
        sent = {each for found in pool.map(lambda _: send(web_database, address), range(40)) for each in found}
    announce(web_database)
    got = [stream.next("mail").data["delivery"] for _ in sent]
    done.set()
    cutting.join()
    stream.close()
    assert stream.connections > 1
    assert sorted(got) == sorted(sent)
    assert got == [row["delivery"] for row in visitor.get("rows?after=", JSON).json["rows"]]


def test_no_gap_across_restarts(folder: Path) -> None:
    """The page killed, PostgreSQL restarted, wires cut: each page has each row of its lease once, in order, and no other."""
    server = PostgreSQL(folder / "pg", VERSION, FAST).start()
    with Database.fresh(server) as database, web_server(folder, database) as page:
        issue(database)
        visitors = [opened(page) for _ in range(3)]
        streams = [EventSource(page, visitor.key) for visitor, _ in visitors]
        for stream in streams:
            stream.next("inbox")
        sent: dict[str, list[int]] = {address: [] for _, address in visitors}
        dice = random.Random(7)

        def write(rounds: int) -> None:
            addresses = [dice.choice(list(sent)) for _ in range(rounds)]
            with ThreadPoolExecutor(4) as pool:
                for address, found in zip(
                    addresses, pool.map(lambda each: send(database, each), addresses), strict=True
                ):
                    sent[address] += found

        write(10)
        page.kill()
        write(10)
        page.start()
        write(10)
        server.stop()
        server.start()
        for stream in streams:
            stream.cut()
        write(10)
        for (visitor, address), stream in zip(visitors, streams, strict=True):
            got = [stream.next("mail").data["delivery"] for _ in sent[address]]
            rows = visitor.get("rows?after=", JSON).json["rows"]
            assert got == [row["delivery"] for row in rows]
            assert sorted(got) == sorted(sent[address])
            stream.close()
    server.stop()


def test_expiry(page: WebServer, web_database: Database) -> None:
    """A stream says that its inbox has ended, whoever ended it, and goes on when it is brought back."""
    visitor, address = opened(page)
    stream = EventSource(page, visitor.key)
    stream.next("inbox")
    web_database.execute("SELECT pipehandler.expire_lease(%s)", visitor.inbox()["lease"])
    assert stream.next().kind == "expired"
    visitor.post("extend")
    assert stream.next().data["state"] == "active"
    send(web_database, address)
    announce(web_database)
    assert stream.next("mail").data["subject"] == "hello"
    stream.close()


def test_time_runs_out(page: WebServer) -> None:
    """A stream ends the inbox by its own clock: nothing notifies that time has passed."""
    for ttl in (1, 10):  # on a busy machine, the first may have expired before its stream begins
        opened = Visitor(page).post("inbox", {"ttl": ttl}, JSON)
        stream = EventSource(page, opened.json["key"])
        kinds = [stream.next().kind]
        if kinds == ["inbox"]:
            kinds.append(stream.next().kind)
        stream.close()
        if len(kinds) == 2:
            break
    assert kinds == ["inbox", "expired"]


def test_removed_and_revoked(page: WebServer) -> None:
    """The streams of a key that opens nothing any more end, and their browsers do not come back."""
    visitor, _ = opened(page)
    shared = visitor.post("share", headers=JSON).json["key"]
    streams = [EventSource(page, visitor.key), EventSource(page, shared)]
    for stream in streams:
        stream.next("inbox")
    visitor.post("unshare")
    assert streams[1].next().kind == "gone"
    visitor.post("end")
    assert streams[0].next().kind == "gone"
    for stream in streams:
        stream.close()
        assert stream.connections == 1


def test_removed_mail(page: WebServer, web_database: Database) -> None:
    """When mail is removed, the streams say how much is left."""
    visitor, address = opened(page)
    (delivery,) = send(web_database, address)
    stream = EventSource(page, visitor.key)
    assert stream.next().data["deliveries"] == 1
    visitor.post("remove", {"delivery": [delivery]})
    assert stream.next("inbox").data["deliveries"] == 0
    stream.close()


@pytest.mark.parametrize("cursor", ["other-1-1", "%00", "1-1%00"])
def test_cursor_of_another_cluster(page: WebServer, cursor: str) -> None:
    """A cursor that this cluster did not give is answered with a reset, so that the page loads again."""
    visitor, _ = opened(page)
    stream = visitor.get(f"events?after={cursor}")
    assert stream.text.endswith("event: reset\ndata: {}\n\n")
    assert visitor.get(f"rows?after={cursor}", JSON).json["error"] == "bad_cursor"
    assert visitor.get(f"rows?before={cursor}", JSON).json["error"] == "bad_search"


def test_refusals(page: WebServer) -> None:
    """Without a key 401, with an unknown one 403, in a language that we do not have 404."""
    visitor, _ = opened(page)
    assert Visitor(page).get("events").status == 401
    assert page.get("/en/events", {"Cookie": f"__Host-inbox={'A' * 43}"}).status == 403
    assert visitor.get("/xx/events").status == 404


def test_limits_of_streams(page: WebServer) -> None:
    """An owner has four streams; a waiting request counts; one that ends makes room."""
    visitor, _ = opened(page)
    streams = [EventSource(page, visitor.key) for _ in range(4)]
    for stream in streams:
        stream.next("inbox")
    refused = visitor.get("events")
    assert (refused.status, refused.json["error"]) == (429, "too_many")
    assert int(refused.headers["retry-after"]) > 0
    assert visitor.get(f"rows?after={visitor.inbox()['newest']}&wait=5", JSON).status == 429
    streams[0].close()
    wait_until(lambda: visitor.get(f"rows?after={visitor.inbox()['newest']}&wait=1", JSON).status == 200)
    for stream in streams:
        stream.close()
    wait_until(lambda: page.counts()["open_streams"] == 0, "the end of all streams")


def test_one_connection_listens(page: WebServer, web_database: Database) -> None:
    """However many streams there are, one connection listens."""
    streams = [EventSource(page, opened(page)[0].key) for _ in range(5)]
    for stream in streams:
        stream.next("inbox")
    assert page.counts()["listening"] == 1
    listening = web_database.value(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'page'"
        " AND query IN ('LISTEN pipehandler_inbox', 'SELECT pg_backend_pid()')"
    )
    assert listening == 1
    for stream in streams:
        stream.close()
