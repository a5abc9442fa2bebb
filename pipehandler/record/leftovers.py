"""What killed processes leave behind in the state directory, removed by those that come later."""

import os
import re
import time
from contextlib import suppress

_TEMPORARY = r"journal\.sqlite\.(\d+)(-\w+)?"
"""A journal under the name that it has while a process creates it: its number, and what SQLite appends."""

_MARK = r"(parsing|storing)-[0-9a-f-]{36}"
"""The mark of a message that is being parsed, or that the database failed at (delivery/guarded_parse.py, delivery/guarded_store.py)."""

_MARK_SECONDS = 86_400
"""Age after which the message will not come again: Postfix tries at least every maximal_backoff_time (4000 s by default). If it
comes all the same, one more attempt dies."""

_TEMPORARY_SECONDS = 3600
"""Age after which the process that creates a journal is dead, even if its number is in use again."""


def remove_leftovers(directory: str) -> None:
    """Remove temporary journals whose process is dead, and marks of messages that cannot come again."""
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        if not name.startswith(("journal.sqlite.", "parsing-", "storing-")):
            continue  # hardly ever is there one: the expressions are compiled when they are needed
        temporary = re.fullmatch(_TEMPORARY, name)
        if temporary is None and not re.fullmatch(_MARK, name):
            continue
        path = os.path.join(directory, name)
        with suppress(OSError):
            age = time.time() - os.stat(path).st_mtime
            if temporary is None:
                remove = age > _MARK_SECONDS
            else:
                remove = age > _TEMPORARY_SECONDS or not os.path.exists(f"/proc/{temporary[1]}")
            if remove:
                os.unlink(path)
