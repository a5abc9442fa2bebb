"""The operator's commands: `pipehandler COMMAND`.

Deliveries do not come here, so only these commands load click; and only the command that is called is imported.
"""

import logging
from importlib import import_module

import click

from pipehandler import __version__
from pipehandler.cli.group import Program
from pipehandler.cli.terminal import say
from pipehandler.mail.sysexits import EX_UNAVAILABLE
from pipehandler.settings.config_file import DEFAULT_PATH

COMMANDS = {
    "deliver": "setup.deliver",
    "setup": "setup_host.setup",
    "migrate": "setup.migrate_",
    "restored": "restored.restored",
    "postfix": "setup.postfix_lines",
    "client": "setup.client_",
    "serve": "setup.serve",
    "check": "check.check",
    "status": "status.status_",
    "metrics": "metrics.metrics",
    "follow": "follow.follow_",
    "address": "address.address",
    "list": "mailbox.list_",
    "show": "mailbox.show",
    "raw": "mailbox.raw",
    "attachment": "mailbox.attachment",
    "quarantine": "quarantine.quarantine",
    "reparse": "reparse.reparse",
    "remove": "remove.remove",
    "expire": "expire.expire",
    "import": "import_.import_",
    "watch": "watch.watch",
    "web": "web.web",
}
"""Each command, as module and name in this package."""


class _Stderr(logging.Handler):
    """Print what the store logs, such as a row that cannot be read, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), err=True)


class _LibpqMissing(click.ClickException):
    """psycopg is there, and finds no libpq; its own text lists what it tried."""

    exit_code = EX_UNAVAILABLE

    def __init__(self, error: ImportError) -> None:
        super().__init__(
            f"PostgreSQL's library libpq cannot be loaded: {' '.join(str(error).split())}."
            " Install the extra pipehandler[binary], or libpq for the whole system (Debian: libpq5)"
        )


_OF_HOST = ("check", "deliver", "metrics", "postfix", "serve", "setup", "status", "watch", "web")
"""Commands that do not work on one shard."""


class _Commands(Program):
    """The commands, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(".")
        try:
            command: click.Command = getattr(import_module(f".{module}", __package__), name)
        except ImportError as error:
            if "psycopg" not in str(error):
                raise
            raise _LibpqMissing(error) from error
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("-c", "--config", default=DEFAULT_PATH, show_default=True, help="The configuration file.")
@click.option("--conninfo", help="Connect with this libpq connection string, not with the configured one.")
@click.option(
    "--shard",
    metavar="N|ADDRESS",
    help="Of a sharded database, work on this shard, or on the one that has the address.",
)
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context, config: str, conninfo: str | None, shard: str | None) -> None:
    """Mail from Postfix's pipe(8) into PostgreSQL: once, byte-exact, in one transaction.

    --config, --conninfo and --shard are understood after the command, too.
    """
    if shard is not None and context.invoked_subcommand in _OF_HOST:
        raise click.UsageError(f"{context.invoked_subcommand} is for the whole database; it does not take --shard")
    context.obj = {"config": config, "conninfo": conninfo, "shard": shard}
    logging.getLogger("pipehandler.store").addHandler(_Stderr())
