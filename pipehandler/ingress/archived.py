"""One message from an archive: its envelope, when it was received, and its way through the core.

The core is that of mail from pipe(8), so a message that is already stored is a duplicate. One difference: a message that
was stored before its address had a lease is one, too. For live mail it is not, or the new holder of an address would not
get what is sent to it again.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pipehandler.parse import date

from ..delivery.deliver import Session, deliver
from ..mail.envelope import Envelope, lower_domain
from ..mail.envelope_fields import read_fields
from ..mail.header_fields import DECIDING, Header, top, unfolded
from ..mail.identity import identify
from ..mail.outcome import DUPLICATE, MISCONFIGURED, STORE_FULL, STORE_UNAVAILABLE, Result, folded, outcome_of
from ..runtime import limits
from ..runtime.deadline import Deadline, TimeUp
from ..runtime.stopwatch import Stopwatch
from ..settings.config import Config
from ..store.connection import Store
from ..store.errors import INSUFFICIENT_PRIVILEGE, StoreError, concerns_data
from ..store.ids import days
from ..store.message_store import MessageStore

INGRESS = "import"

_FIELDS = 200  # at the top of a header that are looked at
_USUAL = DECIDING | frozenset(
    b"received return-path delivered-to x-original-to envelope-to mime-version list-id resent-from resent-date status"
    b" x-status x-mozilla-status x-uid errors-to comments keywords dkim-signature authentication-results".split()
)
"""Fields by which a message is known; a file of settings has lines that look like fields, too."""

_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)

_STORED = """
SELECT d.recipient, d.fingerprint
  FROM (SELECT pipehandler.stored_recipient(given) AS recipient FROM unnest(%(recipients)s::text[]) AS given) AS r
 CROSS JOIN LATERAL pipehandler.lease_of(r.recipient, %(delimiter)s) AS l
  JOIN pipehandler.delivery d ON d.recipient COLLATE "C" = r.recipient
 WHERE coalesce(d.lease, 0) IN (0, coalesce(l.lease, 0))
   AND (d.fingerprint = ANY (%(fingerprints)s) OR d.fingerprint = ANY (%(former)s) AND d.fingerprint_version = 1)
"""
_FAILED = "SELECT FROM pipehandler.message m WHERE m.day = ANY (%s::date[]) AND m.id = %s::uuid AND m.state = 'failed'"
_STOPS = frozenset({STORE_UNAVAILABLE, STORE_FULL, MISCONFIGURED})


class Refused(Exception):
    """A path or a message that cannot be imported; the text says why and what to do."""


class Receipt(NamedTuple):
    """When a message was received, for information only; and what says so: its `Received` field, its mbox line, or its file."""

    time: datetime
    source: str


def receipt(raw: bytes, separator: str = "", modified: float | None = None) -> Receipt:
    """When `raw` was received: by its newest Received field, which has a zone; else by the time in its mbox line (UTC where
    that names no zone, RFC 4155); else by the time of its file. A time before 1970 or in the future says nothing.

    separator: the time in the mbox line. modified: when the file was written, in seconds since 1970; None: unknown.
    """
    now = datetime.now(UTC)
    candidates = [("Received", _received(raw)), ("mbox line", date.read(separator))]
    for source, found in candidates:
        if found and _EARLIEST <= found.instant <= now + timedelta(days=1):
            return Receipt(found.instant, source)
    if modified is not None and 0 <= modified <= now.timestamp():
        return Receipt(datetime.fromtimestamp(modified, UTC), "file")
    return Receipt(now, "now")


def check(raw: bytes) -> None:
    """Raise Refused if `raw` is no message: if none of its first lines is a field that messages have."""
    header = Header(raw, top(raw), _FIELDS)
    if not any(place.name.lower() in _USUAL for place in header):
        raise Refused(
            "it has no header field of a message; if it is one, put Return-Path, Delivered-To and an empty line above it"
        )


def envelope(raw: bytes, recipients: Sequence[str] = (), sender: str | None = None) -> Envelope:
    """Return the envelope of `raw`: as given, else from the fields that Postfix prepended; the sender is else the null sender.

    Raises Refused if there is no recipient.
    """
    fields = read_fields(raw)
    if sender is None:
        sender = fields.sender or ""
    if recipients:
        return Envelope(sender, tuple(dict.fromkeys(map(lower_domain, recipients))))
    recipient = fields.recipient or fields.original_recipient
    if not recipient:
        raise Refused("it does not begin with Delivered-To or X-Original-To; use --recipient")
    original = fields.original_recipient
    return Envelope(sender, (lower_domain(recipient),), (original,) if original else ())


def bring_in(
    readings: Sequence[bytes], envelope: Envelope, received_at: datetime, config: Config, store: MessageStore
) -> Result:
    """Deliver one message, whatever the policy for its recipient: the caller has decided that. Uses SIGALRM.

    readings: what its octets may be, the likeliest first. One that a recipient already has comes before that, so that no
    message is stored in two readings.
    """
    started = time.monotonic()
    config = config._replace(recipients=config.recipients._replace(policy="any", expired="store"))
    with limits.temporarily(config.limits):
        try:
            raw = readings[0] if len(readings) == 1 else _stored_reading(readings, envelope, config, store)
            deadline = Deadline(config.limits.deadline, started)
            session = Session(config, store, deadline, Stopwatch(started), INGRESS, received_at.isoformat())
            return folded(deliver(raw, identify(raw), envelope, session))
        except (Exception, TimeUp) as error:  # noqa: BLE001 # the outcome table decides what it means
            return outcome_of(error)


def is_stored(readings: Sequence[bytes], envelope: Envelope, config: Config, store: Store) -> bool | None:
    """Whether each recipient has the message in one of its readings; None for a role that may not know. Raises StoreError."""
    stored = _stored(readings, envelope, config, store)
    return None if stored is None else {recipient for recipient, _ in stored} >= set(envelope.recipients)


def unfit(result: Result) -> bool:
    """Whether the database refuses the envelope of this message; what was read from the message was left out already."""
    return result.outcome in _STOPS and concerns_data(result.sqlstate) and not result.outage


def stops(result: Result) -> bool:
    """Whether the import must stop, because no other message would be stored either."""
    return result.outcome in _STOPS and not unfit(result)


def advice(readings: Sequence[bytes], result: Result, store: Store) -> str:
    """Return what to do about a message that is a duplicate of one in quarantine, or ""."""
    if result.outcome != DUPLICATE:
        return ""
    found = []
    with suppress(StoreError):  # the message is stored; a role that may only store need not see more
        found = store.rows(_FAILED, [days(store, result.message), result.message])
    if not found:
        return ""
    if result.message in (identify(reading).id for reading in readings):
        return f"in quarantine; `pipehandler reparse {result.message}` tries again"
    return f"another form of it is in quarantine; to store this one, `pipehandler quarantine drop {result.message}` comes first"


def _received(raw: bytes) -> date.Date | None:
    """The time of the newest Received field, which is the topmost one (RFC 5321 4.4)."""
    for place in Header(raw, top(raw), _FIELDS):
        if place.name.lower() == b"received":
            body = unfolded(raw[place.start : place.end]).decode("ascii", "replace")
            return date.read(body.rpartition(";")[2])
    return None


def _stored_reading(readings: Sequence[bytes], envelope: Envelope, config: Config, store: Store) -> bytes:
    """The reading that a recipient already has, else the likeliest; a role that may only store gets the likeliest."""
    stored = {fingerprint for _, fingerprint in _stored(readings, envelope, config, store) or ()}
    for reading in readings:
        identity = identify(reading)
        if stored & {identity.fingerprint, identity.former_fingerprint}:
            return reading
    return readings[0]


def _stored(
    readings: Sequence[bytes], envelope: Envelope, config: Config, store: Store
) -> list[tuple[str, bytes]] | None:
    """The recipients that have one of the readings, with its fingerprint; None for a role that may not know."""
    identities = [identify(reading) for reading in readings]
    parameters = {
        "recipients": list(envelope.recipients),
        "delimiter": config.recipients.delimiter,
        "fingerprints": [identity.fingerprint for identity in identities],
        "former": [identity.former_fingerprint for identity in identities],
    }
    try:
        return store.rows(_STORED, parameters, row=lambda recipient, fingerprint: (recipient, bytes(fingerprint)))
    except StoreError as error:
        if error.sqlstate != INSUFFICIENT_PRIVILEGE:
            raise
        return None
