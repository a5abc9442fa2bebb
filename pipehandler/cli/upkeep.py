"""What the commands share that need more rights than reading: hints about missing rights, questions, and progress."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from pipehandler.cli.terminal import say
from pipehandler.mail.sysexits import EX_UNAVAILABLE
from pipehandler.store.errors import StoreError
from pipehandler.store.hints import hint
from pipehandler.store.message_store import MessageStore
from pipehandler.store.roles import MAINTENANCE

from .command import Failure, opened_store

INTERRUPTED = 130
"""The exit status after Ctrl-C, as shells report it."""


@contextmanager
def opened_for_upkeep(context: click.Context, of_proxy: bool = False) -> Iterator[MessageStore]:
    """Open the store that the options name, for a command that changes it; errors about rights get a hint.

    of_proxy: as for opened_store.
    """
    with opened_store(context, of_proxy) as store, hinted():
        yield store


@contextmanager
def hinted(group: str = MAINTENANCE) -> Iterator[None]:
    """Add a hint to an error of the database, if there is one. group: the role that has the right."""
    try:
        yield
    except StoreError as error:
        if advice := hint_for(error.sqlstate, group):
            raise Failure(f"database: {error} (SQLSTATE {error.sqlstate}); {advice}", EX_UNAVAILABLE) from error
        raise


def hint_for(sqlstate: str, group: str = MAINTENANCE) -> str:
    """Return what to do about an error of the database; "" if unknown. group: the role that has the right."""
    return hint(sqlstate, f"{group} (database.admin_conninfo)")


confirmation: Callable[[Callable[..., Any]], Callable[..., Any]] = click.option(
    "-y", "--yes", is_flag=True, help="Do not ask."
)
"""The option of each command that deletes mail, for `confirm`."""


def confirm(question: str, yes: bool) -> None:
    """Ask on stderr before something is deleted, unless `yes`; anything but an explicit yes on stdin ends the command, with 1."""
    if yes:
        return
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort:
        raise Failure("nothing was removed; --yes removes without asking", 1) from None


class Progress:
    """Lines of output, and a progress bar below them, if there is one."""

    def __init__(self, advance: Callable[[int], object] | None = None) -> None:
        self._advance = advance

    def say(self, line: str) -> None:
        """Print a line."""
        if self._advance:
            click.echo("\r\x1b[K", nl=False, err=True)  # clear the bar, whose place the line takes
        say(line)

    def advance(self, steps: int = 1) -> None:
        """Advance the bar."""
        if self._advance:
            self._advance(steps)


@contextmanager
def progress(length: Callable[[], int], enabled: bool = True) -> Iterator[Progress]:
    """Show a bar of `length` steps on stderr, if that is a terminal."""
    if not (enabled and sys.stderr.isatty()):
        yield Progress()
        return
    with click.progressbar(length=length(), file=sys.stderr) as bar:
        bar.render_progress()
        yield Progress(bar.update)
