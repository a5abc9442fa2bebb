"""The operator's commands on four shards: what works on all of them, what is asked of one, and that none finds nothing."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGKILL

import psycopg
import pytest
from click.testing import CliRunner
from harness import account
from harness.handler import Handler
from harness.missing import missing
from harness.shards import COUNT, Shards
from harness.submission import MESSAGE

from pipehandler.check.finding import Finding
from pipehandler.check.operator import check_operator
from pipehandler.check.shards import check_shards
from pipehandler.cli import cli
from pipehandler.cli.status_text import as_json, lines
from pipehandler.monitor.exposition import exposition
from pipehandler.monitor.snapshot import take_snapshot
from pipehandler.monitor.status import status
from pipehandler.postfix.postconf import Postfix, find_program
from pipehandler.settings.config_file import load
from pipehandler.store.connection import Store
from pipehandler.store.shards import proxy_conninfo

READING = [
    ["list"],
    ["show", "1"],
    ["raw", "1"],
    ["attachment", "1", "1"],
    ["quarantine", "list"],
    ["reparse", "--all"],
    ["remove", "--recipient", "x@example.com", "--yes"],
    ["address", "list"],
    ["import", "/dev/null"],
    ["restored"],
]


FAST = ("shard-fsync", "shard-full-page-writes")
"""What the servers of tests do not do."""


@pytest.fixture
def handler(shards: Shards) -> Iterator[Handler]:
    """A handler whose configuration names the proxy, with the role of an administrator for commands."""
    with account.folder("pipehandler-") as folder:
        handler = Handler(folder, shards.proxy.conninfo)
        handler.configure(shards.proxy.conninfo, database={"admin_conninfo": shards.proxy.admin})
        yield handler


def run(handler: Handler, *words: str, status: int = 0) -> str:
    """The output of a command; it has to end with `status`."""
    done = CliRunner().invoke(cli, ["--config", str(handler.config), *words])
    assert done.exit_code == status, done.output
    return done.output


def found(handler: Handler) -> dict[str, dict[str, str]]:
    """What `check` finds about the shards, by its code, but for what it says about the servers of tests."""
    config = load(str(handler.config))
    with closing(Store(config.database.conninfo)) as store:
        findings = check_shards(store, config, str(handler.config))
        return {each.code: each._asdict() for each in findings if each.code not in FAST}


def of_operator(handler: Handler) -> list[tuple[str, int]]:
    """What `check` finds with database.admin_conninfo: the code of each finding, and the shard that it names."""
    findings = check_operator(load(str(handler.config)), str(handler.config), None)
    return [(each.code, int(each.what.removeprefix("shard ")[0])) for each in findings]


@pytest.mark.parametrize("words", READING, ids=lambda words: " ".join(words[:2]))
def test_none_finds_nothing(handler: Handler, words: list[str]) -> None:
    """On the proxy, a command that reads mail says where it is; its own tables are empty."""
    assert "the mail of this database is on 4 shards: name one with --shard N (0 to 3)" in run(
        handler, *words, status=78
    )


def test_a_shard_is_named(shards: Shards, handler: Handler) -> None:
    """By its number or an address; the numbers of deliveries lead to their shard."""
    addresses = shards.addresses("named.example")
    assert handler.deliver(MESSAGE, *addresses).status == 0
    for number, address in list(enumerate(addresses))[1:3]:
        by_number = json.loads(run(handler, "list", "--shard", str(number), "--recipient", address, "--json"))
        by_address = json.loads(run(handler, "list", f"--shard={address}", "--recipient", address, "--json"))
        assert [each["recipient"] for each in by_number] == [address]
        assert by_number == by_address
        assert MESSAGE in run(handler, "--shard", str(number), "raw", str(by_number[0]["id"])).encode()
    assert "the shards have the numbers 0 to 3" in run(handler, "--shard", "4", "list", status=78)
    assert "it does not take --shard" in run(handler, "--shard", "1", "check", status=2)


def test_one_database_is_not_sharded(shards: Shards) -> None:
    """--shard there, or on a shard itself, is an error, and never means the whole database."""
    done = CliRunner().invoke(cli, ["--conninfo", shards.of[0].admin, "--shard", "0", "list"])
    assert (done.exit_code, "this database is not sharded" in done.output) == (78, True)


def test_leases(handler: Handler) -> None:
    """Leases are issued, extended and ended through the proxy, catch-alls included."""
    assert run(handler, "address", "add", "lease@cli.example") == "lease@cli.example\n"
    assert run(handler, "address", "add", "@cli.example") == "@cli.example\n"
    assert "expires never" in run(handler, "address", "extend", "lease@cli.example")
    assert "removed with 0 deliveries" in run(handler, "address", "remove", "@cli.example", "--yes")


def test_expire(shards: Shards, handler: Handler) -> None:
    """What has expired is removed on every shard; one that is away is named, and the others are done."""
    addresses = shards.addresses("expire.example")
    message = MESSAGE.replace(b"<1@", b"<expire@")
    for address in addresses:
        shards.proxy.execute("SELECT pipehandler.lease_address(%s, interval '1 hour')", address)
    assert handler.deliver(message, *addresses).status == 0
    for shard in shards.of:
        shard.execute(
            "UPDATE pipehandler.address SET created_at = created_at - interval '9 days',"
            " expires_at = now() - interval '8 days' WHERE address LIKE '%@expire.example'"
        )
    shards.of[2].server.stop(SIGKILL)
    output = run(handler, "expire", status=69)
    assert "shard 2: " in output
    assert "removed 3 deliveries, 3 messages, 3 leases" in output
    shards.of[2].server.start()
    assert json.loads(run(handler, "expire", "--json"))["deliveries"] == 1


def test_migrate(shards: Shards, handler: Handler) -> None:
    """One shard is down: it is named, the other shards are migrated, and the proxy is not, until all have been."""
    shards.proxy.execute("DROP FUNCTION pipehandler.shard_cursor(text[])")
    shards.of[3].execute("DROP FUNCTION pipehandler.cut_text(text, integer)")
    shards.of[2].server.stop(SIGKILL)
    output = run(handler, "migrate", status=69)
    assert re.match(r"applied functions and views, version \d+ on shard 3\nError: database: shard 2: .*refused", output)
    assert "the proxy was not migrated" in output
    assert not shards.proxy.rows("SELECT FROM pg_proc WHERE proname = 'shard_cursor'")
    shards.of[2].server.start()
    assert re.fullmatch(r"applied functions and views, version \d+\n", run(handler, "migrate"))


def test_status_and_metrics(shards: Shards, handler: Handler) -> None:
    """Both count the shards that answer, and name one that does not."""

    def look() -> tuple[str, dict[str, object], str]:
        snapshot = take_snapshot(load(str(handler.config)), config_directory="/nonexistent")
        whole = status([], snapshot)
        return "\n".join(lines(whole)), as_json(whole), exposition(lambda: snapshot).decode()

    text, _, exported = look()
    assert "4 of 4 answer" in text
    assert 'pipehandler_shard_up{shard="3"} 1.0' in exported
    shards.of[3].server.stop(SIGKILL)
    text, structured, exported = look()
    assert "3 of 4 answer" in text
    assert "shard 3 does not, and its mail is deferred: connection to server " in text
    assert [away is None for away in structured["database"]["shards"]] == [True] * 3 + [False]  # type: ignore[index]
    assert 'pipehandler_shard_up{shard="3"} 0.0' in exported
    assert "pipehandler_database_up 1.0" in exported
    shards.of[3].server.start()


def test_a_frozen_shard(shards: Shards, handler: Handler) -> None:
    """One whose server does not answer at all is named like one that is down, within the time of a scrape."""
    shards.of[1].server.freeze()
    try:
        snapshot = take_snapshot(load(str(handler.config)), config_directory="/nonexistent")
    finally:
        shards.of[1].server.thaw()
    assert snapshot.health
    assert [away is None for away in snapshot.health.shards] == [True, False, True, True]


@pytest.mark.long
def test_commands_while_a_shard_is_frozen(shards: Shards, handler: Handler) -> None:
    """`check` names it, and goes on; a lease of it cannot be issued, and one of another shard can."""
    own, other = shards.addresses("icy.example")[1:3]
    shards.proxy.execute("SELECT pipehandler.lease_address(%s)", own)
    shards.of[1].server.freeze()
    try:
        done = run(handler, "check", "--part", "handler", "--json", status=1)
        assert {each["code"] for each in json.loads(done)} - {"fsync", "full-page-writes", *FAST} == {"shard-away"}
        assert "shard 1 is away: " in run(handler, "address", "extend", own, status=69)
        assert run(handler, "address", "add", other) == f"{other}\n"
    finally:
        shards.of[1].server.thaw()
    assert "removed with 0 deliveries" in run(handler, "address", "remove", own, "--yes")


def test_check(shards: Shards, handler: Handler) -> None:
    """Nothing to report of shards that are as they were made, except that the servers of tests do not write safely."""
    assert found(handler) == {}
    done = run(handler, "check", "--part", "handler", "--json", status=1)
    assert {each["code"] for each in json.loads(done) if "shard" in each["code"]} == set(FAST)
    for code in FAST:
        assert [each["what"][-7:] for each in json.loads(done) if each["code"] == code] == [
            f"shard {number}" for number in range(len(shards.of))
        ]


def test_check_names_a_dead_shard(shards: Shards, handler: Handler) -> None:
    """And goes on with the others."""
    shards.of[0].server.stop(SIGKILL)
    finding = found(handler)["shard-away"]
    assert finding["what"].startswith("shard 0 (")
    assert list(found(handler)) == ["shard-away"]
    shards.of[0].server.start()


def test_check_the_session(shards: Shards, handler: Handler) -> None:
    """The settings of the sessions that the proxy has on a shard; the printed command corrects them."""
    place = shards.of[1].admin
    shards.proxy.execute(f"ALTER SERVER pipehandler OPTIONS (SET p1 '{_plain(place)}')")
    finding = found(handler)["shard-session"]
    assert "client_min_messages is notice" in finding["what"]
    assert "lock_timeout is 0" in finding["what"]
    shards.proxy.execute(finding["fix"].rstrip(";"))
    assert found(handler) == {}


def test_a_proxy_of_an_earlier_version(shards: Shards, handler: Handler) -> None:
    """`check` names all that it lacks, `migrate` prints and adds it, and then nothing is left to do."""
    for statement in (
        "ALTER SERVER pipehandler OPTIONS (DROP disable_binary)",
        "ALTER SERVER pipehandler OPTIONS (SET connection_lifetime '60')",
        f"ALTER DATABASE {shards.proxy.name} RESET client_connection_check_interval",
        "DROP EXTENSION dblink",
        "DROP SCHEMA pipehandler_dblink",
    ):
        shards.proxy.execute(statement)
    lacking = [
        "the extension dblink",
        "the option disable_binary of the foreign server pipehandler",
        "the setting client_connection_check_interval of the database",
    ]
    assert differing(handler) == [
        (lacking[0] + " is missing", "pipehandler migrate"),
        (lacking[1] + " is missing", "pipehandler migrate"),
        (lacking[2] + " is off", "pipehandler migrate"),
    ]
    printed = run(handler, "migrate", "--dry-run")
    assert [line.split()[0] for line in printed.splitlines()] == ["CREATE", "ALTER", "ALTER"]
    assert run(handler, "migrate").splitlines() == [f"applied {name}" for name in lacking]
    assert run(handler, "migrate") == "nothing to do: the schema is up to date\n"
    assert differing(handler) == []
    options = shards.proxy.value("SELECT srvoptions FROM pg_foreign_server")
    assert {"disable_binary=0", "connection_lifetime=60"} <= set(options)  # the operator's is kept
    shards.proxy.execute("ALTER SERVER pipehandler OPTIONS (SET connection_lifetime '3600')")


def test_a_proxy_that_an_operator_has_changed(shards: Shards, handler: Handler) -> None:
    """`migrate` keeps what was set, and `check` prints the statement that corrects it; but no one else may have the
    connections of dblink."""
    changes = [
        "ALTER SERVER pipehandler OPTIONS (SET disable_binary '1')",
        f"ALTER DATABASE {shards.proxy.name} SET client_connection_check_interval = 0",
    ]
    for statement in changes:
        shards.proxy.execute(statement)
    shards.proxy.execute("CREATE ROLE other SUPERUSER")
    shards.proxy.execute("UPDATE pg_user_mapping SET umuser = 'other'::regrole")
    assert run(handler, "migrate") == "nothing to do: the schema is up to date\n"
    found = differing(handler)
    assert [what.rpartition(" is ")[2] for what, _ in found] == ["1", "off", "missing"]
    shards.proxy.execute("DROP USER MAPPING FOR other SERVER pipehandler")
    for _, fix in found:
        shards.proxy.execute(fix.removeprefix("# on the proxy, as a superuser: "))
    assert differing(handler) == []
    shards.proxy.execute("DROP ROLE other")
    shards.proxy.execute("ALTER EXTENSION dblink SET SCHEMA public")
    assert "is in the schema public, where others" in run(handler, "migrate", status=78)
    ((_, fix),) = differing(handler)
    shards.proxy.execute(fix.removeprefix("# on the proxy, as a superuser: "))
    assert differing(handler) == []


def differing(handler: Handler) -> list[tuple[str, str]]:
    """What `check` finds about the proxy itself: each finding, and its fix."""
    config = load(str(handler.config))
    with closing(Store(config.database.conninfo)) as store:
        findings = list(check_shards(store, config, str(handler.config)))
    return [(each.what, each.fix) for each in findings if each.code == "proxy-differs"]


def test_check_the_places(shards: Shards, handler: Handler) -> None:
    """Two shards whose places were exchanged: each is reported, and deliveries go nowhere meanwhile."""
    first, second = (proxy_conninfo(shards.of[number].admin) for number in (2, 3))
    _place(shards, second, first)
    finding = found(handler)["shard-mixed-up"]
    assert "takes for shard 3 of 4, is shard 2 of 4" in finding["what"]
    _place(shards, first, second)
    assert found(handler) == {}


def test_check_what_the_operator_needs(shards: Shards, handler: Handler) -> None:
    """Each shard is asked directly, as the operator's commands do; what is wrong with one names it."""
    assert of_operator(handler) == []
    handler.config.write_text(
        handler.config.read_text() + '[[retention]]\nrecipient = "@kept.example"\nkeep = "9999d"\n'
    )
    os.utime(handler.config, (0, 0))  # the shards have had time to get the rules
    assert of_operator(handler) == [("expire-overdue", number) for number in range(COUNT)]
    run(handler, "expire")
    assert of_operator(handler) == []
    shards.of[2].execute("UPDATE pipehandler.cluster SET timeline = timeline - 1")
    shards.of[1].server.stop(SIGKILL)
    assert of_operator(handler) == [("admin-database-unreachable", 1), ("restored", 2)]
    shards.of[1].server.start()
    run(handler, "--shard", "2", "restored", "--nothing-lost")
    assert of_operator(handler) == []
    handler.configure(shards.proxy.conninfo, database={"admin_conninfo": shards.proxy.admin})
    run(handler, "expire")  # without the rules


def test_check_the_functions_of_a_shard(shards: Shards, handler: Handler) -> None:
    """One that lost a function, although it says which version it has, is named; `migrate` installs it again."""
    shards.of[1].execute("DROP FUNCTION pipehandler.ingest(jsonb, jsonb, text, text, bytea, bytea, bytea[])")
    assert of_operator(handler) == [("schema-damaged", 1)]
    run(handler, "migrate")
    assert of_operator(handler) == []


def test_check_what_postfix_asks(shards: Shards, handler: Handler, tmp_path: Path) -> None:
    """Where Postfix does not ask for recipients whose shard is away, the printed commands let it, and it gets a DEFER."""
    if not find_program("postconf"):
        missing("Postfix")
    recipients = tmp_path / "pgsql-recipients.cf"
    recipients.write_text(run(handler, "postfix", "pgsql-recipients.cf"))
    recipients.chmod(0o640)
    (tmp_path / "main.cf").write_text("virtual_mailbox_maps = proxy:pgsql:$config_directory/pgsql-recipients.cf\n")
    (tmp_path / "master.cf").touch()

    def look() -> list[Finding]:
        findings = check_operator(load(str(handler.config)), str(handler.config), Postfix(str(tmp_path)))
        return [each for each in findings if each.code == "shard-away-accepted"]

    (finding,) = look()
    subprocess.run(finding.fix, shell=True, check=True)
    assert look() == []
    asking = tmp_path / "pgsql-shards.cf"
    assert asking.stat().st_mode == recipients.stat().st_mode
    (query,) = re.findall(r"^query = (.*'%s'.*)$", asking.read_text(), re.MULTILINE)
    known, away = shards.addresses("restricted.example")[:2]
    shards.proxy.execute("SELECT pipehandler.lease_address(%s)", known)
    shards.of[1].server.stop(SIGKILL)
    answers = [shards.proxy.rows(query.replace("%s", address)) for address in (known, away)]
    shards.of[1].server.start()
    assert answers == [[], [("DEFER the mailbox is not available at the moment",)]]
    with (tmp_path / "main.cf").open("a") as main:
        main.write("smtpd_recipient_restrictions = reject_unauth_destination\n")
    (finding,) = look()
    assert finding.fix.startswith("# add `check_recipient_access proxy:pgsql:")


def test_check_a_shard_that_is_read_only(shards: Shards, handler: Handler) -> None:
    """It is named: its mail is deferred, although it answers."""
    place = shards.of[1].name
    shards.of[1].execute(f"ALTER DATABASE {place} SET default_transaction_read_only = on")
    assert list(found(handler)) == ["shard-read-only"]
    with psycopg.connect(shards.of[1].admin, autocommit=True, options="-c default_transaction_read_only=off") as admin:
        admin.execute(f"ALTER DATABASE {place} RESET default_transaction_read_only")
    assert found(handler) == {}


def test_check_the_rights_of_the_operator(shards: Shards, handler: Handler) -> None:
    """A role that lacks a right on the shards, and one that only the proxy knows."""
    proxy = shards.proxy
    proxy.execute("CREATE ROLE operator LOGIN IN ROLE pipehandler_reader, pipehandler_maintenance")
    for role, code in (("reader", "admin-rights-too-few"), ("operator", "admin-role-missing")):
        admin = proxy.server.conninfo(proxy.name, user=role)
        handler.configure(proxy.conninfo, database={"admin_conninfo": admin})
        assert of_operator(handler) == [(code, number) for number in range(COUNT)]
    proxy.execute("DROP ROLE operator")


def test_check_delimiter_and_numbers(shards: Shards, handler: Handler) -> None:
    """Another delimiter, and a sequence that gives out numbers of other shards."""
    handler.configure(shards.proxy.conninfo, recipients={"delimiter": "-"})
    assert "'-'; the shards were made with '+'" in found(handler)["shard-delimiter"]["what"]
    handler.configure(shards.proxy.conninfo)
    shards.of[2].execute("ALTER TABLE pipehandler.delivery ALTER COLUMN id SET INCREMENT BY 1")
    assert found(handler)["shard-numbers"]["what"].startswith("shard 2 gives out numbers")
    shards.of[2].execute("ALTER TABLE pipehandler.delivery ALTER COLUMN id SET INCREMENT BY 64")


def _plain(conninfo: str) -> str:
    return conninfo.replace("'", "''")


def _place(shards: Shards, first: str, second: str) -> None:
    for number, conninfo in ((2, first), (3, second)):
        text = conninfo.replace("\\", "\\\\").replace("'", "''")
        shards.proxy.execute(f"ALTER SERVER pipehandler OPTIONS (SET p{number} E'{text}')")
