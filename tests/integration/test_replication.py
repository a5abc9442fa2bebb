"""On how many servers acknowledged mail is: `check`, `status` and `metrics` say so where a fail-over is planned."""

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from harness import account, preloaded
from harness.database import Database
from harness.handler import Handler
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.service import wait_until

from pipehandler.cli import cli
from pipehandler.store.connection import Store
from pipehandler.store.replication import Replication, replication, servers_expected

CONNECTED = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"


class Pair:
    """A server with a standby, and a handler whose conninfo names both."""

    def __init__(self, primary: PostgreSQL, standby: PostgreSQL, database: Database, handler: Handler) -> None:
        self.primary, self.standby, self.database, self.handler = primary, standby, database, handler

    def found(self) -> list[dict[str, str]]:
        """The findings of the handler's part of `check`."""
        done = CliRunner().invoke(cli, ["--config", str(self.handler.config), "check", "--part", "handler", "--json"])
        findings: list[dict[str, str]] = json.loads(done.stdout)
        fast = ("fsync", "full-page-writes")  # of the tests' servers
        return [finding for finding in findings if finding["code"] not in fast]

    def status(self) -> str:
        """The line about the servers in `status`; "" if there is none."""
        words = ["--config", str(self.handler.config), "status", "--config-directory", "/nonexistent"]
        lines = preloaded.run_text(*words).stdout.splitlines()
        return next((line.removeprefix("Servers:").strip() for line in lines if line.startswith("Servers:")), "")

    def metrics(self) -> dict[str, float]:
        """The metrics about the servers."""
        words = ["--config", str(self.handler.config), "metrics", "--config-directory", "/nonexistent"]
        samples = [line.rsplit(" ", 1) for line in preloaded.run_text(*words).stdout.splitlines() if line[:1] != "#"]
        return {
            name.removeprefix("pipehandler_"): float(value)
            for name, value in samples
            if "acknowledging" in name or "standbys" in name
        }

    def names(self, names: str) -> None:
        """Set synchronous_standby_names."""
        self.primary.psql("postgres", f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
        self.primary.reload()

    def run(self, fix: str) -> None:
        """Run the statements of a fix; each alone, because ALTER SYSTEM refuses a transaction."""
        for statement in fix.partition(" --")[0].split(";"):
            if statement.strip():
                self.primary.psql("postgres", statement)


@pytest.fixture(scope="module")
def servers_of_pair() -> Iterator[tuple[PostgreSQL, PostgreSQL, Database]]:
    """A server with a standby that follows it, and a database."""
    with account.folder("pipehandler-pg-") as folder:
        primary = PostgreSQL(folder / "primary", VERSION, FAST).start()
        with primary, Database.fresh(primary) as database, primary.standby(folder / "standby") as standby:
            yield primary, standby, database
            primary.psql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
            primary.reload()


@pytest.fixture
def pair(servers_of_pair: tuple[PostgreSQL, PostgreSQL, Database]) -> Iterator[Pair]:
    """The same, without a synchronous standby."""
    primary, standby, database = servers_of_pair
    with account.folder("pipehandler-") as home:
        both = f"host={primary.folder},{standby.folder} port={primary.port},{standby.port}"
        conninfo = f"{both} dbname={database.name} user=pipehandler target_session_attrs=read-write"
        made = Pair(primary, standby, database, Handler(home, conninfo))
        made.names("")
        wait_until(lambda: primary.psql("postgres", CONNECTED).strip() == "1", "the standby")
        yield made


def test_asynchronous_standby(pair: Pair) -> None:
    """A standby that nothing waits for: reported everywhere, and the printed statements correct it."""
    (finding,) = pair.found()
    assert finding["code"] == "one-server-only"
    assert finding["what"].startswith(
        "acknowledged by one server only, 2 are expected: a commit waits for no synchronous"
    )
    assert pair.status() == "acknowledged by one server only, 2 are expected: `pipehandler check`"
    assert pair.metrics() == {
        "acknowledging_servers": 1,
        "acknowledging_servers_expected": 2,
        "synchronous_standbys": 0,
    }
    pair.run(finding["fix"])
    wait_until(lambda: pair.found() == [], "the synchronous standby")
    assert pair.status() == "acknowledged by 2 servers"
    assert pair.metrics() == {
        "acknowledging_servers": 2,
        "acknowledging_servers_expected": 2,
        "synchronous_standbys": 1,
    }
    words = ["--config", str(pair.handler.config), "status", "--json", "--config-directory", "/nonexistent"]
    shown = json.loads(preloaded.run_text(*words).stdout)["database"]["replication"]
    assert shown == {"required": 1, "synchronous": 1, "connected": 1, "servers": 2, "servers_expected": 2}


def test_standby_away(pair: Pair) -> None:
    """No standby: without synchronous replication mail is on one server only, with it nothing is acknowledged."""
    pair.standby.stop()
    try:
        wait_until(lambda: pair.primary.psql("postgres", CONNECTED).strip() == "0", "the end of the standby")
        (finding,) = pair.found()
        assert finding["code"] == "one-server-only"
        assert finding["fix"].startswith("# attach a standby; then: ALTER SYSTEM SET synchronous_standby_names = '*';")
        pair.names("*")
        (finding,) = pair.found()
        assert finding["code"] == "standby-away"
        assert pair.status().endswith("synchronous standbys, 0 are connected: mail is deferred: `pipehandler check`")
        assert pair.metrics()["synchronous_standbys"] == 0
    finally:
        pair.names("")
        pair.standby.start()


def test_another_standby_is_connected(pair: Pair) -> None:
    """A standby that no commit waits for, by its name or because it has not caught up, is not called absent."""
    pair.names("other")
    (finding,) = pair.found()
    assert finding["code"] == "standby-away"
    assert finding["what"].endswith("0 are connected, and 1 not named or not caught up")
    assert finding["fix"].startswith("# let it catch up, or name it in synchronous_standby_names")
    pair.names("")


def test_what_is_expected(pair: Pair) -> None:
    """database.servers decides; without it, hosts in conninfo and standbys do."""
    pair.handler.configure(pair.handler.conninfo, database={"servers": 1})
    assert pair.found() == []
    assert pair.status() == ""
    pair.names("*")
    pair.handler.configure(pair.handler.conninfo, database={"servers": 3})
    (finding,) = pair.found()
    assert finding["code"] == "too-few-servers"
    assert "synchronous_standby_names = 'ANY 2 (*)'" in finding["fix"]


@pytest.mark.parametrize(
    ("conninfo", "configured", "found", "expected"),
    [
        ("host=one", 0, Replication(0, 0, 0), 1),
        ("host=one,two", 0, Replication(0, 0, 0), 2),
        ("hostaddr=192.0.2.1,192.0.2.2", 0, Replication(0, 0, 0), 2),
        ("host=one", 0, Replication(0, 0, 1), 2),
        ("host=one", 0, Replication(1, 0, 0), 2),
        ("host=one", 2, Replication(0, 0, 0), 2),
        ("host=one,two", 1, Replication(0, 0, 1), 1),
    ],
)
def test_expected(conninfo: str, configured: int, found: Replication, expected: int) -> None:
    """How many servers should have acknowledged mail."""
    assert servers_expected(conninfo, configured, found) == expected


NAMES = {"": 0, "*": 1, "one, two": 1, "2 (one, two)": 2, "FIRST 3 (*)": 3, "any 2(a,b,c)": 2, '"2 (x"': 1}


@pytest.mark.parametrize("names", NAMES)
def test_number_of_standbys(pair: Pair, names: str) -> None:
    """Each form of synchronous_standby_names (PostgreSQL documentation, 20.6.2)."""
    pair.names(names)
    store = Store(pair.database.admin)
    assert replication(store).required == NAMES[names]
    store.close()


def test_owner_without_rights(pair: Pair) -> None:
    """An owner who may not see the state of a standby knows that one is there, and not what it is."""
    pair.names("*")
    pair.database.execute("ALTER FUNCTION pipehandler.replication_status() OWNER TO upkeep")
    try:
        store = Store(pair.database.conninfo)
        assert replication(store) == Replication(1, None, 1)
        store.close()
        (finding,) = pair.found()
        assert (finding["code"], finding["fix"]) == (
            "replication-hidden",
            "GRANT pg_read_all_stats TO postgres;",
        )
        assert "synchronous_standbys" not in pair.metrics()
        assert pair.status() == "acknowledged by 2 servers"
    finally:
        pair.database.execute("ALTER FUNCTION pipehandler.replication_status() OWNER TO postgres")
