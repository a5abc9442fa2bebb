"""Recipients at RCPT TO, with a real Postfix that looks up addresses through the file that `pipehandler postfix`
prints: an unknown one is refused in the SMTP dialogue, and one that disappears between RCPT TO and delivery is treated
as configured."""

import smtplib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from harness import account
from harness.database import Database
from harness.mailhost import MailHost
from harness.postgresql import VERSION, PostgreSQL

U_LABEL, A_LABEL = "bücher.example", "xn--bcher-kva.example"
MESSAGE = (
    "From: a@example.org\nDate: Mon, 02 Mar 2026 07:30:00 +0900\nSubject: x\nMessage-ID: <{}@example.org>\n\nhello\n"
)
UNKNOWN = (550, "5.1.1")
OK = (250, "2.1.5")
LATER = (451, "4.3.0")
END_CONNECTIONS = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'postfix'"


class Pool:
    """A running mail host that looks up addresses, and its database."""

    def __init__(self, host: MailHost, database: Database) -> None:
        self.host = host
        self.database = database

    def lease(self, address: str, ttl: str | None = None) -> int:
        """Issue an address."""
        return int(self.database.value("SELECT lease FROM pipehandler.lease_address(%s, %s)", address, ttl))

    def expire(self, lease: int) -> None:
        """End a lease."""
        self.database.execute("SELECT pipehandler.expire_lease(%s)", lease)

    def policy(self, policy: str, expired: str) -> None:
        """Set the handler's policy for recipients."""
        self.host.handler.configure(self.database.conninfo, recipients={"policy": policy, "expired": expired})

    @contextmanager
    def dialogue(self, sender: str = "a@example.org") -> Iterator["Dialogue"]:
        """An SMTP dialogue after MAIL FROM."""
        with Dialogue(self.host.port) as dialogue:
            assert dialogue.command(f"MAIL FROM:<{sender}> SMTPUTF8")[0] == 250
            yield dialogue

    def answers(self, *recipients: str) -> list[tuple[int, str]]:
        """Postfix's reply to each recipient."""
        with self.dialogue() as dialogue:
            return [dialogue.rcpt(recipient) for recipient in recipients]

    def stored(self, recipient: str) -> list[tuple[int | None, str | None]]:
        """Lease and extension of the deliveries of a recipient."""
        rows = self.database.rows(
            "SELECT lease, extension FROM pipehandler.delivery WHERE recipient = %s ORDER BY id", recipient
        )
        return [(row.lease, row.extension) for row in rows]


class Dialogue(smtplib.SMTP):
    """An SMTP client that sends given lines."""

    command_encoding = "utf-8"

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port, timeout=60)
        self.command_encoding = "utf-8"
        self.ehlo()

    def command(self, line: str) -> tuple[int, str]:
        """Send a line; returns the status and the text."""
        status, text = self.docmd(line)
        return status, text.decode()

    def rcpt(self, recipient: str) -> tuple[int, str]:  # type: ignore[override]
        """Send RCPT TO; returns the status and the enhanced code."""
        status, text = self.command(f"RCPT TO:<{recipient}>")
        return status, text.split()[0]


@pytest.fixture(scope="module")
def pool(_postfix: None, servers: Callable[[int], PostgreSQL]) -> Iterator[Pool]:
    """A mail host that looks up addresses, for all tests here; each uses its own addresses."""
    with account.folder("pipehandler-mx-") as folder, Database.fresh(servers(VERSION)) as database:
        host = MailHost(folder, database.conninfo)
        host.ask_the_pool()
        host.postconf(
            "-e",
            f"virtual_mailbox_domains=example.com, {U_LABEL}, {A_LABEL}, catch.example, köln.example",
        )
        host.start()
        yield Pool(host, database)
        host.abort()


def test_dialogue(pool: Pool) -> None:
    """An unknown recipient and one with an expired lease are refused in the SMTP dialogue, one with a live lease is
    accepted; expiry and extension take effect at once, and only the refusals are logged."""
    lease = pool.lease("live@example.com", "1h")
    pool.lease("gone@example.com", "1 us")
    with pool.dialogue() as dialogue:
        assert dialogue.rcpt("nobody@example.com") == UNKNOWN
        assert dialogue.rcpt("gone@example.com") == UNKNOWN
        assert dialogue.rcpt("live@example.com") == OK
        pool.expire(lease)
        assert dialogue.rcpt("live@example.com") == UNKNOWN
        pool.database.execute("SELECT pipehandler.extend_lease(%s, '1h')", lease)
        assert dialogue.rcpt("live@example.com") == OK
    assert "warning" not in pool.host.log()


ALIKE = {
    "upper case": ("Upper.Case@Example.Com", ["upper.case@example.com", "UPPER.CASE@EXAMPLE.COM"]),
    "upper case, Unicode": ("ÄÖÜ.Иван@example.com", ["äöü.иван@example.com", "ÄÖÜ.ИВАН@EXAMPLE.COM"]),
    "sharp s": ("straße@example.com", ["strasse@example.com", "STRASSE@example.com", "STRAẞE@example.com"]),
    "ligature": ("fine@example.com", ["ﬁne@example.com"]),
    "final sigma": ("οδος@example.com", ["οδοσ@example.com", "ΟΔΟΣ@example.com"]),
    "decomposed": ("u\u0308ber@example.com", ["über@example.com", "U\u0308BER@example.com"]),
    "U-label": (f"u@{U_LABEL}", [f"u@{A_LABEL}", f"U@{A_LABEL.upper()}"]),
    "A-label": (f"a@{A_LABEL}", [f"a@{U_LABEL}", "a@BÜCHER.example"]),
    "plus": ("plus@example.com", ["plus+ext@example.com", "plus+@example.com", "PLUS+a+b@example.com"]),
    "catch-all": ("@catch.example", ["anything@catch.example", "any+thing@CATCH.example"]),
    "quote": ("o'brien@example.com", ["O'Brien@example.com", "o'brien+'@example.com"]),
    "percent": ("%s%d@example.com", ["%S%D@example.com"]),
    "backslash": (r"back\slash@example.com", [r'"back\\slash"@example.com']),
    "blank": ("we ird@example.com", ['"we ird"@example.com', '"we ird+x"@example.com']),
}


@pytest.mark.parametrize("how", ALIKE)
def test_spellings(pool: Pool, how: str) -> None:
    """An address is found in every spelling that Postfix treats as the same."""
    address, others = ALIKE[how]
    assert pool.answers(*others) == [UNKNOWN] * len(others)
    pool.lease(address)
    spellings = others if how in ("catch-all", "backslash", "blank") else [address, *others]
    assert pool.answers(*spellings) == [OK] * len(spellings)


def test_one_label_of_two(pool: Pool) -> None:
    """Postfix does not know that an A-label and a U-label are one domain: with only one of them in virtual_mailbox_domains, the other is
    a domain elsewhere (and here a client that may relay)."""
    assert pool.answers("nobody@köln.example", "nobody@xn--kln-sna.example") == [UNKNOWN, OK]


def test_columns(pool: Pool) -> None:
    """Mail to an extension, in another case, or in UTF-8 belongs to the lease of its address, also from the null
    sender; the extension is in its own column, as it was sent."""
    lease = pool.lease("Grüße@example.com", "1h")
    recipients = ["grüße@example.com", "GRÜSSE+News@Example.COM", "grüße+@example.com"]
    message = MESSAGE.format("columns").encode()
    pool.host.send(message, "", *recipients, options=("SMTPUTF8",))
    pool.host.drain()
    assert [pool.stored(each) for each in ("grüße@example.com", "GRÜSSE+News@example.com", "grüße+@example.com")] == [
        [(lease, None)],
        [(lease, "News")],
        [(lease, "")],
    ]


BETWEEN = {
    ("any", "store"): "2.0.0",
    ("any", "reject"): "5.1.1",
    ("known", "store"): "2.0.0",
    ("known", "reject"): "5.1.1",
}


@pytest.mark.parametrize(("policy", "expired"), BETWEEN)
def test_expired_between(pool: Pool, policy: str, expired: str) -> None:
    """Mail for an address that expires after RCPT TO is stored but invisible, or bounced with 5.1.1, as configured."""
    address = f"between-{policy}-{expired}@example.com"
    lease = pool.lease(address, "1h")
    pool.policy(policy, expired)
    with pool.dialogue("") as dialogue:
        assert dialogue.rcpt(address) == OK
        pool.expire(lease)
        assert dialogue.data(MESSAGE.format(address))[0] == 250
    pool.host.drain()
    (attempt,) = pool.host.deliveries(address)
    assert attempt["dsn"] == BETWEEN[policy, expired]
    assert attempt["status"] == ("bounced" if attempt["dsn"][0] == "5" else "sent")
    assert pool.stored(address) == ([] if attempt["status"] == "bounced" else [(lease, None)])
    assert not pool.database.value("SELECT count(*) FROM pipehandler.inbox WHERE recipient = %s", address)


def test_removed_between(pool: Pool) -> None:
    """Mail accepted without the table (sendmail queries none, or the lease is removed) for an address without a lease:
    stored without a lease, or bounced with 5.1.1, as configured."""
    outcomes = {}
    for policy in ("any", "known"):
        address = f"removed-{policy}@example.com"
        lease = pool.lease(address)
        pool.policy(policy, "store")
        with pool.dialogue("") as dialogue:
            assert dialogue.rcpt(address) == OK
            pool.database.execute("SELECT pipehandler.remove_lease(%s)", lease)
            assert dialogue.data(MESSAGE.format(address))[0] == 250
        pool.host.drain()
        outcomes[policy] = ([each["dsn"] for each in pool.host.deliveries(address)], pool.stored(address))
    assert outcomes == {"any": (["2.0.0"], [(None, None)]), "known": (["5.1.1"], [])}


def test_given_out_again(pool: Pool) -> None:
    """The new holder of an address does not see the old one's mail, and the same message sent again is a separate
    delivery."""
    pool.policy("known", "reject")
    message = MESSAGE.format("again").encode()
    old = pool.lease("again@example.com", "1h")
    pool.host.send(message, "a@example.org", "again@example.com")
    pool.host.drain()
    pool.expire(old)
    new = pool.lease("again@example.com", "1h")
    inbox = "SELECT lease FROM pipehandler.inbox WHERE recipient = 'again@example.com'"
    assert not pool.database.rows(inbox)
    pool.host.send(message, "a@example.org", "again@example.com")
    pool.host.drain()
    assert [each["text"].split()[-2] for each in pool.host.deliveries("again@example.com")] == ["stored", "stored"]
    assert [row.lease for row in pool.database.rows(inbox)] == [new]
    assert pool.stored("again@example.com") == [(old, None), (new, None)]


def test_database_away(pool: Pool) -> None:
    """After a restart of the server, which ends all connections, recipients are answered as before. While the database
    accepts no connections, recipients are deferred (451), not refused; and afterwards they are answered as before."""
    pool.lease("away@example.com")
    recipients = ("away@example.com", "nobody@example.com")
    assert pool.answers(*recipients) == [OK, UNKNOWN]
    pool.database.execute(END_CONNECTIONS)
    assert pool.answers(*recipients) == [OK, UNKNOWN]

    name = pool.database.name
    with psycopg.connect(pool.database.server.conninfo(), autocommit=True) as maintenance:
        maintenance.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        maintenance.execute(END_CONNECTIONS)
        assert pool.answers(*recipients) == [LATER, LATER]
        maintenance.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    pool.host.reload()  # Postfix 3.7 does not query a server for 60 s after it failed; a new proxymap process does
    assert pool.answers(*recipients) == [OK, UNKNOWN]
