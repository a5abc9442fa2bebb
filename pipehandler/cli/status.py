"""The command `status`: how it goes, for a person."""

import time

import click

from pipehandler.cli.terminal import safe
from pipehandler.monitor.journal_totals import JournalError, records
from pipehandler.monitor.snapshot import observe
from pipehandler.monitor.status import DAY, Status, status
from pipehandler.postfix.postconf import DEFAULT_DIRECTORY
from pipehandler.settings.config import load

from .command import echo_json, told
from .status_text import as_json, lines

_SECONDS = 2.0  # between two pictures


@click.command("status")
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option("--json", "as_json_", is_flag=True, help="A JSON object, for programs.")
@click.option(
    "--config-directory", default=DEFAULT_DIRECTORY, show_default=True, help="Postfix's configuration directory."
)
@click.pass_context
def status_(context: click.Context, watch: bool, as_json_: bool, config_directory: str) -> None:
    """How it goes on this mail host: what became of the last messages, what stands in the way, what to do."""
    if watch and as_json_:
        raise click.UsageError("--watch is for people, --json for programs; give one of them")
    while True:
        with told():
            shown = _status(context, config_directory)
        if as_json_:
            echo_json(as_json(shown))
            return
        text = safe("\n".join(lines(shown)))
        if not watch:
            click.echo(text)
            return
        click.clear()
        click.echo(f"{time.strftime('%H:%M:%S')}, again every {_SECONDS:g} s; Ctrl-C ends it\n\n{text}")
        time.sleep(_SECONDS)


def _status(context: click.Context, config_directory: str) -> Status:
    config = load(context.obj["config"])
    seen = observe(config, context.obj["conninfo"], config_directory)
    try:
        found = records(config.state.directory, DAY)
    except JournalError:
        found = []  # the observation says why
    return status(found, seen)
