"""Deliver one message: parse it, then store it for its recipients in one transaction. Every ingress calls this.

A failure that the content causes, in the parser or the database, is stored as data. Any other failure is raised;
`outcome_of` translates it. Where the database is the proxy of several shards, the recipients of each shard have their own
transaction, and a failure there is their result.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pipehandler.parse.message import PARSER_VERSION

from ..mail.envelope import Envelope
from ..mail.identity import Identity
from ..mail.outcome import (
    DELIVERED,
    DUPLICATE,
    QUARANTINED,
    STORE_UNAVAILABLE,
    UNKNOWN_RECIPIENT,
    Result,
    outcome_of,
)
from ..mail.parsed import Defect, ParsedMessage
from ..runtime.deadline import Deadline
from ..runtime.stopwatch import Stopwatch
from ..settings.config import Config
from ..store.errors import StoreError
from ..store.ingest import IngestRequest, Stored
from ..store.message_store import MessageStore
from .circuit_breaker import CircuitBreaker, open_shards
from .guarded_parse import guarded_parse
from .guarded_store import guarded_store


class Session(NamedTuple):
    """The context of one delivery, made by its ingress.

    `stopwatch` enters the phases parse and store. `ingress` is the name of the entry path in delivery.ingress.
    `received_at` is an ISO 8601 time with zone; by default the time at which the delivery begins, by this host's clock.
    """

    config: Config
    store: MessageStore
    deadline: Deadline
    stopwatch: Stopwatch
    ingress: str
    received_at: str = ""

    @property
    def mail_host(self) -> str:
        """The name of this mail host, as stored in delivery.mail_host."""
        return self.config.mail_host


def deliver(
    raw: bytes, identity: Identity, envelope: Envelope, session: Session, defects: Sequence[Defect] = ()
) -> tuple[Result, ...]:
    """Store one message for all its recipients in one transaction; return a result for each of them, in order.

    `identity` is that of `raw`. `defects` are those that the ingress found before the message was parsed.
    Raises StoreError, TimeUp, MemoryError, or any unforeseen exception; after each, nothing was stored, or it is
    unknown whether the message was. On return, the session's deadline is disarmed. With several shards there is one
    transaction for each, and what fails on one of them is the result of its recipients.
    """
    return _deliver(_store, raw, identity, envelope, session, defects)


def deliver_each(
    raw: bytes, identity: Identity, envelope: Envelope, session: Session, defects: Sequence[Defect] = ()
) -> tuple[Result, ...]:
    """The same for an ingress that has a reply for each recipient: one that is locked does not hold back the others.

    All in one transaction first. If that fails, but not because the database does, each recipient in its own, within the
    same deadline; those whose transaction fails have that as their result.
    """
    return _deliver(_store_each, raw, identity, envelope, session, defects)


_Transactions = Callable[[IngestRequest, Exception | None, Session, Sequence[Defect]], tuple[Result, ...]]


def _deliver(
    store: _Transactions,
    raw: bytes,
    identity: Identity,
    envelope: Envelope,
    session: Session,
    defects: Sequence[Defect],
) -> tuple[Result, ...]:
    """Parse the message, and `store` it: for all its recipients, or for those of one shard after the other."""
    request, fault = _request(raw, identity, envelope, session, defects)
    shards = _shards(envelope, session)
    slow = False
    if not shards:
        try:
            return store(request, fault, session, defects)
        except StoreError as error:
            if not error.unrouted:
                raise
            slow = error.timed_out
            shards = session.store.route(envelope.recipients, session.config.recipients.delimiter)
            if not shards:  # no proxy any more
                raise
    results: dict[int, Result] = {}
    for shard in dict.fromkeys(shards):
        chosen = [index for index, each in enumerate(shards) if each == shard]
        try:
            session.deadline.arm()
            breaker = CircuitBreaker(session.config.state.directory, shard)
            with session.store.on_shard(shard), breaker:
                # One that is frozen would hold this delivery for the whole of its time.
                if (slow or breaker.is_open) and not session.store.answers():
                    raise StoreError(STORE_UNAVAILABLE, f"shard {shard} does not answer")
                stored = store(request._replace(envelope=_only(envelope, chosen)), fault, session, defects)
        except BaseException as error:  # what other shards have stored stays stored
            session.deadline.disarm()
            result = outcome_of(error)
            if result.outage and not results and session.store.socket is None:
                raise  # the proxy itself is down
            stored = (result,) * len(chosen)
        results.update(zip(chosen, stored, strict=True))
    return tuple(results[index] for index in range(len(shards)))


def _shards(envelope: Envelope, session: Session) -> list[int]:
    """Return the shard of each recipient, where one may be known to be away, or they may be on several; else none.

    Most databases are not the proxy of shards, and for one recipient the proxy finds the shard: neither has to be asked.
    """
    directory = session.config.state.directory
    opened = open_shards(directory)
    if not opened and not (session.store.is_proxy and len(envelope.recipients) > 1):
        return []
    shards = session.store.route(envelope.recipients, session.config.recipients.delimiter)
    if not shards:  # the database of this configuration has been another one
        for shard in opened:
            CircuitBreaker(directory, shard).reset()
    return shards


def _store_each(
    request: IngestRequest, fault: Exception | None, session: Session, defects: Sequence[Defect]
) -> tuple[Result, ...]:
    envelope = request.envelope
    try:
        return _store(request, fault, session, defects)
    except StoreError as error:
        if error.outage or error.unrouted or len(set(envelope.recipients)) == 1:
            raise
    results: list[Result] = []
    while missing := len(envelope.recipients) - len(results):
        try:
            session.deadline.arm()
            alone = request._replace(envelope=_only(envelope, [len(results)]))
            results += _store(alone, fault, session, defects)
        except BaseException as error:  # noqa: BLE001 # what is stored for the others stays stored
            session.deadline.disarm()
            result = outcome_of(error)
            for_all = result.outage or not session.deadline.remaining()
            results += [result] * (missing if for_all else 1)
    return tuple(results)


def _only(envelope: Envelope, chosen: Sequence[int]) -> Envelope:
    """Return the envelope with some of its recipients; one may occur several times, so they are chosen by index."""
    originals = envelope.original_recipients
    return envelope._replace(
        recipients=tuple(envelope.recipients[index] for index in chosen),
        original_recipients=tuple(originals[index] for index in chosen) if originals else originals,
    )


def _request(
    raw: bytes, identity: Identity, envelope: Envelope, session: Session, defects: Sequence[Defect]
) -> tuple[IngestRequest, Exception | None]:
    """Parse the message; return what is to be stored, and the exception that ended the parser."""
    received_at = session.received_at or datetime.now(UTC).isoformat()
    session.stopwatch.enter("parse")
    parsed, fault = guarded_parse(raw[identity.prepended :], identity.id, session.config, session.deadline)
    parsed.defects[:0] = defects
    session.stopwatch.enter("store")
    request = IngestRequest(
        envelope,
        identity,
        parsed,
        raw,
        received_at,
        session.mail_host,
        session.ingress,
        PARSER_VERSION,
        session.config.store.attachments,
        session.config.recipients,
    )
    return request, fault


def _store(
    request: IngestRequest, fault: Exception | None, session: Session, defects: Sequence[Defect]
) -> tuple[Result, ...]:
    stored, parsed = guarded_store(session.store, request, session.config.state.directory, defects)
    session.deadline.disarm()  # the message is stored: from here on nothing interrupts
    rows = {row.recipient: row for row in stored}
    return tuple(_result(rows.get(recipient), parsed, fault) for recipient in request.envelope.recipients)


def _result(row: Stored | None, parsed: ParsedMessage, fault: Exception | None) -> Result:
    """Return the result for one recipient. `row`: the row that the store returned for it, None if it was rejected."""
    if row is None:
        return Result(UNKNOWN_RECIPIENT, message_id=parsed.message_id, fault=fault)
    outcome = DUPLICATE if row.duplicate else DELIVERED if parsed.error is None else QUARANTINED
    return Result(outcome, row.message, parsed.error or "", message_id=parsed.message_id, fault=fault)
