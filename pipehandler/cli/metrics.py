"""The command `metrics`: how it goes, for Prometheus."""

import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import click

from pipehandler.mail.sysexits import EX_CANTCREAT, EX_UNAVAILABLE
from pipehandler.monitor.snapshot import Observation, observe
from pipehandler.postfix.postconf import DEFAULT_DIRECTORY
from pipehandler.settings.config import load
from pipehandler.settings.extras import require

from .command import Failure, told

_LOOPBACK = "127.0.0.1"
_LAST_PORT = 65_535
_READABLE = 0o644

_SECONDS = 60
"""To list a long queue."""
_SCRAPE_SECONDS = 8
"""The same while Prometheus waits, which it does for ten seconds."""


def _address(_: click.Context, __: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """[HOST:]PORT as a pair; an IPv6 address stands in brackets."""
    if value is None:
        return None
    host, colon, port = value.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not port.isascii() or not port.isdigit() or int(port) > _LAST_PORT:
        raise click.BadParameter(f"{value!r} does not end in a port from 0 to {_LAST_PORT}")
    if colon and not host:
        raise click.BadParameter(f"{value!r} names no host; 0.0.0.0 or [::] are all addresses of this one")
    if ":" in host and not bracketed:
        raise click.BadParameter(f"{value!r}: an IPv6 address must stand in brackets")
    return (host[1:-1] if bracketed else host) or _LOOPBACK, int(port)


@click.command("metrics")
@click.option(
    "--output",
    type=click.Path(dir_okay=False),
    help="Write them to this file, whole or not at all; node_exporter reads names that end in .prom.",
)
@click.option(
    "--listen",
    metavar="[HOST:]PORT",
    callback=_address,
    help="Answer scrapes of /metrics there until SIGTERM; HOST is 127.0.0.1.",
)
@click.option(
    "--config-directory", default=DEFAULT_DIRECTORY, show_default=True, help="Postfix's configuration directory."
)
@click.pass_context
def metrics(context: click.Context, output: str | None, listen: tuple[str, int] | None, config_directory: str) -> None:
    """Print how it goes on this mail host, in the text format of Prometheus.

    For root, or for the account of the transport. What cannot be asked is left out, and its metric ..._up is 0; `pipehandler
    status` says why.
    """
    if output is not None and listen:
        raise click.UsageError("give --output or --listen, not both")
    with told():
        require("metrics", "pipehandler metrics")
    from pipehandler.monitor.metrics import exposition  # and with it all that a parser needs

    log = _Log()

    def look() -> Observation:
        seconds = _SCRAPE_SECONDS if listen else _SECONDS
        seen = observe(load(context.obj["config"]), context.obj["conninfo"], config_directory, seconds)
        if listen:
            log.tell(seen.reasons)
        return seen

    with told():
        load(context.obj["config"])
    if listen:
        from pipehandler.monitor.http_endpoint import Endpoint, ListenError

        try:
            Endpoint(*listen, lambda: exposition(look)).run()
        except ListenError as error:
            raise Failure(str(error), EX_UNAVAILABLE) from error
        return
    with told():
        text = exposition(look)
    if output is not None:
        _write(Path(output), text)
    else:
        click.echo(text, nl=False)


class _Log:
    """The log of the endpoint: what its account may not ask, or what does not answer, nobody else sees."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._lock = threading.Lock()

    def tell(self, reasons: dict[str, str]) -> None:
        """Write what has changed."""
        with self._lock:
            for name in sorted(self._known.keys() - reasons.keys()):
                click.echo(f"{name}: answers again", err=True)
            for name, reason in sorted(reasons.items()):
                if self._known.get(name) != reason:
                    click.echo(f"{name}: {reason}", err=True)
            self._known = reasons


def _write(path: Path, text: bytes) -> None:
    """Replace the file by `text`, readable for everybody; on any failure it stays as it was, and nothing beside it."""
    beside = None
    try:
        descriptor, beside = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, _READABLE)
            file.write(text)
            file.flush()
            os.fsync(descriptor)  # or a power failure could leave an empty file under the name
        os.replace(beside, path)
        beside = None
    except OSError as error:
        reason = f"{path}: {error.strerror}; it must be in a folder that we may write, with room for {len(text)} octets"
        raise Failure(reason, EX_CANTCREAT) from error
    finally:
        if beside:
            with suppress(OSError):
                os.unlink(beside)
