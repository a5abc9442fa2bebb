"""The operator's commands: `pipehandler COMMAND`. Delivery does not pass here, so click is loaded only now."""

import click

from pipehandler import __version__
from pipehandler.config import DEFAULT_PATH

from . import reading, setup


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--config", default=DEFAULT_PATH, show_default=True, help="The configuration file.")
@click.option("--conninfo", help="Connect with this libpq connection string instead of the configured one.")
@click.version_option(__version__)
@click.pass_context
def cli(context: click.Context, config: str, conninfo: str | None) -> None:
    """Mail from Postfix's pipe(8) into PostgreSQL: once, byte-exact, in one transaction."""
    context.obj = {"config": config, "conninfo": conninfo}


for _command in (
    *(setup.deliver, setup.migrate_, setup.postfix_lines, setup.serve),
    *(reading.list_, reading.show, reading.raw, reading.attachment),
):
    cli.add_command(_command)
