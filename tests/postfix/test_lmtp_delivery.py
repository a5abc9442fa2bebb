"""Mail through a real lmtp(8), with the lines that `pipehandler postfix` prints for LMTP."""

import subprocess

from harness.database import Database
from harness.mailhost import MailHost
from harness.service import wait_until

MESSAGE = (
    b"From: sender@example.org\nDate: Mon, 02 Mar 2026 07:30:00 +0900\nSubject: test\n"
    b"Message-ID: <%s@example.org>\n\n.hello\n"
)
ENVELOPE = (
    "SELECT d.sender, d.queue_id, d.mail_host, d.client_address, d.client_hostname, d.client_helo, d.client_port,"
    " d.client_protocol, d.sasl_username, d.prepended, r.raw, d.ingress FROM pipehandler.delivery d"
    " JOIN pipehandler.raw_message r USING (message) WHERE d.recipient = %s"
)


def both(stored: Database, name: str) -> tuple[list[object], list[object]]:
    """What is stored for a recipient of the pipe, and for the same recipient of LMTP."""
    found = []
    for recipient, ingress in ((f"{name}@pipe.example.com", "pipe"), (f"{name}@example.com", "lmtp")):
        wait_until(lambda recipient=recipient: stored.rows(ENVELOPE, recipient), recipient)  # type: ignore[misc]
        ((*columns, by),) = stored.rows(ENVELOPE, recipient)
        assert by == ingress
        found.append(columns)
    return found[0], found[1]


def test_envelope_of_smtp(lmtp_mail: MailHost, stored: Database) -> None:
    """Queue id, client, sender and bytes are those of the pipe."""
    lmtp_mail.send(MESSAGE % b"smtp", "sender@example.org", "smtp@example.com", "smtp@pipe.example.com")
    pipe, lmtp = both(stored, "smtp")
    assert pipe == lmtp
    assert None not in lmtp[:8]


def test_envelope_of_local_mail(lmtp_mail: MailHost, stored: Database) -> None:
    """Mail of sendmail(1) has no client, and its queue id is that of the pipe."""
    recipients = "local@example.com", "local@pipe.example.com"
    command = ["sendmail", "-C", str(lmtp_mail.config), "-f", "", *recipients]
    subprocess.run(command, input=MESSAGE % b"local", check=True)
    pipe, lmtp = both(stored, "local")
    assert pipe == lmtp
    assert lmtp[0] == ""
    assert lmtp[1]
    assert lmtp[3:9] == [None] * 6


def test_bytes(lmtp_mail: MailHost, stored: Database) -> None:
    """Long lines, dots, NUL, 8-bit text: what LMTP stores is what the pipe stores, but for the line end that lmtp(8)
    adds to a message without one."""
    bodies = {
        "long": b"x" * 1_000_000 + b"\n",
        "dots": b".\n..\n...\n.x\n",
        "octets": bytes(range(1, 10)) + b"\x0b\x0c" + bytes(range(14, 256)) + b"\n",
        "nul": b"a\0b\n",
        "lines": b"\n\n\n",
        "unended": b"no line end",
    }
    for name, body in bodies.items():
        sent = MESSAGE % name.encode() + body
        recipients = f"{name}@example.com", f"{name}@pipe.example.com"
        command = ["sendmail", "-i", "-C", str(lmtp_mail.config), "-f", "a@example.org", *recipients]
        subprocess.run(command, input=sent, check=True)
        pipe, lmtp = both(stored, name)
        raw = pipe[-1]
        assert isinstance(raw, bytes)
        assert lmtp[:-1] == pipe[:-1]
        assert lmtp[-1] == (raw if raw.endswith(b"\n") else raw + b"\n"), name
        assert name == "nul" or raw.endswith(body.removesuffix(b"\n") + b"\n")


def test_many_recipients_are_one_transaction(lmtp_mail: MailHost, stored: Database) -> None:
    """A message for several recipients is stored at once, with a status for each."""
    recipients = [f"many{number}@example.com" for number in range(40)]
    lmtp_mail.send(MESSAGE % b"many", "sender@example.org", *recipients)
    lmtp_mail.drain()
    rows = stored.rows("SELECT recipient, xid FROM pipehandler.delivery WHERE recipient LIKE 'many%'")
    assert {row.recipient for row in rows} == set(recipients)
    assert len({row.xid for row in rows}) == 1
    assert {attempt["status"] for attempt in lmtp_mail.deliveries(recipients[0])} == {"sent"}


def test_rejected_and_stored(lmtp_mail: MailHost, stored: Database) -> None:
    """Mail is returned for the reasons that the configuration names, and for nothing else that lmtp(8) calls permanent;
    the other recipients of the message have it."""

    def lookup(text: str) -> str:
        table = f"regexp:{lmtp_mail.config}/pipehandler_status_filter"
        return subprocess.run(["postmap", "-q", text, table], capture_output=True, text=True).stdout.strip()

    said = "host mx[/run/pipehandler/lmtp] said: "
    end = "(in reply to end of DATA command)"
    assert lookup(f"5.1.1 {said}550 5.1.1 recipient unknown {end}") == "5.1.1 recipient unknown"
    assert lookup(f"5.3.4 {said}552 5.3.4 message larger than this system accepts {end}").startswith("5.3.4 message")
    for other in (
        f"5.1.1 {said}550 5.1.1 recipient unknown (in reply to RCPT TO command)",
        f"5.5.1 {said}500 5.5.1 command not recognised (in reply to LHLO command)",
        "5.4.4 unable to look up host",
        "5.7.4 SASL authentication failed",
    ):
        assert lookup(other).startswith("4.3.0 "), other
    stored.execute(
        "INSERT INTO pipehandler.address (address, created_at, expires_at)"
        " VALUES ('gone@example.com', now() - interval '2 days', now() - interval '1 day')"
    )
    lmtp_mail.send(MESSAGE % b"gone", "", "gone@example.com", "there@example.com")
    lmtp_mail.drain()
    (bounced,), (sent,) = lmtp_mail.deliveries("gone@example.com"), lmtp_mail.deliveries("there@example.com")
    assert (bounced["status"], bounced["dsn"], bounced["text"]) == ("bounced", "5.1.1", "recipient unknown")
    assert sent["status"] == "sent"
