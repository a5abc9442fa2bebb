"""Parsing one message on a host that has to survive it: within its time and memory, and never dying of it twice.

What the content does to the parser becomes data: a ParsedMessage without anything but an error. What is not the content's doing
(a module that cannot be loaded, the end of the delivery's time) is raised.
"""

from collections.abc import Callable
from typing import NamedTuple

from pipehandler.parse.message import parse

from ..mail.parsed import ParsedMessage
from ..record.log import described
from ..runtime.child import survives
from ..runtime.deadline import Deadline, TimeUp
from ..settings.config import Config
from .survival import Mark


class Parsed(NamedTuple):
    """What a message says; `fault`: the exception that ended the parser, if there was one."""

    parsed: ParsedMessage
    fault: Exception | None = None


def read(raw: bytes, message: str, config: Config, deadline: Deadline, careful: bool = False) -> Parsed:
    """The decoded view of the message with the id `message`; where it could not be had, a ParsedMessage that says why.

    `careful`: a child process tries first, as it does for a message whose last attempt died while it was parsed.
    """
    seconds = config.limits.parse_seconds
    trusted = tuple(map(str.lower, config.authentication.trusted_authserv_ids))

    def parsed() -> ParsedMessage:
        return parse(raw, trusted_authserv_ids=trusted)

    try:
        with Mark(config.state.directory, message) as mark:
            if (careful or mark.suspicious) and (why := _deadly(parsed, min(seconds, deadline.remaining()))):
                return Parsed(ParsedMessage(error=why))
            with deadline.step(seconds):
                return Parsed(parsed())
    except TimeUp:
        if not deadline.remaining():
            raise
        return Parsed(ParsedMessage(error=f"not parsed within {seconds} s"))
    except MemoryError:
        return Parsed(ParsedMessage(error=f"not parsed within {config.limits.memory} octets of memory"))
    except Exception as error:
        if isinstance(error, (OSError, ImportError)) or type(error) is LookupError:
            raise  # a module or a codec that cannot be loaded is not the message's doing
        return Parsed(ParsedMessage(error=described(error)), error)


def _deadly(parsed: Callable[[], ParsedMessage], seconds: float) -> str | None:
    """Why a message should not be parsed in this process; None if it may be."""
    try:
        survived = survives(parsed, seconds)
    except OSError as error:
        return f"its parsing has killed or may kill, and no child could be had to try: {described(error)}"
    return None if survived else "the parser died of this message"
