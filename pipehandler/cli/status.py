"""The command `status`: the status of this mail host, for operators."""

import time

import click

from pipehandler.cli.terminal import say_all
from pipehandler.monitor.journal_totals import JournalError, records
from pipehandler.monitor.snapshot import take_snapshot
from pipehandler.monitor.status import DAY, Status, status
from pipehandler.postfix.postconf import DEFAULT_DIRECTORY
from pipehandler.settings.config import load

from .command import echo_json, reported_errors
from .status_text import as_json, lines

_INTERVAL = 2.0  # seconds


@click.command("status")
@click.option("--watch", is_flag=True, help="Refresh it every two seconds, until Ctrl-C.")
@click.option("--json", "as_json_", is_flag=True, help="A JSON object, for programs.")
@click.option(
    "--config-directory", default=DEFAULT_DIRECTORY, show_default=True, help="Postfix's configuration directory."
)
@click.pass_context
def status_(context: click.Context, watch: bool, as_json_: bool, config_directory: str) -> None:
    """Show the status of this mail host: outcomes of the last hour and day, current problems, and what to do about them."""
    if watch and as_json_:
        raise click.UsageError("--watch and --json exclude each other")
    while True:
        with reported_errors():
            current = _status(context, config_directory)
        if as_json_:
            echo_json(as_json(current))
            return
        if not watch:
            say_all(lines(current))
            return
        click.clear()
        say_all([f"{time.strftime('%H:%M:%S')}, refreshed every {_INTERVAL:g} s; Ctrl-C ends it", "", *lines(current)])
        time.sleep(_INTERVAL)


def _status(context: click.Context, config_directory: str) -> Status:
    config = load(context.obj["config"])
    snapshot = take_snapshot(config, context.obj["conninfo"], config_directory)
    try:
        last_day = records(config.state.directory, DAY)
    except JournalError:
        last_day = []  # the snapshot says why
    return status(last_day, snapshot)
