"""What `pipehandler check` reports: one problem, its effect, and a command that fixes it."""

from typing import NamedTuple


class Finding(NamedTuple):
    """One problem.

    code: a short fixed word for programs. what: the problem, with the values that were found. detail: its effect.
    fix: one line to paste: for a root shell or, if it is SQL, for psql as a superuser in the database that holds the mail. If no
    command can do it, the line begins with "# " and says what to do.
    """

    code: str
    what: str
    detail: str
    fix: str
