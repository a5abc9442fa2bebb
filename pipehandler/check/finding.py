"""What `pipehandler check` finds: one thing that is not as it should be, in words that a person can act on."""

from typing import NamedTuple


class Finding(NamedTuple):
    """code: a short fixed word for programs. what: what is wrong, with the values that were found. why: what comes of it.

    mend: one line that can be pasted: for a shell of root's or, if it is SQL, for psql as a superuser in the database of the
    mail. Where no line can do it, it begins with "# " and says what to do.
    """

    code: str
    what: str
    why: str
    mend: str
