"""The command `metrics`: the status of this mail host, for Prometheus."""

import threading
from pathlib import Path

import click

from pipehandler.cli.terminal import say, say_all
from pipehandler.mail.sysexits import EX_UNAVAILABLE
from pipehandler.monitor.snapshot import Snapshot, take_snapshot
from pipehandler.settings.config_file import load_usable
from pipehandler.settings.extras import require

from .command import Failure, config_directory_option, replace_file, reported_errors

_LOOPBACK = "127.0.0.1"
_LAST_PORT = 65_535
_READABLE = 0o644

_QUEUE_SECONDS = 60
"""The limit for listing a long queue."""
_SCRAPE_SECONDS = 8
"""The same during a scrape, for which Prometheus waits ten seconds."""


def _address(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """Read [HOST:]PORT; an IPv6 address is in brackets."""
    if value is None:
        return None
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not port.isascii() or not port.isdigit() or int(port) > _LAST_PORT:
        raise click.BadParameter(f"{value!r} does not end in a port from 0 to {_LAST_PORT}")
    if colon and not host:
        raise click.BadParameter(f"{value!r} has no host; 0.0.0.0 or [::] means all addresses of this host")
    if ":" in host and not bracketed:
        raise click.BadParameter(f"{value!r}: an IPv6 address must be in brackets")
    return (host[1:-1] if bracketed else host) or _LOOPBACK, int(port)


@click.command("metrics")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False),
    help="Replace this file atomically; node_exporter reads names that end in .prom.",
)
@click.option(
    "--listen",
    metavar="[HOST:]PORT",
    callback=_address,
    help="Serve scrapes of /metrics there until SIGTERM; HOST defaults to 127.0.0.1.",
)
@config_directory_option
@click.pass_context
def metrics(context: click.Context, output: str | None, listen: tuple[str, int] | None, config_directory: str) -> None:
    """Print the status of this mail host in the text format of Prometheus.

    Run it as root or as the account of the transport. A source that is unavailable is left out, and its metric ..._up is 0;
    `pipehandler status` says why.
    """
    if output is not None and listen:
        raise click.UsageError("--output and --listen exclude each other")
    with reported_errors():
        require("metrics", "pipehandler metrics")
    from pipehandler.monitor.exposition import exposition  # loads the parser as well

    log = _Log()

    def take() -> Snapshot:
        seconds = _SCRAPE_SECONDS if listen else _QUEUE_SECONDS
        config, unloadable = load_usable(context.obj["config"])
        snapshot = take_snapshot(config, context.obj["conninfo"], config_directory, seconds, unloadable)
        if listen:
            log.report(snapshot.reasons)
        return snapshot

    if listen:
        from pipehandler.monitor.http_endpoint import Endpoint, ListenError

        try:
            endpoint = Endpoint(*listen, lambda: exposition(take))
            host = f"[{listen[0]}]" if ":" in listen[0] else listen[0]
            say(f"listening on http://{host}:{endpoint.server_port}/metrics", err=True)
            endpoint.run()
        except ListenError as error:
            raise Failure(str(error), EX_UNAVAILABLE) from error
        return
    with reported_errors():
        text = exposition(take)
    if output is not None:
        replace_file(Path(output), text, _READABLE)
    else:
        say_all(text.decode().removesuffix("\n").split("\n"))


class _Log:
    """The log of the endpoint: why a source is unavailable to its account."""

    def __init__(self) -> None:
        self._logged: dict[str, str] = {}
        self._lock = threading.Lock()

    def report(self, reasons: dict[str, str]) -> None:
        """Log what has changed since the last scrape."""
        with self._lock:
            for name in sorted(self._logged.keys() - reasons.keys()):
                say(f"{name}: available again", err=True)
            for name, reason in sorted(reasons.items()):
                if self._logged.get(name) != reason:
                    say(f"{name}: {reason}", err=True)
            self._logged = reasons
