"""The LMTP receiver of the service, against a real PostgreSQL: every recipient has a reply, or the connection closes."""

import os
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.lmtp import Client, Receiving, dialogue, receiving, stuffed
from harness.service import held, stuck, wait_until
from harness.upgradable import Upgradable

MESSAGE = b"From: a@example.org\nSubject: one\nMessage-ID: <1@example.org>\n\n.body\n..\n"
THREE = ("a@example.com", "b@example.com", "c@example.com")
STORED = "SELECT count(*) FROM pipehandler.delivery"
_BEFORE, _AFTER = "        with CircuitBreaker(", "    rows = {row.recipient: "
"""Lines of the program before the commit, and after it."""


@pytest.fixture
def lmtp(handler: Handler) -> Iterator[Receiving]:
    """The service with two workers and LMTP."""
    with receiving(handler) as running:
        yield running


def codes(replies: list[str]) -> list[str]:
    """The reply codes with their enhanced codes."""
    return [" ".join(reply.split(" ")[:2]) for reply in replies]


def test_each_recipient_has_a_reply(lmtp: Receiving, database: Database) -> None:
    """One reply for each RCPT, in order, also for one that is named twice; stored once for each recipient."""
    replies = lmtp.deliver(MESSAGE, "a@example.com", "b@EXAMPLE.com", "a@example.com")
    assert codes(replies) == ["250 2.0.0"] * 3
    assert database.value(STORED) == 2
    assert [reply.split(" ")[2:4] for reply in lmtp.deliver(MESSAGE, "a@example.com", "c@example.com")] == [
        ["stored", "before"],
        ["stored", replies[0].split(" ")[3]],
    ]
    assert database.rows("SELECT DISTINCT raw, ingress FROM pipehandler.raw_message, pipehandler.delivery") == [
        (MESSAGE, "lmtp")
    ]
    lines = [line for line in lmtp.handler.log_lines() if "queue_id=" in line]
    assert [line.split(" ")[:1] + [word for word in line.split(" ") if "recipients" in word] for line in lines] == [
        ["outcome=delivered", "recipients=3"],
        ["outcome=duplicate", "recipients=1"],
        ["outcome=delivered", "recipients=1"],
    ]


def test_a_message_that_came_by_pipe_is_a_duplicate(handler: Handler, database: Database) -> None:
    """And the other way round; the columns of the envelope are the same but for the way in."""
    options: dict[str, Any] = {
        "queue_id": "4jX1870rppzJDj5",
        "size": len(MESSAGE),
        "client_address": "192.0.2.1",
        "client_hostname": "client.example.org",
        "client_helo": "helo.example.org",
        "client_port": 4711,
        "client_protocol": "ESMTP",
    }
    forwarded = (
        b"XFORWARD NAME=client.example.org ADDR=192.0.2.1 PORT=4711 PROTO=ESMTP HELO=helo.example.org"
        b" IDENT=4jX1870rppzJDj5 SOURCE=REMOTE\r\n"
    )
    with receiving(handler) as lmtp:
        assert lmtp.deliver(MESSAGE, "a@example.com")[0].startswith("250 2.0.0 stored ")
        by_pipe = handler.run(handler.command("a@example.com", **options), MESSAGE)
        assert by_pipe.output.startswith("2.0.0 stored before ")
        assert handler.run(handler.command("we ird@example.com", **options), MESSAGE).status == 0
        client = lmtp.client()
        client.send(b"LHLO x\r\n" + forwarded + b"MAIL FROM:<sender@example.org>\r\n")
        client.send(b'RCPT TO:<"we ird"@example.com> ORCPT=rfc822;forged@example.com\r\n')
        client.send(b"RCPT TO:<other@example.com> ORCPT=rfc822;forged@example.com\r\nDATA\r\n" + stuffed(MESSAGE))
        client.send(b"QUIT\r\n")
        assert [reply.split(" ")[2:4] for reply in client.replies()][-3:-1] == [
            ["stored", "before"],
            ["stored", by_pipe.output.split(" ")[-1].strip()],
        ]
        client.close()
    columns = (
        "sender, queue_id, mail_host, client_address, client_hostname, client_helo, client_port, client_protocol,"
        " original_recipient, sasl_username, prepended"
    )
    pipe, by_lmtp = (
        database.rows(f"SELECT {columns} FROM pipehandler.delivery WHERE recipient = '{recipient}'")
        for recipient in ("we ird@example.com", "other@example.com")
    )
    assert pipe == by_lmtp
    assert None not in pipe[0][:8]


def test_original_recipients_are_stored_where_they_are_trusted(handler: Handler, database: Database) -> None:
    """lmtp.trust_orcpt: the operator says that senders cannot choose ORCPT."""
    with receiving(handler, trust_orcpt=True) as lmtp:
        client = lmtp.client()
        client.send(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.com> ORCPT=rfc822;alias+2Bx@example.com\r\n")
        client.send(b"RCPT TO:<b@example.com>\r\nDATA\r\n" + stuffed(MESSAGE) + b"QUIT\r\n")
        assert codes(client.replies())[-3:-1] == ["250 2.0.0"] * 2
        client.close()
    rows = database.rows("SELECT recipient, original_recipient, sender FROM pipehandler.delivery ORDER BY 1")
    assert rows == [("a@example.com", "alias+x@example.com", ""), ("b@example.com", None, "")]


def test_a_rejected_recipient_does_not_hold_back_the_others(handler: Handler, database: Database) -> None:
    """recipients.policy = known: 550 for the one without a lease, stored for the others."""
    database.execute("INSERT INTO pipehandler.address (address) VALUES ('a@example.com'), ('c@example.com')")
    with receiving(handler) as lmtp:
        text = handler.config.read_text() + '[recipients]\npolicy = "known"\n'
        handler.config.write_text(text)
        lmtp.service.signal(signal.SIGHUP)
        wait_until(lambda: any("reloaded" in event for event in lmtp.service.events()))
        assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["250 2.0.0", "550 5.1.1", "250 2.0.0"]
    assert database.value(STORED) == 2


def test_a_locked_recipient_does_not_hold_back_the_others(lmtp: Receiving, database: Database) -> None:
    """Another session holds the row of one recipient: that one is deferred, the others are stored."""
    assert codes(lmtp.deliver(MESSAGE, "b@example.com")) == ["250 2.0.0"]
    with psycopg.connect(database.admin) as other:
        other.execute("SELECT FROM pipehandler.delivery FOR UPDATE")
        assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["250 2.0.0", "451 4.3.0", "250 2.0.0"]
    assert database.value(STORED) == 3
    (line,) = [line for line in lmtp.handler.log_lines() if "store_unavailable" in line]
    assert "recipients=1" in line
    assert "sqlstate=55P03" in line
    assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["250 2.0.0"] * 3
    assert database.value(STORED) == 3


def test_an_error_for_one_recipient_does_not_hold_back_the_others(lmtp: Receiving, database: Database) -> None:
    """The database raises something unforeseen for one recipient: that one is deferred, the others are stored."""
    database.execute(
        "CREATE FUNCTION public.fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'unforeseen'; END $$;"
        "CREATE TRIGGER fails BEFORE INSERT ON pipehandler.delivery FOR EACH ROW"
        " WHEN (NEW.recipient = 'b@example.com') EXECUTE FUNCTION public.fails()"
    )
    assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["250 2.0.0", "451 4.3.0", "250 2.0.0"]
    assert database.value(STORED) == 2
    database.execute("DROP TRIGGER fails ON pipehandler.delivery")
    assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["250 2.0.0"] * 3
    assert database.value(STORED) == 3


@pytest.mark.parametrize(
    ("file", "line", "fault", "replies", "stored"),
    [
        ("ingress/lmtp.py", _BEFORE, "raise RuntimeError", ["451 4.3.0"] * 3, 0),
        ("ingress/lmtp.py", _BEFORE, "import os; os._exit(0)", [], 0),
        ("delivery/deliver.py", _AFTER, "raise SystemExit(0)", ["451 4.3.0"] * 3, 3),
        ("delivery/deliver.py", _AFTER, "import os; os._exit(0)", [], 3),
    ],
    ids=["exception", "exit", "exception after the commit", "exit after the commit"],
)
def test_a_fault_of_the_program(
    folder: Path,
    handler: Handler,
    database: Database,
    file: str,
    line: str,
    fault: str,
    replies: list[str],
    stored: int,
) -> None:
    """Whatever ends a delivery, each recipient is deferred, or the connection closes; the right program stores it once."""
    upgradable = Upgradable(folder)
    faulty = upgradable.link / "lib" / upgradable.version / "site-packages" / "pipehandler" / file
    right = faulty.read_text()
    assert right.count(line) == 1
    faulty.write_text(right.replace(line, f"{line[: -len(line.lstrip())]}{fault}\n{line}"))
    with receiving(handler, program=upgradable.program) as lmtp:
        assert codes(lmtp.deliver(MESSAGE, *THREE)) == replies
        assert database.value(STORED) == stored
    faulty.write_text(right)
    with receiving(handler, program=upgradable.program) as lmtp:
        assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["250 2.0.0"] * 3
    assert database.value(STORED) == 3


def test_database_gone(handler: Handler, own_database: Database) -> None:
    """Each recipient is deferred, and stored when the database is back."""
    handler.configure(own_database.conninfo)
    with receiving(handler) as lmtp:
        own_database.server.stop()
        assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["451 4.3.0"] * 3
        own_database.server.start()
        handler.end_hold()
        assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["250 2.0.0"] * 3


def test_deadline(handler: Handler, database: Database) -> None:
    """All recipients share one deadline: each has its reply when it is over."""
    with receiving(handler, deadline=5) as lmtp, held(database):
        assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["451 4.3.0"] * 3
    assert database.value(STORED) == 0


def test_too_large(handler: Handler, database: Database) -> None:
    """As with pipe(8), a permanent reply, after the whole message was taken; the next one is stored."""
    handler.configure(handler.conninfo, limits={"message_size": 2048})
    with receiving(handler, limits={"message_size": 2048}) as lmtp:
        assert codes(lmtp.deliver(MESSAGE + b"x" * 200_000, *THREE)) == ["552 5.3.4"] * 3
        assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["250 2.0.0"] * 3
        whole = MESSAGE + b"\n" * (2048 - len(MESSAGE))
        assert codes(lmtp.deliver(whole, *THREE)) == ["250 2.0.0"] * 3
        assert codes(lmtp.deliver(whole + b"\n", *THREE)) == ["552 5.3.4"] * 3


def test_worker_killed(lmtp: Receiving, database: Database) -> None:
    """A worker that dies with the message closes this connection without a word, and no other one."""
    other = lmtp.client()
    client = lmtp.client()
    with held(database):
        client.send(dialogue(MESSAGE, *THREE))
        stuck(database)
        receiver = lmtp.receiver()
        busy = database.rows("SELECT client_port FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        assert busy
        for pid in lmtp.service.workers():
            if pid != receiver:
                os.kill(pid, signal.SIGKILL)
        assert [reply[:3] for reply in client.replies()] == ["250", "250", "250", "250", "250", "250", "354"]
    client.close()
    wait_until(lambda: lmtp.service.status()["died"] == 2 and lmtp.service.ready(), "new workers")
    other.send(dialogue(MESSAGE, *THREE))
    assert codes(other.replies())[-4:-1] == ["250 2.0.0"] * 3
    other.close()
    assert database.value(STORED) == 3
    assert lmtp.service.status()["died"] == 2


def test_receiver_killed(lmtp: Receiving, database: Database) -> None:
    """The receiver is replaced; a client that connects meanwhile waits in the backlog."""
    before = lmtp.receiver()
    client = lmtp.client()
    os.kill(before, signal.SIGKILL)
    assert client.replies() == []
    client.close()
    assert codes(lmtp.deliver(MESSAGE, *THREE)) == ["250 2.0.0"] * 3
    assert lmtp.receiver() != before
    assert any("receiver lost" in event and "killed by signal 9" in event for event in lmtp.service.events())


def test_cut_at_every_octet(lmtp: Receiving, database: Database) -> None:
    """A client that disappears after any octet: stored only with its final dot, and the receiver goes on."""
    whole = dialogue(MESSAGE, "a@example.com", "b@example.com")
    dot = whole.index(b"\r\n.\r\n") + 5
    for cut in range(len(whole)):
        gone, client = Client(lmtp.path), Client(lmtp.path)
        gone.send(whole.replace(b"1@example.org", b"gone-%04d.org" % cut)[:cut])
        gone.close()
        client.send(whole.replace(b"1@example.org", b"%04d@here.org" % cut)[:cut])
        client.socket.shutdown(socket.SHUT_WR)
        stored = codes(client.replies()).count("250 2.0.0") - (cut >= whole.index(b"MAIL"))
        assert stored == (2 if cut >= dot else 0), cut
        client.close()
    found = {name for (name,) in database.rows("SELECT message_id FROM pipehandler.message")}
    assert {name for name in found if "@here" in name} == {f"{cut:04}@here.org" for cut in range(dot, len(whole))}
    assert all(int(name[5:9]) >= dot for name in found if name.startswith("gone"))


def test_silent_connections_block_nobody(handler: Handler, database: Database) -> None:
    """With lmtp.max_connections that say nothing, and more, the next message is stored; the oldest is closed for it."""
    with receiving(handler, max_connections=100) as lmtp, ExitStack() as stack:
        clients = [lmtp.client() for _ in range(100)]
        for client in clients:
            stack.callback(client.close)
        assert codes(lmtp.deliver(MESSAGE)) == ["250 2.0.0"]
        assert clients[0].replies() == ["421 4.3.2 making room for another connection"]
        clients[-1].send(dialogue(MESSAGE))
        assert codes(clients[-1].replies())[-2] == "250 2.0.0"


def test_connections_at_work_are_not_closed(handler: Handler) -> None:
    """When every connection has a transaction, the next one is refused for now."""
    with receiving(handler, max_connections=2) as lmtp, ExitStack() as stack:
        for _ in range(2):
            client = lmtp.client()
            stack.callback(client.close)
            client.send(b"LHLO x\r\nMAIL FROM:<>\r\n")
            assert [client.reply()[:3], client.reply()[:3]] == ["250", "250"]
        refused = Client(lmtp.path)
        assert refused.replies() == ["421 4.3.2 too many connections"]
        refused.close()


LARGE = 4 << 20


def test_memory_is_bounded(handler: Handler, database: Database) -> None:
    """Of many large messages that come in together only two get their 354; small ones do not wait for them."""
    with receiving(handler, limits={"message_size": LARGE, "memory": 1 << 30}) as lmtp, ExitStack() as stack:
        clients = [lmtp.client() for _ in range(8)]
        for client in clients:
            stack.callback(client.close)
            client.send(b"LHLO x\r\nMAIL FROM:<> SIZE=%d\r\nRCPT TO:<a@example.com>\r\nDATA\r\n" % LARGE)
            assert [client.reply()[:3] for _ in range(3)] == ["250"] * 3
        assert codes(lmtp.deliver(MESSAGE)) == ["250 2.0.0"]
        assert [client.reply()[:3] for client in clients[:2]] == ["354"] * 2
        assert not select.select([client.socket for client in clients[2:]], [], [], 0)[0]
        for number, client in enumerate(clients):
            if number >= 2:
                assert client.reply()[:3] == "354"
            # More than announced, and more than is accepted: the excess is not kept.
            client.send(stuffed(b"Subject: %d\n\n" % number + b"x" * (LARGE + 100_000)))
            assert _spooled(lmtp.receiver()) <= 3 * (LARGE + 1)
            assert client.reply().startswith("552 5.3.4 ")


def _spooled(pid: int) -> int:
    """The octets in the memfds of a process."""
    sizes = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        try:
            if os.readlink(path).startswith("/memfd:message"):
                sizes.append(os.stat(path).st_size)
        except FileNotFoundError:
            continue
    return sum(sizes)


def test_more_than_announced_needs_room(handler: Handler, database: Database) -> None:
    """A client that announces little and sends much has what is free; without room it is deferred, not cut."""
    with receiving(handler, limits={"message_size": LARGE, "memory": 1 << 30}) as lmtp, ExitStack() as stack:
        clients = [lmtp.client() for _ in range(2)]
        body = b"Subject: much\n\n" + (b"x" * 1022 + b"\n") * (LARGE // 1024)
        for client in clients:
            stack.callback(client.close)
            client.send(b"LHLO x\r\nMAIL FROM:<> SIZE=%d\r\nRCPT TO:<a@example.com>\r\nDATA\r\n" % 10)
            assert [client.reply()[:3] for _ in range(4)] == ["250", "250", "250", "354"]
        octets = stuffed(body)
        clients[0].send(octets[:-3])
        wait_until(lambda: _spooled(lmtp.receiver()) >= len(body) - 2, "the first message")
        clients[1].send(octets)
        assert clients[1].reply().startswith("451 4.3.0 ")
        clients[0].send(octets[-3:])
        assert clients[0].reply().startswith("250 2.0.0 ")
    assert database.value("SELECT size FROM pipehandler.message") == len(body)


def test_another_account_is_refused(handler: Handler) -> None:
    """Only root, the service's own account and lmtp.accounts may connect, as the kernel knows them."""
    if not account.IS_ROOT:
        pytest.skip("only root can be another account")
    with receiving(handler) as lmtp:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.setresuid(1, 1, 1)
                os.write(writing, "|".join(Client(lmtp.path).replies()).encode())
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(pid, 0)
        assert os.read(reading, 1000) == b"421 4.7.1 not for this account"
        os.close(reading)


def test_tcp(handler: Handler, database: Database) -> None:
    """On a loopback address, beside the socket."""
    port = account.free_port()
    with receiving(handler, address=f"127.0.0.1:{port}"):
        client = Client(("127.0.0.1", port))
        client.send(dialogue(MESSAGE))
        assert codes(client.replies())[-2] == "250 2.0.0"
        client.close()
    assert database.value(STORED) == 1


def test_settings_that_cannot_be_used(handler: Handler) -> None:
    """The service does not start, and says which key is wrong."""
    with pytest.raises(RuntimeError, match="there is no account 'x y'"), receiving(handler, accounts=["x y"]):
        raise AssertionError("it runs")


def test_reload_moves_the_socket(lmtp: Receiving, database: Database) -> None:
    """A new configuration takes effect without losing a message that has begun."""
    client = lmtp.client()
    whole = dialogue(MESSAGE)
    client.send(whole[:-20])
    wait_until(lambda: _spooled(lmtp.receiver()), "the first part of the message")
    config = lmtp.handler.config
    config.write_text(config.read_text().replace("/lmtp", "/moved"))
    lmtp.service.signal(signal.SIGHUP)
    wait_until(lambda: (lmtp.handler.folder / "moved").exists(), "the new socket")
    moved = Receiving(lmtp.handler, lmtp.service)
    moved.path = lmtp.handler.folder / "moved"
    assert codes(moved.deliver(MESSAGE, "b@example.com")) == ["250 2.0.0"]
    client.send(whole[-20:])
    assert codes(client.replies())[-2:] == ["250 2.0.0", "221 2.0.0"]
    client.close()
    with pytest.raises(ConnectionRefusedError):
        Client(lmtp.path)
    assert database.value(STORED) == 2


def test_stop_finishes_the_message(lmtp: Receiving, database: Database) -> None:
    """SIGTERM: a message that was handed over gets its replies; idle connections are closed with 421."""
    idle, client = lmtp.client(), lmtp.client()
    with held(database):
        client.send(dialogue(MESSAGE, *THREE))
        stuck(database)
        lmtp.service.signal(signal.SIGTERM)
        assert idle.replies() == ["421 4.3.2 restarting"]
    assert codes(client.replies())[-4:] == ["250 2.0.0"] * 3 + ["221 2.0.0"]
    for each in (idle, client):
        each.close()
    assert lmtp.service.wait() == 0
    assert database.value(STORED) == 3
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)), socket.socket(socket.AF_UNIX) as late:
        late.connect(str(lmtp.path))
