"""Groups of commands, with the habits of other command lines: hints for mistyped names, global options anywhere, whole sentences
in the list of commands, and the end by SIGPIPE."""

import os
import signal
from difflib import get_close_matches
from typing import Any

import click

_GLOBAL = ("-c", "--config", "--conninfo", "--shard")
"""Options of the program that have a value; they are also understood after the command."""

_AS_GIVEN = "deliver"  # its options are those of the handler


class Group(click.Group):
    """A group that suggests the command that was meant, and lists commands with a whole sentence each."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown one, name those with a similar name."""
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            similar = get_close_matches(args[0], self.list_commands(ctx), 3)
            if similar and not ctx.resilient_parsing:
                ctx.fail(f"No such command {args[0]!r}. Did you mean {' or '.join(similar)}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands, each with the first sentence of its help."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=1_000)))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class Program(Group):
    """The program itself."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the options of the program, wherever they stand."""
        return super().parse_args(ctx, _global_first(args))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; if its reader has left, end as other programs do."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGPIPE)


def _global_first(args: list[str]) -> list[str]:
    """Move the options of the program that follow a command before it."""
    first: list[str] = []
    rest: list[str] = []
    words = iter(args)
    for word in words:
        name, equals, _ = word.partition("=")
        if word == "--" or word == _AS_GIVEN:
            rest += [word, *words]
        elif name in _GLOBAL and equals:
            first.append(word)
        elif word in _GLOBAL:
            first += [word, *([value] if (value := next(words, None)) is not None else [])]
        else:
            rest.append(word)
    return first + rest
