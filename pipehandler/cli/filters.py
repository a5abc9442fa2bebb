"""The options that select deliveries, the same for each command that has them. store/filters.py has the rule."""

import inspect
from collections.abc import Callable
from typing import Any

import click

from .times import time_option

FILTERS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "recipient": click.option("--recipient", metavar="TEXT", help="Only mail to recipients that match."),
    "sender": click.option(
        "--sender", metavar="TEXT", help="The envelope sender, or the address or name of From, matches."
    ),
    "subject": click.option("--subject", metavar="TEXT", help="The subject matches."),
    "lease": click.option("--lease", type=click.IntRange(min=1), help="Only mail that belongs to this lease."),
    "since": time_option("--since", "--after", "since", help="Received at this time or later."),
    "until": time_option("--until", "--before", "until", help="Received before this time."),
    "stored_since": time_option("--stored-since", help="Stored at this time or later, whenever it was received."),
    "ingress": click.option(
        "--ingress", type=click.Choice(["pipe", "lmtp", "maildir", "import"]), help="How the message came in."
    ),
    "state": click.option(
        "--state", type=click.Choice(["parsed", "failed"]), help="failed: stored without being parsed."
    ),
}
"""The options, by the field of Filters."""

RULE = """A TEXT matches without regard to case. With * it is a pattern for the whole value, in which * stands for anything; a whole
address means that address; any other TEXT is a part of the value. A TIME is a date, a date and time, or how long ago, such as 2h
or yesterday."""
"""What a TEXT and a TIME are, for the help of a command."""


def filtered(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options for these fields of Filters, or for all, to a command, and RULE to its help."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for name in reversed(names or tuple(FILTERS)):
            command = FILTERS[name](command)
        # cleandoc: Python 3.13 has removed the indentation already, 3.11 and 3.12 have not.
        command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\n{RULE}"
        return command

    return add
