"""What the commands share for which not every role has the right: a word about it, and progress on a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from pipehandler.mail.sysexits import EX_UNAVAILABLE
from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError, hint
from pipehandler.store.roles import MAINTENANCE

from .command import Failure, opened_store

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells have it."""



@contextmanager
def opened_for_upkeep(context: click.Context) -> Iterator[Store]:
    """The store that the options name, for a role that may change it."""
    with opened_store(context) as store, hinted():
        yield store


@contextmanager
def hinted(group: str = MAINTENANCE) -> Iterator[None]:
    """Say what to do about an error of the database, where that is known. group: the role that has the right."""
    try:
        yield
    except StoreError as error:
        if advice := hint_for(error.sqlstate, group):
            raise Failure(f"database: {error} (SQLSTATE {error.sqlstate}); {advice}", EX_UNAVAILABLE) from error
        raise


def hint_for(sqlstate: str, group: str = MAINTENANCE) -> str:
    """What to do about an error of the database, where that is known. group: the role that has the right."""
    return hint(sqlstate, f"{group} (database.admin_conninfo)")


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
