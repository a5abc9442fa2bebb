"""`pipehandler web key | keys | revoke | close | reopen`: viewers' keys, and what the operator of an inbox page closes.

Exit statuses besides those of all commands: 65 not a network; 66 no such lease, key or network.
"""

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import click

from pipehandler.cli.terminal import say, say_all, shorten, table, terminal_columns
from pipehandler.mail.sysexits import EX_DATAERR, EX_NOINPUT
from pipehandler.settings.config import Web
from pipehandler.settings.config_file import load
from pipehandler.store import addresses, capabilities
from pipehandler.store.addresses import NoSuchLease
from pipehandler.store.connection import Store

from .address import period_of
from .command import Failure, counted, echo_json, local, reported_errors
from .upkeep import confirm, confirmation, opened_for_upkeep

_LANGUAGE = "en"  # the page has a menu of the others

_json = click.option("--json", "as_json", is_flag=True, help="A JSON object, for programs.")


def _for(thing: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option(
        "--ttl",
        callback=period_of,
        metavar="DURATION",
        help=f"How long {thing}, such as 10m, 36h, 1d12h; default: forever.",
    )


@click.command("key")
@click.argument("name", metavar="[ADDRESS|LEASE]", required=False)
@click.option("--all", "everything", is_flag=True, help="A key to all mail.")
@click.option("--label", required=True, help="The name by which `pipehandler web revoke` revokes it.")
@_for("the key opens that")
@_json
@click.pass_context
def key(
    context: click.Context, name: str | None, everything: bool, label: str, ttl: timedelta | None, as_json: bool
) -> None:
    """Issue a key that reads the mail of a lease, or all mail, and print its link, once.

    A number means a lease; anything else means an address, and so its current lease. @DOMAIN, a catch-all, is the mailbox of a
    project. Whoever has the link reads the mail, and changes nothing.
    """
    if (name is None) is not everything:
        raise click.UsageError("give an address or a lease, or --all, but not both")
    if not label:
        raise click.UsageError("--label is empty")
    with reported_errors():
        web = load(context.obj["config"]).web
    with _opened(context) as store:
        lease = None if name is None else addresses.find(store, name).lease
        text = capabilities.grant_view(store, lease, label, ttl)
    link = f"{_origin(web)}/{_LANGUAGE}/open#{text}"
    if as_json:
        echo_json({"key": text, "link": link, "lease": lease, "label": label})
    else:
        say(link)


@click.command("keys")
@_json
@click.pass_context
def keys(context: click.Context, as_json: bool) -> None:
    """List the viewers' keys: their labels and what they read. The keys themselves are stored nowhere."""
    with _opened(context) as store:
        rows = capabilities.viewer_keys(store)
    if as_json:
        echo_json(rows)
    elif not rows:
        say("nothing found")
    else:
        head = ["LABEL", "LEASE", "ADDRESS", "CREATED", "EXPIRES"]
        lines = [
            [row.label, row.lease or "all mail", row.address, local(row.created_at), _end(row.expires_at)]
            for row in rows
        ]
        say_all(table(head, lines, 60, terminal_columns()))


@click.command("revoke")
@click.argument("label")
@_json
@click.pass_context
def revoke(context: click.Context, label: str, as_json: bool) -> None:
    """Revoke all viewers' keys with this label: pages that they have open end at once."""
    with _opened(context) as store:
        count = capabilities.revoke_view(store, label)
    if not count:
        raise Failure(f"there is no viewer's key with the label {label}; `pipehandler web keys` lists them", EX_NOINPUT)
    if as_json:
        echo_json({"revoked": count})
    else:
        say(f"{counted(count, 'key')} revoked")


@click.command("close")
@click.argument("name", metavar="ADDRESS|LEASE|NETWORK")
@click.option("--inboxes", is_flag=True, help="Of a network: also close the inboxes that were opened from there.")
@click.option("--label", help="Of a network: why.")
@_for("a network is closed")
@confirmation
@_json
@click.pass_context
def close(
    context: click.Context,
    name: str,
    inboxes: bool,
    label: str | None,
    ttl: timedelta | None,
    yes: bool,
    as_json: bool,
) -> None:
    """Close a visitor's inbox, or a network from which no further inbox is opened.

    An inbox ends at once, with all its keys, and its visitor cannot get the address back. Its mail stays, hidden, until its time
    of grace ends; `pipehandler address remove` removes it now. A network is written as 192.0.2.0/24, 192.0.2.7 or 2001:db8::/64.
    """
    network = _network(name)
    if network is None and (inboxes or label or ttl):
        raise click.UsageError(f"--inboxes, --label and --ttl are for networks, and {name!r} is none")
    with _opened(context) as store:
        if network is None:
            lease = addresses.find(store, name)
            confirm(f"Close the inbox {shorten(lease.address, 1000)}, lease {lease.lease}?", yes)
            closed = capabilities.close_inbox(store, lease.lease)
            line = f"{shorten(closed.address, 1000)}: lease {closed.lease} is closed"
            value: object = closed
        else:
            confirm(f"Close the network {network}{', with the inboxes opened from there' if inboxes else ''}?", yes)
            count = capabilities.close_network(store, network, ttl, label, inboxes)
            line = f"{network} is closed" + (f", with {counted(count, 'inbox', 'inboxes')}" if inboxes else "")
            value = {"network": network, "inboxes": count}
    if as_json:
        echo_json(value)
    else:
        say(line)


@click.command("reopen")
@click.argument("network", required=False)
@_json
@click.pass_context
def reopen(context: click.Context, network: str | None, as_json: bool) -> None:
    """Let visitors from a closed network open inboxes again; without NETWORK, list those that are closed."""
    with _opened(context) as store:
        if network is None:
            rows = capabilities.closed_networks(store)
            if as_json:
                echo_json(rows)
            elif not rows:
                say("nothing found")
            else:
                lines = [[row.network, row.label, local(row.closed_at), _end(row.expires_at)] for row in rows]
                say_all(table(["NETWORK", "LABEL", "CLOSED", "EXPIRES"], lines, 60, terminal_columns()))
            return
        written = _network(network)
        if written is None:
            raise Failure(
                f"{network!r} is not a network: expected one such as 192.0.2.0/24 or 2001:db8::/64", EX_DATAERR
            )
        if not capabilities.reopen_network(store, written):
            raise Failure(f"{written} is not closed; `pipehandler web reopen` lists those that are", EX_NOINPUT)
    if as_json:
        echo_json({"network": written})
    else:
        say(f"{written} is open again")


COMMANDS = (key, keys, revoke, close, reopen)
"""What `pipehandler web` has beside the server."""


@contextmanager
def _opened(context: click.Context) -> Iterator[Store]:
    with opened_for_upkeep(context) as store:
        try:
            yield store
        except NoSuchLease as error:
            raise Failure(str(error), EX_NOINPUT) from error


def _origin(web: Web) -> str:
    """Where the page is, as far as the configuration says."""
    if web.hosts:
        return f"https://{web.hosts[0]}"
    return "http://localhost" if web.listen.startswith("/") else f"http://{web.listen}"


def _network(text: str) -> str | None:
    """The network that the text names, as the database writes it; None if it names none."""
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        return None


def _end(time: datetime | None) -> str:
    return local(time) if time else "never"
