"""The command `status`: the status of this mail host, for operators."""

import time
from contextlib import nullcontext

import click

from pipehandler.cli.terminal import say, say_all, working
from pipehandler.monitor.journal_totals import JournalError, records
from pipehandler.monitor.service_status import stale
from pipehandler.monitor.snapshot import take_snapshot
from pipehandler.monitor.status import DAY, Status, status
from pipehandler.monitor.verdict import FLOWING, STOPPED, UNKNOWN
from pipehandler.settings.config_file import load_usable

from .command import config_directory_option, echo_json, quiet_option
from .status_text import as_json, lines

_INTERVAL = 2.0  # seconds
_COLOURS = {FLOWING: "green", STOPPED: "red", UNKNOWN: "yellow"}

EXIT_STATUS = {FLOWING: 0, STOPPED: 1, UNKNOWN: 3}
"""By what the first line says."""


@click.command("status")
@click.option("--watch", is_flag=True, help="Refresh it every two seconds, until Ctrl-C.")
@quiet_option
@click.option("--json", "as_json_", is_flag=True, help="A JSON object, for programs.")
@config_directory_option
@click.pass_context
def status_(context: click.Context, watch: bool, quiet: bool, as_json_: bool, config_directory: str) -> None:
    """Show whether mail is flowing, the outcomes of the last hour and day, current problems, and what to do about them.

    Exit status: 0 mail is flowing; 1 it is not; 3 that is unknown.
    """
    if watch and as_json_:
        raise click.UsageError("--watch and --json exclude each other")
    while True:
        with nullcontext() if watch else working("asking the database, the workers and Postfix"):
            current = _status(context, config_directory)
        if as_json_:
            echo_json(as_json(current))
        elif not watch and not (quiet and current.verdict.state == FLOWING):
            _show(current)
        if not watch:
            context.exit(EXIT_STATUS[current.verdict.state])
        click.clear()
        say_all([f"{time.strftime('%H:%M:%S')}, refreshed every {_INTERVAL:g} s; Ctrl-C ends it", ""])
        _show(current)
        time.sleep(_INTERVAL)


def _show(current: Status) -> None:
    first, *rest = lines(current)
    say(first, colour=_COLOURS[current.verdict.state])
    say_all(rest)


def _status(context: click.Context, config_directory: str) -> Status:
    config, unloadable = load_usable(context.obj["config"])
    snapshot = take_snapshot(config, context.obj["conninfo"], config_directory, unloadable=unloadable)
    try:
        last_day = records(config.state.directory, DAY)
    except JournalError:
        last_day = []  # the snapshot says why
    different = stale(snapshot.service, config) if snapshot.service and not unloadable else ()
    return status(last_day, snapshot)._replace(workers_stale=tuple(different))
