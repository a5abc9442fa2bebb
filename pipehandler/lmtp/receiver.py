"""The receiver: one process with all LMTP connections. It runs their dialogues, and hands complete messages over.

It never parses or stores a message, and has no connection to the database: a client that is slow, silent or hostile
costs it a descriptor, and no worker anything. Whatever happens to one connection closes that connection only.

    reading      commands and text; ends after SILENCE without an octet
    waiting      DATA was accepted, but there is no room for the message yet
    handed over  the message is complete: no octet is read until every recipient has its reply
"""

import errno
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector

from ..handover import peer
from ..mail.outcome import CONGESTED, EXHAUSTED, outcome_of
from ..record.attempt import write_log
from ..settings.config import Config
from .dialogue import Content, Data, Dialogue, Event, Message, Quit, Reply, Transaction
from .handing import HandingOver, Lost, arguments, reply
from .spool import Full, Rooms, Spool

SILENCE = 300.0
"""Seconds without an octet from the client; RFC 5321 4.5.3.2.7: at least five minutes."""

_OCTETS = 65_536
"""The most octets that are read at once, and the replies from which on no more is read until the client has taken some."""

_TICK = 1.0
"""Seconds between two looks at the times of all connections."""

_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class _Client:
    """One connection. `until`: when it ends if nothing changes (time.monotonic)."""

    def __init__(self, sock: socket.socket, host: str) -> None:
        self.socket = sock
        self.dialogue = Dialogue(host)
        self.output = bytearray(self.dialogue.greeting)
        self.until = 0.0
        self.interest = 0
        self.waiting: Transaction | None = None  # for room
        self.spool: Spool | None = None
        self.handed: HandingOver | None = None
        self.leaving = False

    @property
    def is_idle(self) -> bool:
        return self.dialogue.is_idle and not self.output


class Receiver:
    """The receiver on listening sockets.

    channel: to the supervisor; its end means to finish. path: that of `config`. service: the socket of the service.
    accounts: the user ids whose processes may connect to a Unix socket.
    """

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        channel: socket.socket,
        config: Config,
        path: str,
        service: str,
        accounts: frozenset[int],
    ) -> None:
        self._listeners = list(listeners)
        self._channel = channel
        self._config = config
        self._path = path
        self._service = service
        self._accounts = accounts
        self._host = config.mail_host
        self._rooms = Rooms(config.limits.message_size)
        self._clients: dict[_Client, None] = {}
        self._retiring = False
        self._latest = float("inf")  # time.monotonic: when the last client is silent for too long
        self._looked_at = 0.0
        self._selector = DefaultSelector()
        self._selector.register(channel, EVENT_READ, lambda _: self._retire())
        for listener in self._listeners:
            listener.setblocking(False)
            self._selector.register(listener, EVENT_READ, self._acceptor(listener))

    def run(self) -> None:
        """Serve until the channel ends; then finish the messages that have begun."""
        while self._clients or not self._retiring:
            for key, events in self._selector.select(_TICK if self._clients else None):
                key.data(events)
            self._look()

    def _acceptor(self, listener: socket.socket) -> Callable[[int], None]:
        return lambda _: self._accept(listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, _ = listener.accept()
        except OSError as error:
            if error.errno in _SHORTAGES:
                time.sleep(0.01)  # clients wait in the backlog; do not spin
            return
        accepted.setblocking(False)
        refusal = self._refusal(accepted)
        if refusal:
            with suppress(OSError), accepted:
                accepted.send(f"421 {refusal}\r\n".encode("ascii"))
            return
        client = _Client(accepted, self._host)
        self._clients[client] = None
        self._extend(client)
        self._flush(client)

    def _refusal(self, accepted: socket.socket) -> str:
        """Return why a connection is refused; "" if it is not. A silent one makes room for it."""
        if accepted.family == socket.AF_UNIX and peer(accepted)[1] not in self._accounts:
            self._log("refused", reason=f"lmtp.accounts does not have the user {peer(accepted)[1]}")
            return "4.7.1 not for this account"
        if len(self._clients) < self._config.lmtp.max_connections:
            return ""
        silent = min((client for client in self._clients if client.is_idle), key=lambda each: each.until, default=None)
        if silent is None:
            self._log("refused", reason=f"{len(self._clients)} connections are at work")
            return "4.3.2 too many connections"
        self._end(silent, "4.3.2 making room for another connection")
        return ""

    def _extend(self, client: _Client) -> None:
        client.until = min(time.monotonic() + SILENCE, self._latest)

    # One connection.

    def _ready(self, client: _Client, events: int) -> None:
        if client not in self._clients:
            return  # closed earlier in the same round of select
        if events & EVENT_WRITE:
            self._flush(client)
        if events & EVENT_READ and client in self._clients:
            self._read(client)

    def _read(self, client: _Client) -> None:
        try:
            octets = client.socket.recv(_OCTETS)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self._close(client)
            return
        self._extend(client)
        self._act(client, client.dialogue.feed(octets))

    def _act(self, client: _Client, events: Iterable[Event] | None) -> None:
        """Do what the client's octets mean, and send what it hears."""
        while events is not None:
            following: Iterator[Event] | None = None
            for event in events:
                if isinstance(event, Reply):
                    client.output += event.octets
                elif isinstance(event, Content):
                    self._keep(client, event.octets)
                elif isinstance(event, Data):
                    following = self._admit(client, event.transaction)
                elif isinstance(event, Message):
                    following = self._hand_over(client, event.transaction)
                elif isinstance(event, Quit):
                    client.leaving = True
            events = following
        self._flush(client)

    def _admit(self, client: _Client, transaction: Transaction) -> Iterator[Event] | None:
        """Let the message come if there is room for it; otherwise the client waits for its 354."""
        client.waiting = None
        try:
            client.spool = self._rooms.spool(transaction.mail.size)
        except Full:
            client.waiting = transaction
            client.until = time.monotonic() + self._config.limits.deadline / 2
            return None
        except OSError as error:
            return self._postpone(client, reply(EXHAUSTED), str(error))
        return client.dialogue.proceed()

    def _postpone(self, client: _Client, line: str, reason: str) -> Iterator[Event]:
        self._log("postponed", reason=reason)
        client.waiting = None
        self._extend(client)
        return client.dialogue.postpone(line)

    @staticmethod
    def _keep(client: _Client, octets: bytes) -> None:
        assert client.spool is not None  # noqa: S101 # `_admit`
        try:
            client.spool.write(octets)
        except OSError:
            client.spool.is_cut = True

    def _hand_over(self, client: _Client, transaction: Transaction) -> Iterator[Event] | None:
        """Offer the complete message to the service. The time of its delivery begins here."""
        spool = client.spool
        assert spool is not None  # noqa: S101 # `_admit`
        recipients = len(transaction.recipients)
        if spool.is_cut:
            self._log("postponed", reason=f"larger than announced, and no room for more than {spool.size} octets")
            return self._answer(client, [reply(EXHAUSTED)] * recipients)
        lmtp, seconds = self._config.lmtp, self._config.limits.deadline / 2
        argv = arguments(transaction, self._path, spool.size, lmtp.trust_orcpt)
        try:
            spool.rewind()
            client.handed = handed = HandingOver(self._service, argv, spool.file, recipients, seconds)
        except OSError as error:
            self._log("postponed", reason=f"the service cannot be reached: {error.strerror or error}")
            outcome = outcome_of(error).outcome
            return self._answer(client, [reply(outcome if outcome == EXHAUSTED else CONGESTED)] * recipients)
        self._selector.register(handed.socket, EVENT_READ, lambda _: self._handed(client))
        return None

    def _handed(self, client: _Client) -> None:
        """Take the answer of the service, or of the worker that has the message."""
        if client.handed is None:
            return
        try:
            replies = client.handed.receive()
        except Lost as error:
            self._log("lost", reason=str(error))
            self._close(client)  # without a word: RFC 2033 4.2 has no reply that says so
            return
        if replies is not None:
            self._act(client, self._answer(client, replies))

    def _answer(self, client: _Client, replies: list[str]) -> Iterator[Event]:
        """Send the replies, all of them at once."""
        self._give_back(client)
        self._extend(client)
        client.leaving = client.leaving or self._retiring
        return client.dialogue.answer(replies)

    # Room, time, the end.

    def _give_back(self, client: _Client) -> None:
        """Close what belongs to the message. Its room is for those that wait."""
        if client.handed is not None:
            self._selector.unregister(client.handed.socket)
            client.handed.socket.close()
            client.handed = None
        if client.spool is not None:
            client.spool.close()
            client.spool = None
            self._looked_at = 0.0  # those that wait for room get it in this round

    def _look(self) -> None:
        """Once a second, and when room was given back: let those in that wait, oldest first, and end what takes too long."""
        now = time.monotonic()
        if now - self._looked_at < _TICK:
            return
        self._looked_at = now
        for client in list(self._clients):
            if client.waiting is not None:
                self._act(client, self._admit_late(client, client.waiting, now))
            elif client.handed is not None:
                if client.handed.until <= now:
                    self._log("lost", reason="the worker did not answer in time")
                    self._close(client)
            elif client.until <= now:
                self._end(client, "4.4.2 silent for too long")

    def _admit_late(self, client: _Client, transaction: Transaction, now: float) -> Iterator[Event] | None:
        until = client.until
        events = self._admit(client, transaction)
        if client.waiting is None:
            self._extend(client)
            return events
        client.until = until
        return self._postpone(client, reply(CONGESTED), "no room for the message") if until <= now else None

    def _flush(self, client: _Client) -> None:
        """Send what is to be sent, as far as the client takes it, and decide what to wait for."""
        if client.output:
            try:
                del client.output[: client.socket.send(client.output)]
            except BlockingIOError:
                pass
            except OSError:
                self._close(client)
                return
        if client.leaving and not client.output:
            self._close(client)
            return
        busy = client.waiting is not None or client.handed is not None or client.leaving
        reading = 0 if busy or len(client.output) > _OCTETS else EVENT_READ
        self._watch(client, reading | (EVENT_WRITE if client.output else 0))

    def _watch(self, client: _Client, interest: int) -> None:
        if interest and client.interest:
            if interest != client.interest:
                self._selector.modify(client.socket, interest, self._selector.get_key(client.socket).data)
        elif interest:
            self._selector.register(client.socket, interest, lambda events: self._ready(client, events))
        elif client.interest:
            self._selector.unregister(client.socket)
        client.interest = interest

    def _end(self, client: _Client, reason: str) -> None:
        """Close a connection on which nothing is under way that the client waits for."""
        if client.spool is None:
            with suppress(OSError):
                client.socket.send(f"421 {reason}\r\n".encode("ascii"))  # RFC 5321 3.8
        self._close(client)

    def _close(self, client: _Client) -> None:
        del self._clients[client]
        self._watch(client, 0)
        self._give_back(client)
        client.socket.close()

    def _retire(self) -> None:
        """Accept nothing more; let each client finish its message."""
        self._retiring = True
        self._selector.unregister(self._channel)  # its end says to the supervisor that this process has ended
        for listener in self._listeners:
            self._selector.unregister(listener)
            listener.close()
        self._latest = time.monotonic() + self._config.limits.deadline
        for client in list(self._clients):
            client.until = min(client.until, self._latest)
            if client.is_idle:
                self._end(client, "4.3.2 restarting")

    def _log(self, event: str, **values: object) -> None:
        with suppress(OSError):
            write_log(self._config, "lmtp", failed=True, event=event, **values)
