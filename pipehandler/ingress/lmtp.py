"""The ingress LMTP: one complete message from the receiver (lmtp/), with the envelope in argv as pipe(8) passes it.

It differs from the pipe in three ways. Each recipient has a result. The final dot proves that the message came whole. And
a resident worker always delivers it: there is no process of Postfix that could deliver it cold.
"""

import re
from collections.abc import Sequence

from ..delivery.circuit_breaker import CircuitBreaker
from ..delivery.deliver import Session, deliver_each
from ..handover import option
from ..mail.envelope import from_argv
from ..mail.identity import identify
from ..mail.outcome import Result, outcome_of
from ..mail.parsed import Defect
from ..record.attempt import Attempt
from ..runtime import limits
from ..runtime.deadline import Deadline
from .single import Finished, Resident, read_message

INGRESS = "lmtp"

LOCK_SECONDS = 1.0
"""How long a message waits for a lock that one of its recipients needs, before the others are stored without it."""


# cleanup(8) of Postfix: "by HOST (MAIL_NAME, from userid N)" for sendmail(1), "by HOST (MAIL_NAME)" for a bounce.
_LOCAL = re.compile(rb"Received: by [^\s()]+ \([^()\n]*\)\n[ \t]id ([0-9A-Za-z]{1,32}); ")


def local_queue_id(raw: bytes) -> str:
    """Return the queue id in the first field of a message that this host's Postfix made itself; "" if there is none.

    lmtp(8) forwards IDENT only for mail that came by SMTP, whose first field has another form.
    """
    found = _LOCAL.match(raw)
    return found[1].decode("ascii") if found else ""


def run(argv: Sequence[str], started: float, file: int, resident: Resident) -> Finished:
    """Deliver the message on the descriptor `file`; the result has one entry for each recipient, whatever happens.

    `argv`: the envelope. `started`: time.monotonic at the final dot.
    """
    attempt = Attempt(INGRESS, "resident", option(argv, "queue-id"), started)
    attempt.config, store, attempt.journal = resident
    results: Sequence[Result]
    recipients = len(argv) - argv.index("--") - 1
    deadline = None
    try:
        deadline = Deadline(attempt.config.limits.deadline, started)
        limits.apply(attempt.config.limits)
        attempt.begin()
        attempt.recipients = recipients
        envelope = from_argv(argv)
        with CircuitBreaker(attempt.config.state.directory):
            raw = read_message(file, attempt)
            envelope = envelope._replace(queue_id=envelope.queue_id or local_queue_id(raw))
            store.remaining = deadline.remaining
            store.step = deadline.step
            store.longest_lock = LOCK_SECONDS
            session = Session(attempt.config, store, deadline, attempt.stopwatch, INGRESS)
            defects = [Defect("envelope-value", name) for name in envelope.left_out]
            results = deliver_each(raw, identify(raw), envelope, session, defects)
    except BaseException as error:  # noqa: BLE001 # the outcome table decides what it means
        if deadline is not None:
            deadline.disarm()
        results = [outcome_of(error)] * recipients
    finally:
        store.longest_lock = float("inf")
    return Finished(results, attempt, store, keep_open=True)
