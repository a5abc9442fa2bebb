"""The log: one line for each delivery, for the operator.

A line is `key=value` pairs with the outcome first. It holds the queue id, so that grep finds all lines about a message in the
mail log, and the message id, but no address and no content. A delivery never fails because logging fails.
"""

import os
import re
import syslog

from ..settings.config import Log

_PLAIN = re.compile(r"[!#-&(-<>-\[\]-~]+")  # no quotes, backslash, space or equals sign
_LONGEST = 400  # characters of a value


def line(outcome: str, **values: object) -> str:
    """Return one log line: the outcome, then each value that is not None; ASCII, quoted where necessary."""
    return " ".join(
        [f"outcome={outcome}", *(f"{key}={_quoted(value)}" for key, value in values.items() if value is not None)]
    )


def _quoted(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "..."
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').encode("unicode_escape").replace(b"\\\\", b"\\")
    return f'"{escaped.decode("ascii")}"'


def write(text: str, settings: Log, failed: bool) -> None:
    """Write one line to the destinations in `settings`, as an error or as information.

    Raises OSError if the file cannot be written.
    """
    if settings.syslog:
        syslog.openlog("pipehandler", syslog.LOG_PID, syslog.LOG_MAIL)
        syslog.syslog(syslog.LOG_ERR if failed else syslog.LOG_INFO, text)
    if os.isatty(2):  # run by hand
        os.write(2, text.encode("ascii", "backslashreplace") + b"\n")
    if settings.file:
        # One write to a file opened for appending: lines of several processes do not mix, and rotation needs no signal.
        file = os.open(settings.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            os.write(file, text.encode("ascii", "backslashreplace") + b"\n")
        finally:
            os.close(file)
