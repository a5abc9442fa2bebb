"""A page that gets no notifications, behind PgBouncer or on a standby: mail appears all the same, and nothing says otherwise."""

from pathlib import Path

import pytest
from harness.database import Database
from harness.inboxes import issue, send
from harness.pgbouncer import pgbouncer
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.service import wait_until
from harness.web import EventSource, Visitor, WebServer, web_server

from pipehandler.check.web import check_web
from pipehandler.settings import config
from pipehandler.settings.config import Config, Web

QUIET = ("the database is away", "Traceback", "ERROR", "WARNING")
"""What the log of a page that is well does not have."""


def follows_an_inbox(server: WebServer, database: Database) -> None:
    """A stream brings mail, and says what becomes of its inbox, although nothing is notified."""
    visitor = Visitor(server)
    visitor.open()
    inbox = visitor.inbox()
    stream = EventSource(server, visitor.key)
    stream.next("inbox")
    numbers = [send(database, inbox["address"])[0] for _ in range(3)]
    assert [stream.next("mail").data["delivery"] for _ in numbers] == numbers
    database.execute("SELECT pipehandler.expire_lease(%s)", inbox["lease"])
    assert stream.next("expired").data["state"] == "expired"
    visitor.post("extend")
    assert stream.next("inbox").data["state"] == "active"
    visitor.post("end")
    assert stream.next("gone").data == {}
    stream.close()
    assert stream.connections == 1  # nothing was lost on the way
    assert not [word for word in QUIET if word in server.log.read_text()]


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_behind_pgbouncer(folder: Path, database: Database, mode: str) -> None:
    """In transaction mode the page knows that nothing will be notified, whichever session its LISTEN reached, and polls."""
    issue(database)
    with (
        pgbouncer(folder, database, user="page", pool_mode=mode) as conninfo,
        WebServer(folder / "web", conninfo) as server,
    ):
        wait_until(lambda: server.counts()["database_up"])
        counts = server.counts()
        assert not counts["listening"]
        follows_an_inbox(server, database)
        found = Config(
            database=config.Database(conninfo=database.conninfo, admin_conninfo=database.admin),
            web=Web(status_socket=str(server.status_socket)),
        )
        assert "web-polls" in [finding.code for finding in check_web(found, "/etc/pipehandler/pipehandler.toml")]


def test_on_a_standby(folder: Path) -> None:
    """A viewer's key reads on a standby; what would write is refused as temporary, and the page stays well."""
    primary = PostgreSQL(folder / "pg", VERSION, FAST).start()
    with Database.fresh(primary) as database:
        standby = primary.standby(folder / "standby")
        try:
            issue(database)
            conninfo = standby.conninfo(database.name, user="page")
            with (
                web_server(folder / "first", database) as first,
                WebServer(folder / "second", conninfo) as second,
            ):
                visitor, reader = Visitor(first), Visitor(second)
                visitor.open()
                address = visitor.inbox()["address"]

                def reads() -> bool:
                    reader.cookies = dict(visitor.cookies)  # a key that is not there yet is taken from the browser
                    return reader.get("inbox").status == 200

                wait_until(reads, "the lease on the standby")
                assert not second.counts()["listening"]
                stream = EventSource(second, reader.key)
                stream.next("inbox")
                number = send(database, address)[0]
                assert stream.next("mail").data["delivery"] == number
                refused = reader.post("inbox")
                assert (refused.status, refused.headers["retry-after"]) == (503, "5")
                assert reader.get("inbox").status == 200
                stream.close()
        finally:
            standby.stop()
    primary.stop()
