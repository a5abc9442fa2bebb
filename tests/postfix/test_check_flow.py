"""`pipehandler check` as root: faults that stop mail or the operator's commands although every file is correct."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from click.testing import CliRunner
from harness import account
from harness.database import Database
from harness.mailhost import MailHost
from harness.postgresql import PostgreSQL
from harness.preloaded import PROGRAM
from harness.service import wait_until

from pipehandler.cli import cli


class Site(NamedTuple):
    """A mail host that was never started, with leased addresses, and its database."""

    host: MailHost
    database: Database

    def check(self, *arguments: str) -> list[dict[str, str]]:
        """The findings of root."""
        self.host.settle()
        command = ["--config", str(self.host.handler.config), "check", "--config-directory", str(self.host.config)]
        done = CliRunner().invoke(cli, [*command, "--json", *(arguments or ["--before-start"])])
        assert isinstance(done.exception, SystemExit | None), done.exception
        found: list[dict[str, str]] = json.loads(done.stdout)
        assert done.exit_code == (1 if found else 0)
        return found

    def codes(self, *arguments: str) -> list[str]:
        """Their codes."""
        return [finding["code"] for finding in self.check(*arguments)]

    def apply(self, found: list[dict[str, str]]) -> None:
        """Run the fixes of the findings."""
        for finding in found:
            line = finding["fix"]
            assert not line.startswith("#"), finding
            if line.endswith(";"):
                for statement in line.rstrip(";").split("; "):
                    self.database.execute(statement)
            else:
                self.host.settle()
                subprocess.run(["bash", "-euc", line], check=True, cwd="/")


@pytest.fixture(scope="module")
def site(_postfix: None, server: PostgreSQL) -> Iterator[Site]:
    """The host, without findings."""
    with account.folder("pipehandler-mx-") as folder, Database.fresh(server) as database:
        # The role of root: admin_conninfo uses a login role with the privileges given in the docs.
        database.execute("CREATE ROLE operator LOGIN IN ROLE pipehandler_reader, pipehandler_maintenance")
        admin = server.conninfo(database.name, user="operator")
        host = MailHost(folder, database.conninfo, database={"admin_conninfo": admin})
        host.ask_the_pool()
        database.execute("SELECT pipehandler.lease_address('postmaster@example.com')")
        yield Site(host, database)
        server.psql("postgres", "DROP OWNED BY operator")


@pytest.fixture(autouse=True)
def _same_files(site: Site) -> Iterator[None]:
    """Put the files back that a test changes."""
    before = {file: file.read_bytes() for file in [*site.host.config.iterdir(), site.host.handler.config]}
    yield
    for file, content in before.items():
        file.write_bytes(content)


def test_nothing_to_find(site: Site) -> None:
    """With leases, a role for root, and postmaster, there are no findings."""
    assert site.check() == []


def test_stopped(site: Site) -> None:
    """A stopped Postfix is found, the printed line starts it, and --before-start does not report it."""
    found = site.check("--part", "postfix")
    assert [each["code"] for each in found] == ["postfix-stopped"]
    try:
        site.apply(found)
        assert site.check("--part", "postfix") == []
    finally:
        site.host.stop()


def test_on_hold(site: Site) -> None:
    """Mail on hold is found, and the printed line releases it."""
    site.host.postconf("-e", "header_checks=regexp:{{/^Subject: hold/ HOLD}}")
    site.host.start()
    try:
        send = ["sendmail", "-C", str(site.host.config), "-f", "me@example.org", "postmaster@example.com"]
        subprocess.run(send, input=b"Subject: hold\n\n", check=True)
        wait_until(lambda: site.codes("--part", "postfix") == ["queue-held"], "the message on hold")
        found = site.check("--part", "postfix")
        assert found[0]["what"].startswith("1 message is on hold in the queue, the oldest since 20")
        site.apply(found)
        assert site.check("--part", "postfix") == []
    finally:
        site.host.stop()


TABLES: dict[str, list[str]] = {
    "no role": ["DROP ROLE postfix"],
    "no login": ["ALTER ROLE postfix NOLOGIN"],
    "no right": ["REVOKE pipehandler_lookup FROM postfix"],
}


@pytest.mark.parametrize("what", TABLES)
def test_table_of_recipients(site: Site, what: str) -> None:
    """A table that Postfix's account cannot query is found, with the server's message, and the printed line grants
    access."""
    for statement in TABLES[what]:
        site.database.execute(statement)
    found = site.check()
    assert [each["code"] for each in found] == ["table-fails"]
    assert "postfix" in found[0]["what"]
    assert "query error" in found[0]["what"] or "permission denied" in found[0]["what"]
    site.apply(found)
    assert site.check() == []


def test_other_tables(site: Site) -> None:
    """A table type that is not installed, a table that was never compiled, a table that returns nothing."""
    folder = site.host.config
    (folder / "aliases").write_text("abuse@example.com postmaster@example.com\n")
    for table, fix in (
        ("nosuch:x", "apt-get install postfix-nosuch"),
        (f"hash:{folder}/aliases", f"postmap -c {folder} hash:{folder}/aliases"),
        (f"regexp:{folder}/none", "# correct it, until this is silent: runuser -u postfix -- postmap "),
    ):
        site.host.postconf("-e", f"virtual_alias_maps={table}")
        found = [each for each in site.check() if each["code"] == "table-fails"]
        assert len(found) == 1, table
        assert found[0]["fix"].startswith(fix)
        if table.startswith("hash:"):
            site.apply(found)
            assert site.check() == []


def test_postmaster(site: Site) -> None:
    """A domain without postmaster is found; a lease, an alias or a catch-all is enough."""
    site.host.postconf("-e", "virtual_mailbox_domains=example.com, example.org, example.net")
    (site.host.config / "aliases").write_text("/^postmaster@example\\.org$/ me@example.com\n")
    site.host.postconf("-e", f"virtual_alias_maps=regexp:{site.host.config}/aliases")
    found = site.check()
    assert [each["code"] for each in found] == ["postmaster-missing"]
    assert found[0]["what"].startswith("postmaster@example.net: ")
    site.apply(found)
    assert site.check() == []
    site.database.execute("SELECT pipehandler.remove_lease(lease) FROM pipehandler.address WHERE address LIKE '%.net'")
    site.database.execute("SELECT pipehandler.lease_address('@example.net')")
    assert site.check() == []
    site.database.execute("SELECT pipehandler.remove_lease(lease) FROM pipehandler.address WHERE address LIKE '%.net'")


def test_soft_bounce(site: Site) -> None:
    """soft_bounce is meant for the first days: it is found if main.cf is older."""
    site.host.postconf("-e", "soft_bounce=yes")
    found = site.check()
    assert [each["code"] for each in found] == ["soft-bounce"]
    assert found[0]["fix"].endswith(" reload")
    subprocess.run(["bash", "-euc", found[0]["fix"].partition(" && ")[0]], check=True)
    assert site.check() == []
    site.host.postconf("-e", "soft_bounce=yes")
    os.utime(site.host.config / "main.cf")
    command = ["--config", str(site.host.handler.config), "check", "--config-directory", str(site.host.config)]
    done = subprocess.run([PROGRAM, *command, "--before-start"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("defer_transports=smtp, pipehandler", ["transport-deferred"]),
        ("defer_transports=pipehandler", ["transport-deferred"]),
        ("defer_transports=$relay_transport", []),
        ("master_service_disable=inet", ["service-disabled"]),
        ("master_service_disable=pipehandler.unix", ["service-disabled"]),
        ("master_service_disable=!pipehandler.unix, unix", []),
    ],
)
def test_switched_off(site: Site, line: str, codes: list[str]) -> None:
    """What was switched off for an hour, and is still off, is found; the printed line switches it on, and nothing else."""
    name = line.partition("=")[0]
    site.host.postconf("-e", line)
    found = site.check()
    assert [each["code"] for each in found] == codes
    for each in found:
        command, _, reload = each["fix"].partition(" && ")
        assert reload.endswith(" reload")
        subprocess.run(["bash", "-euc", command], check=True)
        assert site.check() == []
        assert "pipehandler" not in (left := site.host.postconf("-h", name))
        assert left.strip() == ("smtp" if "smtp" in line else "")


def test_certificate_expired(site: Site) -> None:
    """A certificate that has expired is found, whatever stands before it in its file; a valid one is not."""
    file = site.host.folder / "chain.pem"
    site.host.postconf("-e", f"smtpd_tls_chain_files={file}", "smtpd_tls_security_level=may")
    key = site.host.folder / "key.pem"
    request = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx", "-keyout", str(key)]
    wanted = subprocess.run(request, capture_output=True, check=True).stdout
    for days, codes in (("1", []), ("-1", ["certificate-expired"])):
        sign = ["openssl", "x509", "-req", "-signkey", str(key), "-days", days]
        file.write_bytes(key.read_bytes() + subprocess.run(sign, input=wanted, capture_output=True, check=True).stdout)
        found = site.check()
        assert [each["code"] for each in found] == codes
    assert str(file) in found[0]["what"]


def test_certificate_missing(site: Site) -> None:
    """A certificate that does not exist is found where it makes every handshake fail."""
    missing = f"{site.host.folder}/fullchain.pem"
    site.host.postconf("-e", f"smtpd_tls_cert_file={missing}", "smtpd_tls_security_level=may")
    assert site.check() == []
    site.host.postconf("-e", f"smtpd_tls_chain_files={missing}")
    found = site.check()
    assert [each["code"] for each in found] == ["tls-file-missing"]
    site.apply(found)
    assert site.check() == []


def test_entry_twice(site: Site) -> None:
    """An entry that was appended twice is found, and the printed line leaves one."""
    file = site.host.config / "master.cf"
    entry = file.read_text().partition("# The transport")[2]
    site.host.add("master.cf", f"# {entry}")
    found = site.check()
    assert [each["code"] for each in found] == ["transport-duplicate"]
    site.apply(found)
    assert site.check() == []
    assert "duplicate" not in site.host.postconf("-M")


ADMIN: dict[str, tuple[Callable[[Site], None], str]] = {
    "no login": (lambda site: site.database.execute("ALTER ROLE operator NOLOGIN"), "admin-role-nologin"),
    "no rights": (
        lambda site: site.database.execute("REVOKE pipehandler_reader, pipehandler_maintenance FROM operator"),
        "admin-rights-too-few",
    ),
    "no deletion": (
        lambda site: site.database.execute("REVOKE pipehandler_maintenance FROM operator"),
        "admin-rights-too-few",
    ),
}


@pytest.mark.parametrize("what", ADMIN)
def test_role_of_root(site: Site, what: str) -> None:
    """The role with which root reads and removes mail is tried as root."""
    spoil, code = ADMIN[what]
    spoil(site)
    found = site.check()
    assert [each["code"] for each in found] == [code]
    site.apply(found)
    assert site.check() == []


def test_no_role_for_root(site: Site, server: PostgreSQL) -> None:
    """A missing role is created with the privileges given in the docs."""
    site.host.handler.configure(
        site.database.conninfo, database={"admin_conninfo": server.conninfo(site.database.name, user="nobody9")}
    )
    found = site.check()
    assert [each["code"] for each in found] == ["admin-role-missing"]
    assert found[0]["fix"] == "CREATE ROLE nobody9 LOGIN IN ROLE pipehandler_reader, pipehandler_maintenance;"
    site.apply(found)
    assert site.check() == []
    site.database.execute("DROP ROLE nobody9")


def test_expire_does_not_run(site: Site) -> None:
    """Rules not yet in the database, and mail that expired an hour ago, are found until `expire` runs."""
    config = site.host.handler.config
    config.write_text(f"{config.read_text()}\n[[retention]]\nkeep = '30d'\n")
    assert site.check() == []  # the next run of the timer will apply them
    os.utime(config, (1, 1))
    assert site.codes() == ["expire-overdue"]
    expire = [PROGRAM, "--config", str(config), "expire"]
    subprocess.run(expire, check=True, capture_output=True)
    assert site.check() == []
    assert site.host.handler.deliver(b"Subject: x\n\n").status == 0
    site.database.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '2 h'")
    assert site.codes() == ["expire-overdue"]
    subprocess.run(expire, check=True, capture_output=True)
    assert site.check() == []
    site.database.execute("DELETE FROM pipehandler.retention")


def test_lease_of_a_foreign_domain(site: Site) -> None:
    """An address in a domain that Postfix does not serve gets no mail; a name in either form, or in a table, is served."""
    for domain in (
        "example.org",
        "b\N{LATIN SMALL LETTER U WITH DIAERESIS}cher.example",
        "sub.example.edu",
        "in.example.net",
    ):
        site.database.execute("SELECT pipehandler.lease_address(%s)", f"x@{domain}")
    (site.host.config / "domains").write_text("/^in\\.example\\.net$/ x\n")
    site.host.postconf("-e", "relay_domains=example.edu")
    site.host.postconf(
        "-e", f"virtual_mailbox_domains=example.com, xn--bcher-kva.example, regexp:{site.host.config}/domains"
    )
    (site.host.config / "aliases").write_text("/^postmaster@/ me@example.com\n")
    site.host.postconf("-e", f"virtual_alias_maps=regexp:{site.host.config}/aliases")
    (found,) = site.check()
    assert found["code"] == "lease-domain"
    assert found["what"].startswith("addresses are leased in example.org, which")
    site.host.postconf("-e", "virtual_mailbox_domains=example.com, xn--bcher-kva.example, in.example.net")
    found_now = site.check()
    assert [each["code"] for each in found_now] == ["lease-domain"]
    site.apply(found_now)
    assert site.check() == []
    site.database.execute("DELETE FROM pipehandler.address WHERE address LIKE 'x@%'")


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("transport_maps=regexp:{}", "go to smtp:[192.0.2.1] (transport_maps)"),
        ("virtual_alias_maps=regexp:{}", "are all replaced by smtp:[192.0.2.1] (virtual_alias_maps)"),
        ("canonical_maps=regexp:{}", "are all replaced by smtp:[192.0.2.1] (canonical_maps)"),
        (
            "transport_maps=inline:{{{{ example.com = discard: }}}}",
            "go to discard: (transport_maps)",
        ),
        ("transport_maps=inline:{{{{ example.com = pipehandler: }}}}", ""),
        ("transport_maps=inline:{{{{ example.com = : }}}}", ""),
    ],
)
def test_lease_whose_mail_goes_elsewhere(site: Site, line: str, where: str) -> None:
    """A domain with leases whose mail never gets to the handler, although Postfix receives it, is found."""
    site.database.execute(
        "SELECT pipehandler.remove_lease(lease) FROM pipehandler.address WHERE address NOT LIKE '%@example.com'"
    )
    table = site.host.config / "table"
    table.write_text("/@example\\.com$/ smtp:[192.0.2.1]\n")
    site.host.postconf("-e", line.format(table))
    found = site.check()
    assert [each["code"] for each in found if each["code"] != "postmaster-missing"] == ["lease-elsewhere"] * bool(where)
    assert not where or found[-1]["what"] == f"addresses are leased in example.com, and its addresses {where}"
