"""Debian's Milters, configured by the commands of docs/receive-only.md, verify mail of strangers; what they say is stored.

A name server in the network of the test has the keys and the policies.
"""

import base64
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from docs.pages import blocks
from harness import account
from harness.database import Database
from harness.missing import missing
from harness.network import CLIENTS, Network
from harness.postgresql import VERSION, PostgreSQL
from harness.receive_only import ReceiveOnlyHost, settings

pytestmark = pytest.mark.usefixtures("_postfix")

PAGE = "docs/receive-only.md"
MX = "mx.example.net"
LISTED, STRANGER = CLIENTS[:2]
"""The client that the SPF record of signed.example lists, and another one."""

MESSAGE = (
    b"From: a@signed.example\r\nTo: user@example.com\r\nDate: Thu, 26 Nov 2026 07:30:00 +0000\r\n"
    b"Message-ID: <1@signed.example>\r\nSubject: test\r\n\r\nhello\r\n"
)
FORGED = (
    b"Authentication-Results: mx.example.net; dkim=pass; spf=pass; dmarc=pass; arc=pass\r\n"
    b"Authentication-Results : mx.example.net;\r\n\tdkim=pass\r\n"
    b"Received-SPF: pass receiver=mx.example.net\r\n"
    b"X-Spam-Checker-Version: SpamAssassin 4.0.0 on mx.example.net\r\n"
    b"X-Rspamd-Server: mx.example.net\r\nX-Spam-Status: No, score=-99.0\r\nX-Spam: No\r\n"
)
ATTACHED = (
    b'From: a@signed.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
    b"Content-Type: message/rfc822\r\n\r\n" + FORGED + MESSAGE + b"\r\n--b--\r\n"
)

DAEMONS = {
    "opendkim": ("opendkim", "-f", "-x", "{etc}/opendkim.conf"),
    "opendmarc": ("opendmarc", "-f", "-c", "{etc}/opendmarc.conf"),
    "rspamd": ("rspamd", "-f", "-u", "_rspamd", "-g", "_rspamd", "-c", "/etc/rspamd/rspamd.conf"),
}
"""How each Milter is started in the foreground."""

PORTS = {"opendkim": (8891, 8893), "rspamd": (11332,)}
"""Where the Milters of each kind listen."""


@pytest.fixture(scope="module")
def database(servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """The database of the hosts."""
    with Database.fresh(servers(VERSION)) as database:
        yield database


@contextmanager
def running(database: Database, *milters: str) -> Iterator[ReceiveOnlyHost]:
    """A host with these Milters, as the page configures them, and the key of signed.example."""
    for program in (*milters, "dnsmasq", "dkimsign"):
        if shutil.which(program) is None:
            missing(program)
    with account.folder("pipehandler-mx-") as folder:
        network = Network(folder)
        trust: dict[str, object] = {"trusted_authserv_ids": [MX]}
        host = ReceiveOnlyHost(folder, network, database.conninfo, milters[0], authentication=trust)
        try:
            network.serve_names(
                {
                    "signed.example": f"v=spf1 ip4:{LISTED} -all",
                    "s1._domainkey.signed.example": f"v=DKIM1; k=rsa; p={public_key(folder)}",
                    "_dmarc.signed.example": "v=DMARC1; p=reject",
                },
                {"signed.example": LISTED},
            )
            etc = folder / "milters"
            configure(etc, folder / "programs", *milters)
            for milter in milters:
                start(network, etc, milter)
            for port in PORTS[milters[0]]:
                network.wait_for(port)
            host.start()
            yield host
        finally:
            host.abort()
            network.close()


def public_key(folder: Path) -> str:
    """The public part of a new key, in base64."""
    openssl = ("openssl", "rsa", "-in", folder / "dkim.key", "-pubout", "-outform", "DER")
    subprocess.run(["openssl", "genrsa", "-out", folder / "dkim.key", "2048"], check=True, capture_output=True)
    return base64.b64encode(subprocess.run(openssl, check=True, capture_output=True).stdout).decode()


def configure(etc: Path, programs: Path, *milters: str) -> None:
    """Run the commands of the page that configure these Milters, with `etc` instead of /etc; Postfix is configured
    already."""
    programs.mkdir()
    for name, command in {"systemctl": "true", "postfix": "true", "postconf": f'[ "$1" = -e ] || echo {MX}'}.items():
        (programs / name).write_text(f"#!/bin/sh\n{command}\n")
        (programs / name).chmod(0o755)
    (block,) = (block for block in blocks(PAGE, "sh") if f"/etc/{milters[0]}" in block.text)
    etc.mkdir()
    script = block.text.replace("/etc/", f"{etc}/")
    subprocess.run(["sh", "-euc", f"PATH={programs}:$PATH\n{script}"], check=True)
    # What is different here: opendkim asks the root servers, and rspamd does not read resolv.conf in this network.
    if "opendkim" in milters:
        with (etc / "opendkim.conf").open("a") as file:
            file.write("Nameservers 127.0.0.1\n")
    if "rspamd" in milters:
        (etc / "rspamd/local.d/options.inc").write_text('dns {\n  nameserver = ["127.0.0.1:53:10"];\n}\n')


def start(network: Network, etc: Path, milter: str) -> None:
    """Start a Milter; it has folders of its own where it writes, and its configuration where it reads it."""
    folders = [f"/run/{milter}"]
    script = "mount -t tmpfs tmpfs /run\n"
    if milter == "rspamd":
        folders += ["/var/lib/rspamd", "/var/log/rspamd"]
        script += f"mount --bind {etc}/rspamd/local.d /etc/rspamd/local.d\n"
        script += "".join(f"mount -t tmpfs tmpfs {folder}\n" for folder in folders[1:])
    owner = "_rspamd" if milter == "rspamd" else milter
    script += f"install -d -o {owner} {' '.join(folders)}\n"
    network.run("sh", "-euc", f'{script}exec "$@"', "sh", *(word.format(etc=etc) for word in DAEMONS[milter]))


def sign(host: ReceiveOnlyHost, message: bytes) -> bytes:
    """Sign a message for signed.example."""
    command = ["dkimsign", "s1", "signed.example", str(host.folder / "dkim.key")]
    return subprocess.run(command, input=message, capture_output=True, check=True).stdout


def verdicts(host: ReceiveOnlyHost, database: Database) -> dict[str, dict[str, str]]:
    """Send all kinds of messages, and return what is stored about each one."""
    signed = sign(host, MESSAGE)
    cases = {
        "signed": (LISTED, "a@signed.example", signed),
        "changed": (LISTED, "a@signed.example", signed.replace(b"hello", b"hullo")),
        "elsewhere": (STRANGER, "a@signed.example", MESSAGE.replace(b"<1@", b"<2@")),
        "forged": (STRANGER, "a@unknown.example", FORGED + MESSAGE.replace(b"<1@", b"<3@")),
        "attached": (STRANGER, "a@unknown.example", ATTACHED),
    }
    for name, (client, sender, message) in cases.items():
        with host.connect(client) as session:
            session.sendmail(sender, [f"{name}@example.com"], message)
    host.drain()
    rows = database.rows(
        "SELECT split_part(recipient, '@', 1) AS name, authentication, raw FROM pipehandler.delivery d"
        " JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message"
        " JOIN pipehandler.raw_message r ON r.day = m.day AND r.message = m.id"
    )
    stored = {row.name: bytes(row.raw).replace(b"\n", b"\r\n") for row in rows}
    assert b"score=-99.0" not in stored["forged"]
    assert FORGED.replace(b" :", b":") + MESSAGE in stored["attached"]  # Postfix itself removes the space
    return {row.name: row.authentication for row in rows if row.name in cases}


def test_the_page_and_the_example_agree() -> None:
    """The commented lines of receive-only.main.cf about Milters are those that the page sets."""
    text = (Path(__file__).parents[2] / "postfix/receive-only.main.cf.example").read_text()
    optional = {line for kind in PORTS for line in settings(text, kind)} - set(settings(text))
    page = "".join(block.text for block in blocks(PAGE, "sh"))
    assert optional == set(re.findall(r"'(\w+ =[^'\n]*)'", page))


def test_opendkim_and_opendmarc(database: Database) -> None:
    """SPF, DKIM and DMARC arrive, and nothing that a sender claims about them; also not when the Milters are down."""
    with running(database, "opendkim", "opendmarc") as host:
        assert verdicts(host, database) == {
            "signed": {"spf": "pass", "dkim": "pass", "dmarc": "pass"},
            "changed": {"spf": "pass", "dkim": "fail", "dmarc": "pass"},
            "elsewhere": {"spf": "fail", "dkim": "none", "dmarc": "fail"},
            "forged": {"spf": "none", "dkim": "none", "dmarc": "fail"},
            "attached": {"spf": "none", "dkim": "none", "dmarc": "fail"},
        }
        host.network.stop()
        with host.connect(STRANGER) as session:
            session.sendmail("a@unknown.example", ["down@example.com"], FORGED + MESSAGE.replace(b"<1@", b"<4@"))
        host.drain()
    (row,) = database.rows(
        "SELECT authentication FROM pipehandler.message m"
        " JOIN pipehandler.delivery d ON d.day = m.day AND d.message = m.id"
        " WHERE d.recipient = 'down@example.com'"
    )
    assert row.authentication == {}


@pytest.mark.long
def test_rspamd(database: Database) -> None:
    """The same from one Milter, with a verdict on spam."""
    with running(database, "rspamd") as host:
        found = verdicts(host, database)
    scores = {name: verdict.pop("spam_score") for name, verdict in found.items()}
    assert all(re.fullmatch(r"-?\d+\.\d+", score) for score in scores.values())
    assert found["signed"] == {"spf": "pass", "dkim": "pass", "dmarc": "pass", "spam": "no"}
    assert found["changed"] == {"spf": "pass", "dkim": "fail", "dmarc": "pass", "spam": "no"}
    assert found["elsewhere"] == {"spf": "fail", "dkim": "none", "dmarc": "fail", "spam": "yes"}
    assert found["forged"] == {"spf": "none", "dkim": "none", "dmarc": "fail", "spam": "yes"}
