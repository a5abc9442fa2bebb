"""The ingress maildir: one message from a Maildir, on a descriptor, with the envelope in the fields that Postfix prepended.

It differs from the pipe in one way. Postfix has finished with the message, so what the pipe would bounce, or defer until
Postfix bounces it, has to be said: `failed` results leave the message with the operator, in failed/.
"""

from collections.abc import Sequence

from ..delivery.circuit_breaker import CircuitBreaker
from ..delivery.deliver import Session, deliver
from ..handover import option
from ..mail.envelope import Envelope, lower_domain
from ..mail.envelope_fields import read_fields
from ..mail.identity import identify
from ..mail.outcome import UNSTORABLE, Result, Undelivered, folded, outcome_of
from ..record.attempt import Attempt
from ..runtime import limits
from ..runtime.deadline import Deadline
from ..store.errors import DataRefused
from .single import Finished, Resident, read_message

INGRESS = "maildir"


def run(argv: Sequence[str], started: float, file: int, resident: Resident) -> Finished:
    """Deliver the message on the descriptor `file`. Whatever happens becomes the result.

    argv: the name of the file as --queue-id, for the log and the journal. started: time.monotonic when it was opened.
    """
    attempt = Attempt(INGRESS, "resident", option(argv, "queue-id"), started)
    attempt.config, store, attempt.journal = resident
    deadline = None
    try:
        deadline = Deadline(attempt.config.limits.deadline, started)
        limits.apply(attempt.config.limits)
        attempt.begin()
        with CircuitBreaker(attempt.config.state.directory):
            raw = read_message(file, attempt)
            envelope = envelope_of(raw)
            attempt.recipients = len(envelope.recipients)
            store.remaining = deadline.remaining
            store.step = deadline.step
            session = Session(attempt.config, store, deadline, attempt.stopwatch, INGRESS)
            result = folded(deliver(raw, identify(raw), envelope, session))
    except BaseException as error:  # noqa: BLE001 # the outcome table decides what it means
        if deadline is not None:
            deadline.disarm()
        result = _final(error)
    return Finished([result], attempt, store, keep_open=True)


def envelope_of(raw: bytes) -> Envelope:
    """Return the envelope from the fields that Postfix prepended; only those at the very top count.

    Raises Undelivered (UNSTORABLE) if they do not name a recipient.
    """
    fields = read_fields(raw)
    recipient = fields.recipient or fields.original_recipient
    if not recipient:
        raise Undelivered(UNSTORABLE, "it does not begin with Delivered-To or X-Original-To")
    original = fields.original_recipient
    return Envelope(fields.sender or "", (lower_domain(recipient),), (original,) if original else ())


def _final(error: BaseException) -> Result:
    """Return the result of a failure; the database refuses this envelope at every attempt (guarded_store)."""
    result = outcome_of(error)
    return result._replace(outcome=UNSTORABLE) if isinstance(error, DataRefused) else result
