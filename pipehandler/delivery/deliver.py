"""deliver(raw, envelope, ...) -> Result: the story of one message, from top to bottom.

Every ingress calls this one function. It is total: whatever happens, it returns a Result whose outcome is in the outcome
table. What the content of a message does to the parser becomes data; trouble that nobody foresaw is temporary.
"""

import errno
from dataclasses import replace

from pipehandler.parse.message import PARSER_VERSION

from ..mail import outcome
from ..mail.envelope import Envelope
from ..mail.identity import identify
from ..mail.outcome import Result
from ..mail.parsed import Defect, ParsedMessage
from ..record.log import described
from ..runtime.deadline import Deadline, TimeUp
from ..runtime.stopwatch import Stopwatch
from ..settings.config import Config
from ..store.connection import DataRefused, Store, Stored, StoreError
from ..store.submission import Submission
from .guarded_parse import guarded_parse

EXHAUSTED_ERRORS = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN})
"""Errors of the operating system that mean: out of memory, descriptors or processes (EX_OSERR)."""


def deliver(
    raw: bytes,
    envelope: Envelope,
    config: Config,
    store: Store,
    deadline: Deadline,
    stopwatch: Stopwatch,
    *,
    ingress: str,
    mail_host: str,
    received_at: str,
    short: bool = False,
) -> Result:
    """Store one message for all its recipients, in one transaction, and tell how it went.

    `stopwatch` goes through the phases parse and store; `received_at` is an ISO 8601 time with zone; `short` says that the
    message has fewer octets than Postfix told.
    """
    try:
        stopwatch.enter("parse")
        identity = identify(raw)
        parsed, fault = guarded_parse(raw[identity.prepended :], identity.id, config, deadline)
        if short:
            parsed.defects.insert(0, Defect("shorter-than-told"))
        submission = Submission(
            envelope,
            identity,
            parsed,
            raw,
            received_at,
            mail_host,
            ingress,
            PARSER_VERSION,
            config.store.attachments,
            config.recipients,
        )
        stopwatch.enter("store")
        try:
            stored = store.ingest(submission)
        except (DataRefused, MemoryError) as refusal:
            # No message may be able to defer itself for ever: once more, with nothing that was read from it.
            parsed = ParsedMessage(error=_refused(refusal), defects=parsed.defects[:short])
            stored = store.ingest(replace(submission, parsed=parsed))
        deadline.disarm()
    except StoreError as error:
        return Result(error.outcome, reason=str(error), sqlstate=error.sqlstate, outage=error.outage)
    except TimeUp:
        return Result(outcome.DEADLINE, reason=f"not finished within {config.limits.deadline} s")
    except MemoryError:
        return Result(outcome.EXHAUSTED, reason="out of memory")
    except OSError as error:
        exhausted = error.errno in EXHAUSTED_ERRORS
        how = outcome.EXHAUSTED if exhausted else outcome.FAULT
        return Result(how, reason=described(error), fault=None if exhausted else error)
    except Exception as error:
        return Result(outcome.FAULT, reason=described(error), fault=error)
    return _committed(stored, len(set(envelope.recipients)) - len(stored), parsed, fault)


def _committed(stored: list[Stored], rejected: int, parsed: ParsedMessage, fault: Exception | None) -> Result:
    reasons = [f"{rejected} of {rejected + len(stored)} recipients have no lease that lives"] if rejected else []
    if not stored:
        return Result(outcome.UNKNOWN_RECIPIENT, reason=reasons[0], message_id=parsed.message_id, fault=fault)
    if parsed.error is not None:
        reasons.append(parsed.error)
    if all(each.duplicate for each in stored):
        how = outcome.DUPLICATE
    elif parsed.error is not None:
        how = outcome.QUARANTINED
    else:
        how = outcome.DELIVERED
    return Result(how, stored[0].message, "; ".join(reasons), message_id=parsed.message_id, fault=fault)


def _refused(refusal: DataRefused | MemoryError) -> str:
    if isinstance(refusal, DataRefused):
        return f"{refusal} SQLSTATE {refusal.sqlstate}"
    return "what was read from the message does not fit into the memory"
