"""Clients over IPv6: Postfix writes `IPv6:` before such an address wherever it occurs in an envelope (RFC 5321
4.1.3)."""

import smtplib
import socket

import pytest
from harness.database import Database
from harness.mailhost import MailHost
from harness.missing import missing

MESSAGE = (
    b"From: sender@example.org\r\nDate: Mon, 02 Mar 2026 07:30:00 +0900\r\nSubject: test\r\n"
    b"Message-ID: <%d@example.org>\r\n\r\nhello\r\n"
)
CLIENTS = {
    "2001:DB8::1": "2001:db8::1",
    "2001:db8:0:0:0:0:0:2": "2001:db8::2",
    "::ffff:192.0.2.3": "192.0.2.3",
    "fe80::4": "fe80::4",
}
"""The client address that a proxy passes (XCLIENT), and the stored one."""


@pytest.fixture
def over_ipv6(own: MailHost) -> MailHost:
    """A running mail host that also listens on ::1, and trusts the addresses that clients there pass."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        missing("IPv6")
    own.add("master.cf", f"[::1]:{own.port} inet n - n - - smtpd\n")
    for setting in (
        "inet_protocols = all",
        "inet_interfaces = 127.0.0.1, [::1]",
        "mynetworks = [::]/0 0.0.0.0/0",
        "smtpd_authorized_xclient_hosts = [::1]",
        "local_transport = pipehandler",
    ):
        own.postconf("-e", setting)
    own.start()
    return own


def test_addresses(over_ipv6: MailHost, database: Database) -> None:
    """The client's address is stored in each form in which Postfix passes it on, and addresses with a literal
    unchanged."""
    expected: dict[str, str] = {}
    for number, named in enumerate([None, *CLIENTS]):
        with smtplib.SMTP("::1", over_ipv6.port, local_hostname="[IPv6:::1]", timeout=60) as client:
            if named:
                assert client.docmd("XCLIENT", f"ADDR=IPV6:{named} PORT=4711 NAME=[UNAVAILABLE]")[0] == 220
            client.sendmail("a@[IPv6:2001:db8::1]", [f"client{number}@example.com"], MESSAGE % number)
            if not named:
                client.sendmail("", ["literal@[IPv6:::1]"], MESSAGE % 99)
        expected[f"client{number}@example.com"] = CLIENTS[named] if named else "::1"
    over_ipv6.drain()
    rows = database.rows(
        "SELECT d.recipient, host(d.client_address) AS address, d.client_helo, d.sender, m.defects"
        "  FROM pipehandler.delivery d JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message ORDER BY d.id"
    )
    assert {row.recipient: row.address for row in rows if row.sender} == expected
    assert {row.sender.lower() for row in rows} == {"a@[ipv6:2001:db8::1]", ""}
    assert {row.client_helo.lower() for row in rows} == {"[ipv6:::1]"}
    assert [row.recipient for row in rows if not row.sender] == ["literal@[ipv6:::1]"]
    assert not any(row.defects for row in rows)
