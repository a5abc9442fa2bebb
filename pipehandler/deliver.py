"""deliver(raw, envelope, ...) -> Result: the story of one message, from top to bottom.

Every ingress calls this one function. It is total: whatever happens, it returns a Result whose outcome is in the outcome
table. What the content of a message does to the parser becomes data; trouble that nobody foresaw is temporary.
"""

import errno
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from . import outcome
from .config import Config
from .deadline import Deadline, TimeUp
from .document import Defect, Document
from .envelope import Envelope
from .fingerprint import identify
from .message import PARSER_VERSION, parse
from .outcome import Outcome
from .store import DataRefused, Store, Stored, StoreError
from .submission import Submission
from .survival import Mark, survives

EXHAUSTED_ERRORS = frozenset({errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EAGAIN})
"""Errors of the operating system that mean: out of memory, descriptors or processes (EX_OSERR)."""


class Result(NamedTuple):
    """How a delivery ended. message: the id of what is stored, else "". reason and sqlstate: for the log alone.
    message_id: the Message-ID, as far as it is known. outage: the database would have failed any other message, too."""

    outcome: Outcome
    message: str = ""
    reason: str = ""
    sqlstate: str = ""
    message_id: str | None = None
    outage: bool = False


def deliver(
    raw: bytes,
    envelope: Envelope,
    config: Config,
    store: Store,
    deadline: Deadline,
    *,
    ingress: str,
    mail_host: str,
    received_at: str,
    short: bool = False,
) -> Result:
    """Store one message for all its recipients, in one transaction, and tell how it went.

    `received_at` is an ISO 8601 time with zone; `short` says that the message has
    fewer octets than Postfix told.
    """
    try:
        identity = identify(raw)
        document = _read(raw, identity.id, config, deadline)
        if short:
            document.defects.insert(0, Defect("shorter-than-told"))
        submission = Submission(
            envelope, identity, document, raw, received_at, mail_host, ingress, PARSER_VERSION, config.store.attachments
        )
        try:
            stored = store.ingest(submission)
        except (DataRefused, MemoryError) as refusal:
            # No message may be able to defer itself for ever: once more, with nothing that was read from it.
            document = Document(error=_refused(refusal), defects=document.defects[:short])
            stored = store.ingest(replace(submission, document=document))
        deadline.disarm()
    except StoreError as error:
        return Result(error.outcome, reason=str(error), sqlstate=error.sqlstate, outage=error.outage)
    except TimeUp:
        return Result(outcome.DEADLINE, reason=f"not finished within {config.limits.deadline} s")
    except MemoryError:
        return Result(outcome.EXHAUSTED, reason="out of memory")
    except OSError as error:
        exhausted = error.errno in EXHAUSTED_ERRORS
        return Result(outcome.EXHAUSTED if exhausted else outcome.FAULT, reason=described(error))
    except Exception as error:
        return Result(outcome.FAULT, reason=described(error))
    return _committed(stored, document)


def _committed(stored: list[Stored], document: Document) -> Result:
    if all(each.duplicate for each in stored):
        how = outcome.DUPLICATE
    elif document.error is not None:
        how = outcome.QUARANTINED
    else:
        how = outcome.DELIVERED
    return Result(how, stored[0].message, document.error or "", message_id=document.message_id)


def _refused(refusal: DataRefused | MemoryError) -> str:
    if isinstance(refusal, DataRefused):
        return f"{refusal} SQLSTATE {refusal.sqlstate}"
    return "what was read from the message does not fit into the memory"


def _read(raw: bytes, message: str, config: Config, deadline: Deadline) -> Document:
    """The decoded view of the message; where it could not be had, a Document that says why."""
    seconds = config.limits.parse_seconds
    trusted = tuple(map(str.lower, config.authentication.trusted_authserv_ids))

    def parsed() -> Document:
        return parse(raw, trusted_authserv_ids=trusted)

    try:
        with Mark(config.state.directory, message) as mark:
            if mark.suspicious and (why := _suspicion(parsed, min(seconds, deadline.remaining()))):
                return Document(error=why)
            with deadline.step(seconds):
                return parsed()
    except TimeUp:
        if not deadline.remaining():
            raise
        return Document(error=f"not parsed within {seconds} s")
    except MemoryError:
        return Document(error=f"not parsed within {config.limits.memory} octets of memory")
    except Exception as error:
        if isinstance(error, (OSError, ImportError)) or type(error) is LookupError:
            raise  # a module or a codec that cannot be loaded is not the message's doing
        return Document(error=described(error))


def _suspicion(parsed: Callable[[], Document], seconds: float) -> str | None:
    """Why a message should not be parsed here whose earlier attempt died while it was parsed; None if it may be."""
    try:
        survived = survives(parsed, seconds)
    except OSError as error:
        return f"an earlier attempt died while it parsed this message, and no child could be had to try: {described(error)}"
    return None if survived else "the parser died of this message, in this attempt and in an earlier one"


def described(error: BaseException) -> str:
    """The kind of an error and the place where it was raised; not its text, which may quote the message."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f" at {place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}" if place else ""
    number = f" ({errno.errorcode.get(error.errno or 0, error.errno)})" if isinstance(error, OSError) else ""
    return f"{type(error).__name__}{number}{where}"
