"""The ingress import: messages from files, for repairing and moving mail.

A file is one message, or an mbox; a folder is a Maildir, or has *.eml files somewhere below it. The envelope comes from the
caller, or from the fields that Postfix prepended. The message goes through the same core as one from pipe(8), so a message
that is already stored is a duplicate.
"""

import errno
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

from ..delivery.deliver import Session, deliver
from ..mail.envelope import Envelope, lower_domain
from ..mail.envelope_fields import read_fields
from ..mail.identity import identify
from ..mail.outcome import DUPLICATE, MISCONFIGURED, STORE_FULL, STORE_UNAVAILABLE, Result, folded, outcome_of
from ..runtime import limits
from ..runtime.deadline import Deadline, TimeUp
from ..runtime.stopwatch import Stopwatch
from ..settings.config import Config
from ..store.connection import Store
from ..store.errors import INSUFFICIENT_PRIVILEGE, StoreError, concerns_data
from . import mbox

INGRESS = "import"

_STORED = """
SELECT d.fingerprint
  FROM pipehandler.delivery d
 WHERE d.recipient COLLATE "C" = ANY (SELECT pipehandler.stored_recipient(r) FROM unnest(%s::text[]) AS r)
   AND d.fingerprint = ANY(%s)
"""
_STOPS = frozenset({STORE_UNAVAILABLE, STORE_FULL, MISCONFIGURED})


class Refused(Exception):
    """A path or a message that cannot be imported; the text says why and what to do."""


class File(NamedTuple):
    """One file: its path; whether it was found in a folder instead of named by the caller; a display name, if not the path."""

    path: str
    found: bool = False
    alias: str = ""

    @property
    def name(self) -> str:
        """The display name."""
        return self.alias or self.path


class Message(NamedTuple):
    """One message: the name of its file, with a number if it is an mbox; its bytes, or why it is refused.

    readings: what its bytes may be, the likeliest first; more than one only for some in an mbox. doubts: see mbox.Entry.
    """

    name: str
    readings: tuple[bytes, ...] = ()
    refused: str = ""
    doubts: tuple[str, ...] = ()


def files(path: str) -> list[File]:
    """List the files that `path` stands for, in order. Raises Refused."""
    try:
        if not os.path.isdir(path):
            os.stat(path)
            return [File(path)]
        if all(os.path.isdir(os.path.join(path, name)) for name in ("cur", "new", "tmp")):
            folders = [os.path.join(path, name) for name in ("cur", "new")]
            return [File(os.path.join(each, name), True) for each in folders for name in _names(each) if name[0] != "."]
        return _eml_files(path)
    except OSError as error:
        raise Refused(_why(error)) from error


def messages(file: File, largest: int) -> Iterator[Message]:
    """Read the messages in a file; one that cannot be read, or has more than `largest` octets, comes without its bytes."""
    try:
        # A FIFO must not keep us waiting; and the owner of a folder may link to what only we may read.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if file.found else 0)
        with open(os.open(file.path, flags), "rb") as stream:
            seen = os.fstat(stream.fileno())
            if not stat.S_ISREG(seen.st_mode):
                yield Message(file.name, refused="not a regular file; use - to read a message or an mbox from stdin")
            elif not seen.st_size:
                yield Message(file.name, refused="the file is empty")
            elif not file.path.lower().endswith(".eml") and mbox.is_mbox(stream.fileno()):
                yield from _mbox(file.name, stream.fileno(), largest)
            elif seen.st_size > largest:
                yield Message(file.name, refused=_too_large(seen.st_size, largest))
            else:
                yield Message(file.name, (stream.read(),))
    except OSError as error:
        yield Message(file.name, refused=_why(error))
    except MemoryError:
        yield Message(file.name, refused="it does not fit into memory (limits.memory)")


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


def bring_in(readings: Sequence[bytes], envelope: Envelope, config: Config, store: Store) -> Result:
    """Deliver one message, whatever the policy for its recipient: the caller has decided that. Uses SIGALRM.

    readings: what its octets may be, the likeliest first. One that a recipient already has comes before that, so that no
    message is stored in two readings.
    """
    started = time.monotonic()
    config = config._replace(recipients=config.recipients._replace(policy="any", expired="store"))
    with limits.temporarily(config.limits):
        try:
            raw = readings[0] if len(readings) == 1 else _stored_reading(readings, envelope, store)
            session = Session(config, store, Deadline(config.limits.deadline, started), Stopwatch(started), INGRESS)
            return folded(deliver(raw, identify(raw), envelope, session))
        except (Exception, TimeUp) as error:  # noqa: BLE001 # the outcome table decides what it means
            return outcome_of(error)


def unfit(result: Result) -> bool:
    """Whether the database refuses the envelope of this message; what was read from the message was left out already."""
    return result.outcome in _STOPS and concerns_data(result.sqlstate)


def stops(result: Result) -> bool:
    """Whether the import must stop, because no other message would be stored either."""
    return result.outcome in _STOPS and not unfit(result)


def advice(readings: Sequence[bytes], result: Result, store: Store) -> str:
    """Return what to do about a message that is a duplicate of one in quarantine, or ""."""
    if result.outcome != DUPLICATE:
        return ""
    found = []
    with suppress(StoreError):  # the message is stored; a role that may only store need not see more
        found = store.rows("SELECT FROM pipehandler.message WHERE id = %s AND state = 'failed'", [result.message])
    if not found:
        return ""
    if result.message in (identify(reading).id for reading in readings):
        return f"in quarantine; `pipehandler reparse {result.message}` tries again"
    return f"another form of it is in quarantine; to store this one, `pipehandler quarantine drop {result.message}` comes first"


def _stored_reading(readings: Sequence[bytes], envelope: Envelope, store: Store) -> bytes:
    """The reading that a recipient already has, else the likeliest; a role that may only store gets the likeliest."""
    fingerprints = [identify(reading).fingerprint for reading in readings]
    try:
        stored = store.values(_STORED, [list(envelope.recipients), fingerprints], of=bytes)
    except StoreError as error:
        if error.sqlstate != INSUFFICIENT_PRIVILEGE:
            raise
        stored = []
    return next((reading for reading, each in zip(readings, fingerprints, strict=True) if each in stored), readings[0])


def _names(folder: str) -> list[str]:
    return sorted(os.listdir(folder))


def _eml_files(folder: str) -> list[File]:
    def failed(error: OSError) -> None:
        raise error

    found = [
        File(os.path.join(inner, name), True)
        for inner, _, names in os.walk(folder, onerror=failed)
        for name in names
        if name.lower().endswith(".eml")
    ]
    if not found:
        raise Refused("neither a Maildir nor a folder with *.eml files")
    return sorted(found)


def _mbox(name: str, descriptor: int, largest: int) -> Iterator[Message]:
    for number, entry in enumerate(mbox.read(descriptor, largest), 1):
        refused = "" if entry.size else "nothing below its From line"
        if entry.size > largest:
            refused = _too_large(entry.size, largest)
        yield Message(f"{name}#{number}", entry.readings, refused, entry.doubts)


def _too_large(size: int, largest: int) -> str:
    return f"{size} octets, more than limits.message_size = {largest}"


def _why(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "a symbolic link in a folder; name its target"
    return os.strerror(error.errno or 0)
