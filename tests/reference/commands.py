"""The commands of the program, as click knows them, and docs/cli.md."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import click

from pipehandler.cli import cli

PROGRAM = "pipehandler"
_WIDTH = 100  # columns

_HEAD = """# Commands

The options and arguments of every command, as `--help` or `-h` prints them.

Before this page: [Install](install.md).

## Habits

- `--config` and `--conninfo` are understood before and after the command.
- Short options: `-c` `--config`, `-h` `--help`, `-n` `--dry-run` where something would be changed and `--limit` in lists,
  `-o` `--output`, `-q` `--quiet`, `-v` `--verbose`, `-y` `--yes`.
- Every command that prints a result has `--json`: one object or array, or one object on each line for what goes on.
  Times are in UTC there, and in the local time zone in text.
- Results go to stdout, notes and errors to stderr.
  The [manual page](man/pipehandler.8) lists the exit statuses.
- On a terminal `list` fits into its width, `show` uses the pager (`PAGER`, or less), and `status` has one coloured line,
  unless `NO_COLOR` is set. Into a file or a pipe everything goes whole, without colour.
- A command whose reader leaves (`pipehandler list | head -1`) ends by SIGPIPE, as others do.

## Completion

For all users of bash, with the package bash-completion:

```sh
install -d /etc/bash_completion.d
_PIPEHANDLER_COMPLETE=bash_source pipehandler > /etc/bash_completion.d/pipehandler
```

For zsh and fish:

```sh
install -d /usr/local/share/zsh/site-functions /etc/fish/completions
_PIPEHANDLER_COMPLETE=zsh_source pipehandler > /usr/local/share/zsh/site-functions/_pipehandler
_PIPEHANDLER_COMPLETE=fish_source pipehandler > /etc/fish/completions/pipehandler.fish
```

## All commands

<!-- Written by script/reference from the help texts in pipehandler/cli/. -->
"""


class Command(NamedTuple):
    """One command. name: all its words, such as "pipehandler address new"; context: what click needs to describe it."""

    name: str
    context: click.Context

    @property
    def summary(self) -> str:
        """The first sentence of its help."""
        return self.context.command.get_short_help_str(limit=1000).rstrip(".")

    @property
    def description(self) -> list[str]:
        """The paragraphs of its help."""
        return [" ".join(paragraph.split()) for paragraph in (self.context.command.help or "").split("\n\n")]

    @property
    def usage(self) -> list[str]:
        """What follows its name: [OPTIONS], the names of its arguments."""
        return self.context.command.collect_usage_pieces(self.context)

    @property
    def options(self) -> list[tuple[str, str]]:
        """Its options: ("-h, --help", "what it means")."""
        parameters = self.context.command.get_params(self.context)
        records = [each.get_help_record(self.context) for each in parameters if isinstance(each, click.Option)]
        return [record for record in records if record]


def commands() -> Iterator[Command]:
    """The program, and then each command in alphabetical order, a group before its commands."""
    yield from _below(click.Context(cli, info_name=PROGRAM, terminal_width=_WIDTH, **cli.context_settings))


def _below(context: click.Context) -> Iterator[Command]:
    yield Command(context.command_path, context)
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            assert command
            yield from _below(
                click.Context(
                    command, parent=context, info_name=name, terminal_width=_WIDTH, **command.context_settings
                )
            )


def page() -> str:
    """docs/cli.md."""
    found = list(commands())
    parts = [_HEAD]
    parts += [f"- [{command.name}](#{_anchor(command.name)}): {command.summary}" for command in found[1:]]
    for command in found:
        parts += ["", f"## {command.name}", "", "```text", command.context.get_help(), "```"]
    return "\n".join(parts) + "\n"


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-"))
