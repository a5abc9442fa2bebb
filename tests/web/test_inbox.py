"""The life of an inbox over HTTP, as a visitor without a script and as a program have it."""

import html
import re
import threading
import zipfile
from base64 import b64encode
from io import BytesIO
from pathlib import Path

import psycopg
from harness import account
from harness.database import Database
from harness.inboxes import issue, send
from harness.service import wait_until
from harness.web import JSON, Visitor, WebServer, web_server

from pipehandler.parse.message import parse


def test_whole_life(visitor: Visitor, web_database: Database) -> None:
    """Get an address by name, read, extend, delete a message, delete everything: by forms alone."""
    opened = visitor.open(name="Anna-Life", domain="other.example")
    assert "anna-life@other.example" in opened.text
    first, second = (send(web_database, "anna-life@other.example")[0] for _ in range(2))
    listed = visitor.get("inbox").text
    assert listed.index(f"/en/m/{second}") < listed.index(f"/en/m/{first}")
    assert "body" in visitor.get(f"m/{first}?view=text").text
    assert b"Subject: hello" in visitor.get(f"m/{first}.eml").body

    before = visitor.inbox()["expires_at"]
    assert "notice=extended" in visitor.post("extend").headers["location"]
    assert visitor.inbox()["expires_at"] > before

    assert visitor.post("remove", {"delivery": [first]}).status == 303
    assert [row["delivery"] for row in visitor.inbox()["rows"]] == [second]
    assert visitor.get(f"m/{first}", JSON).status == 404

    key = visitor.key
    ended = visitor.post("end")
    assert "notice=deleted" in ended.headers["location"]
    assert not visitor.cookies
    assert visitor.get(f"m/{second}", {"Authorization": f"Bearer {key}"}).json["error"] == "key_refused"


def test_ended_and_brought_back(visitor: Visitor, web_database: Database) -> None:
    """An inbox that has ended shows no mail, and has it again once it is brought back."""
    visitor.open()
    (delivery,) = send(web_database, visitor.inbox()["address"])
    visitor.post("end", {"keep": "yes"})
    page = visitor.get("inbox")
    assert page.status == 200
    assert f"/m/{delivery}" not in page.text
    assert visitor.get(f"m/{delivery}", JSON).status == 410
    visitor.post("extend")
    assert visitor.get(f"m/{delivery}").status == 200


def test_names(visitor: Visitor) -> None:
    """What cannot be chosen is an error on the form, which keeps what was typed."""
    for name, status in (("postmaster", 422), ("a..b", 422), ("anna+x", 422), ("ünal", 422), ("", 303)):
        answer = visitor.post("inbox", {"name": name})
        assert answer.status == status, name
        if status != 303:
            assert 'aria-invalid="true"' in answer.text
    assert visitor.post("inbox", {"domain": "elsewhere.example"}).status == 422
    visitor.open(name="taken-name")
    other = Visitor(visitor.server)
    assert other.post("inbox", {"name": "taken-name"}).status == 409
    assert other.post("inbox", {"name": "taken-name"}, JSON).json["error"] == "name_taken"


def test_eight_keys(visitor: Visitor) -> None:
    """A browser has up to eight inboxes, and switches between them; a ninth replaces the oldest."""
    addresses = []
    for _ in range(9):
        visitor.open()
        addresses.append(visitor.inbox()["address"])
    assert visitor.cookies["__Host-inbox"].count(".") == 7
    text = visitor.get("inbox").text
    assert all(address in text for address in addresses[1:])
    assert addresses[0] not in text
    lease = re.findall(r'name="lease" value="(\d+)"', text)[-1]
    visitor.post("switch", {"lease": lease})
    assert str(visitor.inbox()["lease"]) == lease
    assert visitor.cookies["__Host-inbox"].count(".") == 7
    assert visitor.post("switch", {"lease": "1000000"}).headers["location"].startswith("/en/")


def test_key_page_and_another_device(visitor: Visitor) -> None:
    """The link of the key page opens the inbox elsewhere, after a question, and replaces no key."""
    visitor.open()
    link = re.search(r'id="link" value="([^"]+)"', visitor.get("key").text)
    assert link
    assert link[1].startswith("https://inbox.example/en/open#")
    other = Visitor(visitor.server)
    other.open()
    asked = other.post("open", {"key": link[1]})
    assert asked.status == 200
    assert visitor.inbox()["address"] in asked.text
    assert other.inbox()["address"] != visitor.inbox()["address"]
    other.post("open", {"key": link[1].partition("#")[2], "confirm": "yes"})
    assert other.inbox()["address"] == visitor.inbox()["address"]
    assert other.cookies["__Host-inbox"].count(".") == 1
    assert other.post("open", {"key": "nonsense"}).status == 403


def test_shared(visitor: Visitor, web_database: Database) -> None:
    """A shared key reads and changes nothing, and reads nothing once it is revoked."""
    visitor.open()
    (delivery,) = send(web_database, visitor.inbox()["address"])
    shared = re.search(r'id="shared" value="[^"#]+#([^"]+)"', visitor.post("share").text)
    assert shared
    reader = {"Authorization": f"Bearer {shared[1]}", "Cookie": ""}
    assert visitor.get(f"m/{delivery}", reader).json["subject"] == "hello"
    for path in ("extend", "end", "share", "unshare"):
        assert visitor.post(path, headers=reader).status == 403
    assert visitor.post("remove", {"delivery": [delivery]}, reader).status == 403
    visitor.post("unshare")
    assert visitor.get(f"m/{delivery}", reader).status == 403


def test_another_inbox(visitor: Visitor, web_database: Database) -> None:
    """No path shows a delivery of another inbox."""
    visitor.open()
    (delivery,) = send(web_database, visitor.inbox()["address"])
    other = Visitor(visitor.server)
    other.open()
    for path in ("", "/html", "/print", "/headers", "/raw", ".eml", ".zip", "/part/1"):
        assert other.get(f"m/{delivery}{path}", JSON).status == 404
    assert other.post("remove", {"delivery": [delivery]}, JSON).status == 404


def test_search_and_pages(visitor: Visitor, web_database: Database) -> None:
    """The list is read page by page, and searched."""
    visitor.open()
    address = visitor.inbox()["address"]
    for number in range(60):
        send(
            web_database,
            address,
            raw=b"Subject: number %d\nMessage-ID: <%d@%s>\n\nx\n" % (number, number, address.encode()),
        )
    first = visitor.inbox()
    rest = visitor.get(f"inbox?before={first['older']}", JSON).json
    assert [row["subject"] for row in first["rows"] + rest["rows"]] == [
        f"number {number}" for number in reversed(range(60))
    ]
    assert rest["older"] is None
    found = visitor.get("inbox?q=subject:%22number+7%22", JSON).json["rows"]
    assert [row["subject"] for row in found] == ["number 7"]
    assert visitor.get("inbox?before=nonsense", JSON).status == 400
    assert visitor.get("inbox?before=nonsense").status == 200


def test_program(visitor: Visitor, web_database: Database) -> None:
    """The same routes as JSON: open with a key of one's own, wait, read, extend, end."""
    opened = visitor.post("inbox", {"name": "program-1"}, JSON)
    assert (opened.status, opened.json["address"]) == (201, "program-1@tmp.example")
    visitor.cookies.clear()
    program = {"Authorization": f"Bearer {opened.json['key']}"}
    send(
        web_database,
        "program-1@tmp.example",
        raw=b"Subject: Your code is 481516\nMessage-ID: <p1@x>\n\nYour code is 481516\n",
    )
    waited = visitor.get(f"rows?after={opened.json['cursor']}&wait=30", program).json
    (row,) = waited["rows"]
    assert visitor.get(row["url"], program).json["code"] == "481516"
    assert visitor.get(f"rows?after={waited['cursor']}&wait=1", program).json["rows"] == []
    assert visitor.post("extend", headers=program).json["owner"] is True
    assert visitor.post("end", headers=program).json == {"done": "deleted"}
    assert visitor.get("inbox", program).status == 403
    paths = visitor.get("/openapi.json").json["paths"]
    assert {"/{lang}/inbox", "/{lang}/rows", "/{lang}/m/{delivery}"} <= paths.keys()


def test_limit_of_a_network(web_database: Database) -> None:
    """A network opens so many inboxes at once, behind the proxy; the answer is a plain 429 with Retry-After."""
    with account.folder("pipehandler-web-") as folder, web_server(folder, web_database, opened_per_hour=3) as server:

        def opened(client: str) -> int:
            return Visitor(server, X_Forwarded_For=client).post("inbox").status

        assert [opened(f"2001:db8::{number}") for number in range(4)] == [303, 303, 303, 429]
        assert opened("198.51.100.1") == 303
        assert opened("1.2.3.4, 2001:db8::ffff") == 429
        refused = Visitor(server, X_Forwarded_For="2001:db8::1").post("inbox")
        assert 0 < int(refused.headers["retry-after"]) <= 1200
        assert "<h1>" in refused.text
        assert server.counts()["refused_opened"] == 3


def test_not_public(web_database: Database) -> None:
    """A page that is not public opens nothing."""
    with account.folder("pipehandler-web-") as folder, web_server(folder, web_database, public=False) as server:
        assert Visitor(server).post("inbox").status == 403
        assert Visitor(server).get("/en/").status == 200


def test_a_browser_without_cookies(visitor: Visitor) -> None:
    """Who is given a key and does not keep it is told why there is no inbox, also when it was the key of another device."""
    for notice in ("opened", "added"):
        led = visitor.get(f"inbox?inbox=1&notice={notice}")
        assert led.headers["location"] == "/en/?notice=no_cookies"
    assert 'role="alert"' in visitor.follow(led).text
    assert "Your browser keeps no cookies of this site." in visitor.follow(led).text
    assert visitor.get("inbox?notice=opened", JSON).status == 401
    assert visitor.get("inbox").headers["location"] == "/en/"
    visitor.open()
    assert 'role="alert"' not in visitor.get("/en/?notice=no_cookies").text


def test_what_was_deleted_leaves_the_memory(visitor: Visitor, web_database: Database) -> None:
    """What was made of a message for its page goes with the message, and with the inbox."""
    visitor.open()
    address = visitor.inbox()["address"]
    before = visitor.server.counts()["kept_results"]
    deliveries = [delivery for _ in range(3) for delivery in send(web_database, address)]
    for delivery in deliveries:
        visitor.get(f"m/{delivery}")
    assert visitor.server.counts()["kept_results"] == before + 3
    visitor.post("remove", {"delivery": deliveries[:1]})
    assert visitor.server.counts()["kept_results"] == before + 2
    visitor.post("end")
    assert visitor.server.counts()["kept_results"] == before


def test_text_of_attachments(visitor: Visitor, web_database: Database) -> None:
    """The page shows the text of an attachment by the charsets of mail. What else Python can decode is no charset, and may take
    quadratic time (punycode) or run out of the octets that are there (unicode_escape)."""
    visitor.open()
    labels = [
        *("koi8-r", "iso-2022-cn", "punycode", "idna", "unicode_escape", "raw_unicode_escape", "rot13", "zlib"),
        *("undefined", "x-unknown", "utf-7", "palmos"),
    ]
    parts = "".join(
        f"--b\nContent-Type: text/plain; charset={label}; name={number}.txt\nContent-Disposition: attachment\n"
        f"Content-Transfer-Encoding: base64\n\n{b64encode(text).decode()}\n"
        for number, label in enumerate(labels)
        for text in [f"{label}: ".encode() + (b"\xd0" if label == "koi8-r" else b"\\u0041-b+2AA-")]
    )
    raw = f"Subject: texts\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n"
    message = raw.encode()
    (delivery,) = send(web_database, visitor.inbox()["address"], raw=message, parsed=parse(message))
    text = visitor.get(f"m/{delivery}").text
    assert "koi8-r: п" in text
    assert "utf-7: \\u0041-b?" in text  # half a surrogate pair
    for label in set(labels) - {"koi8-r", "utf-7"}:
        assert f"{label}: \\u0041-b+2AA-" in text, label


def test_all_attachments_at_once(visitor: Visitor, web_database: Database) -> None:
    """The zip file has each attachment with its octets, large ones and small ones; those that were not kept are not in it."""
    visitor.open()
    contents = [b"%d" % number * size for number, size in enumerate([7, 300_000, 0, 5, *[3000] * 150])]
    parts = "".join(
        f"--b\nContent-Type: a/b; name=n\nContent-Disposition: attachment\nContent-Transfer-Encoding: base64\n\n"
        f"{b64encode(content).decode()}\n"
        for content in contents
    )
    message = f"Subject: files\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n{parts}--b--\n".encode()
    (delivery,) = send(web_database, visitor.inbox()["address"], raw=message, parsed=parse(message))
    web_database.execute(
        "UPDATE pipehandler.attachment a SET content = NULL FROM pipehandler.delivery d"
        " WHERE a.ordinal = 4 AND a.day = d.day AND a.message = d.message AND d.id = %s",
        delivery,
    )
    with zipfile.ZipFile(BytesIO(visitor.get(f"m/{delivery}.zip").body)) as archive:
        assert [archive.read(name) for name in archive.namelist()] == contents[:3] + contents[4:]


def test_a_search_that_takes_too_long(visitor: Visitor, web_database: Database) -> None:
    """It is given up, and shows no mail that it has not found."""
    visitor.open()
    send(web_database, visitor.inbox()["address"])
    with psycopg.connect(web_database.admin) as slow:
        slow.execute("LOCK TABLE pipehandler.attachment IN ACCESS EXCLUSIVE MODE")
        page = visitor.get("inbox?q=hello")
        assert visitor.get("inbox?q=hello", JSON).json["error"] == "slow_search"
    assert "The search took too long. Try other words." in page.text
    assert 'class="to" href="/en/m/' not in page.text


def test_many_searches_leave_the_page_to_others(visitor: Visitor, web_database: Database) -> None:
    """Searches that take as long as they may keep nobody else waiting, and those that would wait too long are given up."""
    visitor.open()
    send(web_database, visitor.inbox()["address"])
    ended: list[str] = []

    def search() -> None:
        ended.append(visitor.get("rows?q=hello", JSON).json["error"])

    searches = [threading.Thread(target=search) for _ in range(16)]
    with psycopg.connect(web_database.admin) as slow:
        slow.execute("LOCK TABLE pipehandler.attachment IN ACCESS EXCLUSIVE MODE")
        for thread in searches:
            thread.start()
        wait_until(
            lambda: web_database.value(
                "SELECT count(*) >= 2 FROM pg_stat_activity WHERE usename = 'page' AND wait_event_type = 'Lock'"
            ),
            "searches that wait",
        )
        assert visitor.get("key").status == 200
        before = len(ended)
        for thread in searches:
            thread.join()
    assert before < 8
    assert ended == ["slow_search"] * 16


def test_closed_network(visitor: Visitor, web_database: Database) -> None:
    """The operator closes a network: its visitors open nothing more."""
    web_database.execute("SELECT pipehandler.close_network('203.0.113.0/24', NULL, 'test', false)")
    assert (
        Visitor(visitor.server, X_Forwarded_For="203.0.113.9").post("inbox", headers=JSON).json["error"]
        == "network_closed"
    )
    assert Visitor(visitor.server, X_Forwarded_For="203.0.114.9").post("inbox").status == 303


def test_stop(web_database: Database) -> None:
    """SIGTERM ends the program with 0, and leaves no socket."""
    with account.folder("pipehandler-web-") as folder, web_server(folder, web_database) as server:
        assert isinstance(server, WebServer)
        assert server.status_socket.exists()
        assert server.stop() == 0
        assert not server.status_socket.exists()


def test_no_room(folder: Path, database: Database) -> None:
    """When the database lets visitors open no more, they get 503 with a time, and inboxes that exist go on."""
    issue(database, max_inboxes=1, grace=60)
    with web_server(folder / "web", database) as server:
        first = Visitor(server)
        first.open()
        page = Visitor(server).post("inbox")
        assert page.status == 503
        assert "Very many inboxes are open just now." in page.text
        assert "You can try again in 11 minutes." in page.text
        refused = Visitor(server).post("inbox", headers=JSON)
        assert (refused.status, refused.json["error"]) == (503, "full")
        assert 600 < int(refused.headers["retry-after"]) <= 660
        assert server.counts()["refused_full"] == 2
        assert first.post("extend").status == 303


def test_two_inboxes_in_two_tabs(visitor: Visitor, web_database: Database) -> None:
    """What a page of one inbox links and sends is about that inbox, whichever one was opened or chosen in another tab."""
    visitor.open()
    first = visitor.inbox()
    page = visitor.get("inbox").text
    visitor.open()
    second = visitor.inbox()
    (delivery,) = send(web_database, first["address"])
    actions = {name: html.unescape(path) for path, name in re.findall(r'action="(/en/(\w+)[^"]*)"', page)}
    (rows,) = re.findall(r'data-rows="([^"]+)"', page)
    assert visitor.get(html.unescape(rows), JSON).json["rows"][0]["delivery"] == delivery
    visitor.post(actions["extend"])
    after = {
        each["address"]: each
        for each in (visitor.get(f"inbox?inbox={lease}", JSON).json for lease in (first["lease"], second["lease"]))
    }
    assert after[first["address"]]["expires_at"] > first["expires_at"]
    assert after[second["address"]]["expires_at"] == second["expires_at"]
    shown = visitor.get(f"m/{delivery}")
    assert (shown.status, first["address"] in shown.text) == (200, True)
    assert visitor.get(f"m/{delivery}.eml").status == 200
    assert visitor.inbox()["address"] == second["address"]  # looking at a page chooses nothing
    assert visitor.post("remove?inbox=" + str(first["lease"]), {"delivery": [delivery]}).status == 303
    visitor.post(actions["end"])
    assert visitor.inbox()["address"] == second["address"]
    assert visitor.post(actions["end"]).status == 303
    assert visitor.post(actions["extend"], headers=JSON).json["error"] == "key_refused"
    assert visitor.inbox()["address"] == second["address"]


def test_answers_are_as_described(visitor: Visitor, web_database: Database) -> None:
    """Each answer has exactly the properties that /openapi.json lists, none of them missing."""
    described = visitor.get("/openapi.json").json
    opened = visitor.post("inbox", {}, JSON).json
    visitor.cookies.clear()
    program = {"Authorization": f"Bearer {opened['key']}"}
    raw = (
        b"From: a@x.example\nSubject: hello\nMessage-ID: <described@x>\nMIME-Version: 1.0\n"
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nhttps://x.example/\n"
        b"--b\nContent-Type: text/csv\nContent-Disposition: attachment;\n"
        b" filename*=utf-8''invoice%E2%80%AEfdp.exe\n\na;b\n--b--\n"
    )
    (delivery,) = send(web_database, opened["address"], raw=raw, parsed=parse(raw))
    message = visitor.get(f"m/{delivery}", program).json
    rows = visitor.get(f"rows?after={opened['cursor']}", program).json
    assert rows["text"] == "1 new message"
    found = {
        "NewInbox": opened,
        "InboxWithRows": visitor.get("inbox", program).json,
        "Rows": rows,
        "Row": rows["rows"][0],
        "List": visitor.get("rows", program).json,
        "Message": message,
        "Attachment": message["attachments"][0],
        "Link": message["links"][0],
        "Inbox": visitor.post("extend", headers=program).json,
        "Key": visitor.post("share", headers=program).json,
        "Removed": visitor.post("remove", {"delivery": [delivery]}, program).json,
        "Done": visitor.post("end", headers=program).json,
        "Problem": visitor.get("inbox", program).json,
    }
    schemas = described["components"]["schemas"]
    assert {name: set(each) for name, each in found.items()} == {
        name: set(schema["properties"]) for name, schema in schemas.items()
    }
    assert message["attachments"][0]["file_name"] == "invoice\u202efdp.exe"
    assert message["attachments"][0]["safe_file_name"] == "invoicefdp.exe"
