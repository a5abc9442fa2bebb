"""What the commands share that change what is stored: a word about missing rights, and progress on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from pipehandler.store import Store, StoreError
from pipehandler.sysexits import EX_UNAVAILABLE

from .command import Failure, opened_store

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""

_HINTS = {
    "42501": "the role may not do this; connect with one that is in pipehandler_upkeep (database.admin_conninfo)",
    "42883": "the schema is older than this program; run `pipehandler migrate`",
}


@contextmanager
def opened_for_upkeep(context: click.Context) -> Iterator[Store]:
    """The store that the options name, for a role that may change it."""
    with opened_store(context) as store:
        try:
            yield store
        except StoreError as error:
            if hint := hint_for(error.sqlstate):
                raise Failure(f"database: {error} (SQLSTATE {error.sqlstate}); {hint}", EX_UNAVAILABLE) from error
            raise


def hint_for(sqlstate: str) -> str:
    """What to do about an error of the database, where that is known."""
    return _HINTS.get(sqlstate, "")


class Progress:
    """Lines as they come, and below them a bar, if there is one."""

    def __init__(self, advance: Callable[[int], object] | None = None) -> None:
        self._advance = advance

    def say(self, line: str) -> None:
        """Print a line."""
        if self._advance:
            click.echo("\r\x1b[K", nl=False, err=True)  # the line is where the bar was
        click.echo(line)

    def advance(self, steps: int = 1) -> None:
        """So much more is done."""
        if self._advance:
            self._advance(steps)


@contextmanager
def progress(length: Callable[[], int], wanted: bool = True) -> Iterator[Progress]:
    """A bar of `length` steps on stderr, if that is a terminal."""
    if not (wanted and sys.stderr.isatty()):
        yield Progress()
        return
    with click.progressbar(length=length(), file=sys.stderr) as bar:
        bar.render_progress()
        yield Progress(bar.update)
