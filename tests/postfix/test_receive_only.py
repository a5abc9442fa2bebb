"""A host that only receives mail, with the lines of receive-only.main.cf and receive-only.master.cf, and strangers that
connect to it."""

import re
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from harness import account
from harness.database import Database
from harness.network import CLIENTS, Network
from harness.postgresql import VERSION, PostgreSQL
from harness.receive_only import ReceiveOnlyHost

from pipehandler.settings.config import Config

pytestmark = pytest.mark.usefixtures("_postfix")

STRANGER, FLOODING, TALKATIVE, SLOW, GUESSING = CLIENTS[:5]
"""Postfix counts by client, so tests that reach a limit have their own."""

BACKWARD, IMPATIENT, WITHOUT_CERTIFICATE = 26, 27, 28
"""Ports of other smtpd(8): without the settings against smuggling, one that waits for two seconds, and one with certbot's
paths, where nothing is yet."""

BODY = b"From: a@example.org\r\nMessage-ID: <%s@example.org>\r\nSubject: test\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def database(servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """The database of the host."""
    with Database.fresh(servers(VERSION)) as database:
        yield database


@pytest.fixture(scope="module")
def host(_postfix: None, database: Database) -> Iterator[ReceiveOnlyHost]:
    """The running host."""
    with account.folder("pipehandler-mx-") as folder:
        network = Network(folder)
        host = ReceiveOnlyHost(folder, network, database.conninfo)
        certbot = re.findall(r"^(smtpd_tls_\w+_file) = (.*)$", host.lines("receive-only.main.cf"), re.MULTILINE)
        without = " ".join(f"-o {name}={path}" for name, path in certbot)
        host.add(
            "master.cf",
            f"{BACKWARD} inet n - y - - smtpd -o smtpd_forbid_bare_newline=no -o smtpd_forbid_unauth_pipelining=no\n"
            f"{IMPATIENT} inet n - y - - smtpd -o smtpd_timeout=2s\n"
            f"{WITHOUT_CERTIFICATE} inet n - y - - smtpd {without}\n",
        )
        try:
            yield host.start()
        finally:
            host.abort()
            network.close()


def rejected(client: smtplib.SMTP, recipient: str, sender: str = "a@example.org") -> int:
    """The status for a recipient, in a new transaction."""
    client.rset()
    assert client.docmd("MAIL", f"FROM:<{sender}>")[0] == 250
    return client.docmd("RCPT", f"TO:{recipient}")[0]


def test_lines(host: ReceiveOnlyHost) -> None:
    """Postfix knows every parameter, and the limits of the example files and of the handler agree."""
    assert host.warnings == ""
    assert [line for line in host.postconf("-n").splitlines() if "warning" in line] == []
    assert host.postconf("-hx", "message_size_limit").strip() == str(Config().limits.message_size)
    assert host.postconf("-hx", "smtpd_forbid_bare_newline").strip() == "normalize"


RELAYED = (
    "<victim@elsewhere.example>",
    "victim@elsewhere.example",
    "<victim%elsewhere.example@example.com>",
    "<victim%elsewhere.example@mx.example.net>",
    "<victim%elsewhere.example@localhost>",
    "<victim%elsewhere.example@[127.0.0.1]>",
    "<victim%elsewhere.example>",
    "<victim@elsewhere.example@example.com>",
    "<victim@elsewhere.example@[127.0.0.1]>",
    "<@example.com:victim@elsewhere.example>",
    "<@mx.example.net,@example.com:victim@elsewhere.example>",
    "<@elsewhere.example:victim%elsewhere.example@example.com>",
    "<elsewhere.example!victim@example.com>",
    "<elsewhere.example!victim@localhost>",
    "<elsewhere.example!victim>",
    "<example.com!elsewhere.example!victim>",
    '<"victim@elsewhere.example"@example.com>',
    '<"victim@elsewhere.example">',
    '<"victim%elsewhere.example"@localhost>',
    "<victim@[203.0.113.5]>",
    "<victim@[IPv6:2001:db8::1]>",
    "<victim@elsewhere.example.>",
    "<victim@EXAMPLE.COM.elsewhere.example>",
    "<victim@sub.example.com>",
)
"""Ways to ask for mail to another domain: plain, RFC 821's source routes, percent and bang forms, quotes, literals."""


@pytest.mark.parametrize("sender", ["a@example.org", "user@example.com", "root@mx.example.net", ""])
@pytest.mark.parametrize("client", [STRANGER, "127.0.0.1"], ids=["stranger", "this host"])
def test_no_open_relay(host: ReceiveOnlyHost, client: str, sender: str) -> None:
    """No form of a foreign address is accepted, whoever sends and from wherever."""
    accepted = []
    for start in range(0, len(RELAYED), 9):  # the tenth error ends a session
        with host.connect(client) as session:
            session.ehlo()
            accepted += [form for form in RELAYED[start : start + 9] if rejected(session, form, sender) < 400]
            assert rejected(session, "<user@example.com>", sender) == 250
    assert accepted == []


def test_stored(host: ReceiveOnlyHost, database: Database) -> None:
    """Mail of a stranger is stored, with TLS; the Received field names the protocol, and the certificate is the one that
    was configured."""
    context = ssl.create_default_context(cafile=str(host.folder / "fullchain.pem"))
    context.check_hostname = False
    with host.connect(STRANGER) as session:
        assert session.starttls(context=context)[0] == 220
        assert isinstance(session.sock, ssl.SSLSocket)
        assert session.sock.version() in ("TLSv1.2", "TLSv1.3")
        session.sendmail("a@example.org", ["tls@example.com"], BODY % b"tls")
    host.drain()
    raw = database.value(
        "SELECT raw FROM pipehandler.raw_message r JOIN pipehandler.delivery d USING (message) WHERE recipient = 'tls@example.com'"
    )
    assert b"(using TLSv1." in raw
    assert f"[{STRANGER}]".encode() in raw


def test_old_tls(host: ReceiveOnlyHost) -> None:
    """TLS 1.1 is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.options &= ~(ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    session = host.connect(STRANGER)
    with pytest.raises(ssl.SSLError):
        session.starttls(context=context)
    session.close()
    host.wait_for("SSL_accept error from .*198.51.100.1")


def test_without_a_certificate(host: ReceiveOnlyHost) -> None:
    """Until certbot has made its files, mail arrives without TLS."""
    with host.connect(STRANGER, WITHOUT_CERTIFICATE) as session:
        session.ehlo()
        assert session.docmd("STARTTLS")[0] == 454
        session.sendmail("a@example.org", ["plain@example.com"], BODY % b"plain")
    host.drain()
    host.wait_for("/etc/letsencrypt/live/mx.example.net/fullchain.pem.*disabling TLS support")


def test_postscreen(host: ReceiveOnlyHost) -> None:
    """A client that talks before the greeting is refused by postscreen, and smtpd(8) never hears of it."""
    with host.dial(TALKATIVE) as connection, connection.makefile("rb") as replies:
        connection.sendall(b"EHLO bot.example.org\r\n")
        connection.sendall(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<user@example.com>\r\nQUIT\r\n")
        codes = [line[:3] for line in replies if line[3:4] == b" "]
    assert codes[-2:] == [b"550", b"221"]
    host.wait_for(rf"postscreen\[\d+\]: PREGREET .* from \[{re.escape(TALKATIVE)}\]")
    assert f"connect from unknown[{TALKATIVE}]" not in host.log()


@pytest.mark.parametrize(
    ("helo", "status"),
    [
        ("localhost", 504),
        ("bad..example.org", 501),
        ("mx.example.net", 554),
        ("[198.51.100.1]", 250),
        ("[300.1.1.1]", 501),
        ("client.example.org", 250),
    ],
)
def test_helo(host: ReceiveOnlyHost, helo: str, status: int) -> None:
    """A client has to give a valid and qualified name, and not ours."""
    with host.connect(STRANGER) as session:
        assert session.docmd("MAIL", "FROM:<a@example.org>")[0] == 503
        session.docmd("EHLO", helo)
        assert rejected(session, "<user@example.com>") == status


def test_connections_of_one_client(host: ReceiveOnlyHost) -> None:
    """The 21st connection at once is refused, and so is, sooner or later, one of many in a row; both only for a while,
    and other clients do not notice."""
    with host.connect(FLOODING):
        pass  # postscreen knows it now
    connections = [host.dial(FLOODING) for _ in range(21)]
    assert [connection.recv(3) for connection in connections] == [b"220"] * 20 + [b"421"]
    for connection in connections:
        connection.close()
    codes = set()
    for _ in range(200):
        with suppress(ConnectionError), host.dial(FLOODING) as connection:
            codes.add(connection.recv(3))
        if b"421" in codes and "Connection rate limit exceeded" in host.log():
            break
    host.wait_for(rf"Connection rate limit exceeded: \d+ from unknown\[{re.escape(FLOODING)}\]")
    with host.connect(STRANGER) as session:
        assert session.ehlo()[0] == 250


def test_recipients_of_one_message(host: ReceiveOnlyHost) -> None:
    """The recipient after the hundredth is refused for now: the client sends it in another transaction."""
    with host.connect(STRANGER) as session:
        session.ehlo()
        session.mail("a@example.org")
        codes = [session.rcpt(f"many{number}@example.com")[0] for number in range(101)]
    assert codes == [250] * 100 + [452]


ENDS = {
    "lf-dot-lf": b"\n.\n",
    "lf-dot-crlf": b"\n.\r\n",
    "crlf-dot-lf": b"\r\n.\n",
    "cr-dot-cr": b"\r.\r",
    "cr-dot-crlf": b"\r.\r\n",
}
"""What some servers take for the end of a message, though only <CR><LF>.<CR><LF> is."""


def smuggle(host: ReceiveOnlyHost, port: int, name: str) -> list[bytes]:
    """Send a message that contains another one behind a false end; returns the statuses of the ends of messages."""
    inner = b"MAIL FROM:<ceo@example.com>\r\nRCPT TO:<smuggled@example.com>\r\nDATA\r\n" + BODY % f"in-{name}".encode()
    with host.connect(STRANGER, port) as session:
        session.ehlo()
        session.mail("a@example.org")
        session.rcpt(f"{name}@example.com")
        assert session.docmd("DATA")[0] == 354
        session.send(BODY % name.encode() + b"text" + ENDS[name] + inner + b".\r\n")
        session.send(b"QUIT\r\n")
        assert session.file is not None
        lines = session.file.read().splitlines()
    return [line[:3] for line in lines if b"queued as" in line]


def test_smuggling(host: ReceiveOnlyHost, database: Database) -> None:
    """Whatever looks like an end inside of a message stays inside of it."""
    assert {name: smuggle(host, 25, name) for name in ENDS} == {name: [b"250"] for name in ENDS}
    host.drain()
    rows = database.rows(
        "SELECT recipient, raw FROM pipehandler.raw_message r JOIN pipehandler.delivery d USING (message)"
        " WHERE recipient = 'smuggled@example.com' OR strpos(encode(raw, 'escape'), 'smuggled@example.com') > 0"
    )
    assert sorted(row.recipient for row in rows) == sorted(f"{name}@example.com" for name in ENDS)


def test_smuggling_is_possible_without_the_setting(host: ReceiveOnlyHost) -> None:
    """The counter-check: with the defaults of Postfix before 3.9 the same octets are two messages."""
    assert smuggle(host, BACKWARD, "lf-dot-crlf") == [b"250", b"250"]


def test_bare_line_feeds(host: ReceiveOnlyHost, database: Database) -> None:
    """A message with bare line feeds, as some devices send, is accepted as if they were line ends."""
    with host.connect(STRANGER) as session:
        session.ehlo()
        session.mail("a@example.org")
        session.rcpt("bare@example.com")
        assert session.docmd("DATA")[0] == 354
        session.send(b"Subject: bare\nFrom: a@example.org\n\none\ntwo\r\n.\r\n")
        assert session.getreply()[0] == 250
    host.drain()
    text = database.value("SELECT text_body FROM pipehandler.message WHERE subject = 'bare'")
    assert text.splitlines() == ["one", "two"]


def test_commands_ahead_of_their_turn(host: ReceiveOnlyHost) -> None:
    """A client that did not ask whether it may send several commands at once is refused."""
    with host.connect(STRANGER) as session:
        session.helo()
        session.send(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<user@example.com>\r\nNOOP\r\n")
        assert session.getreply()[0] == 554
        session.close()


def test_smtputf8(host: ReceiveOnlyHost, database: Database) -> None:
    """An address in any script is accepted and stored."""
    with host.connect(STRANGER) as session:
        session.ehlo()
        assert session.has_extn("smtputf8")
        session.sendmail(
            "포스트@example.org", ["사용자@example.com"], BODY % b"utf8", mail_options=["SMTPUTF8", "BODY=8BITMIME"]
        )
    host.drain()
    (row,) = database.rows("SELECT sender FROM pipehandler.delivery WHERE recipient = '사용자@example.com'")
    assert row.sender == "포스트@example.org"


def test_too_large(host: ReceiveOnlyHost, database: Database) -> None:
    """A message above the limit is refused when its size is declared, and when it was not; nothing of it is stored."""
    limit = Config().limits.message_size
    with host.connect(STRANGER) as session:
        session.ehlo()
        assert session.esmtp_features["size"] == str(limit)
        assert session.docmd("MAIL", f"FROM:<a@example.org> SIZE={limit + 1}")[0] == 552
        assert session.docmd("MAIL", f"FROM:<a@example.org> SIZE={limit}")[0] == 250
        assert session.rcpt("large@example.com")[0] == 250
        assert session.docmd("DATA")[0] == 354
        line = b"x" * 998 + b"\r\n"
        for _ in range(limit // len(line) // 100 + 1):
            session.send(line * 100)
        session.send(b".\r\n")
        assert session.getreply()[0] == 552
    host.drain()
    assert database.value("SELECT count(*) FROM pipehandler.delivery WHERE recipient = 'large@example.com'") == 0


def test_slow_client(host: ReceiveOnlyHost) -> None:
    """The time is for a whole command: octets that come one by one do not prolong it."""
    with host.connect(SLOW, IMPATIENT) as session:
        session.ehlo()
        assert session.sock is not None
        session.sock.settimeout(0.2)
        answer = b""
        for _ in range(300):
            with suppress(TimeoutError):
                session.send(b"x")
                answer = session.sock.recv(100)
                break
        assert answer.startswith(b"421 4.4.2")
        session.close()


def test_guessing_addresses(host: ReceiveOnlyHost) -> None:
    """VRFY and ETRN do not help, and ten errors end the session."""
    with host.connect(GUESSING) as session:
        session.ehlo()
        assert session.docmd("VRFY", "user@example.com")[0] == 502
        session.mail("a@example.org")
        codes = [502]
        while codes[-1] != 421 and len(codes) < 50:
            codes.append(session.rcpt(f"guess{len(codes)}@elsewhere.example")[0])
    assert codes == [502, *[554] * 9, 421]


def test_extensions(host: ReceiveOnlyHost) -> None:
    """The greeting names neither the program nor the system; AUTH, ETRN and reports of success are not offered."""
    with host.connect(STRANGER) as session:
        session.ehlo()
        assert not {"auth", "etrn", "vrfy", "dsn"} & set(session.esmtp_features)
        assert session.docmd("AUTH", "PLAIN AGEAYg==")[0] == 503
        assert session.docmd("ETRN", "example.com")[0] >= 500
        assert session.docmd("MAIL", "FROM:<a@example.org>")[0] == 250
        assert session.docmd("RCPT", "TO:<user@example.com> NOTIFY=SUCCESS")[0] == 501
    with host.dial(STRANGER) as connection:
        assert connection.recv(100) == b"220 mx.example.net ESMTP\r\n"
