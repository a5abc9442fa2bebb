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
from pipehandler.mail.sysexits import EX_DATAERR, EX_NOINPUT, EX_UNAVAILABLE
from pipehandler.settings.config import Web
from pipehandler.settings.config_file import load
from pipehandler.store import addresses, capabilities
from pipehandler.store.addresses import NoSuchLease
from pipehandler.store.capabilities import ClosedNetwork, ViewerKey, closed_networks
from pipehandler.store.connection import Store
from pipehandler.store.inbox_shards import new_key

from .address import period_of
from .command import Failure, counted, echo_json, local, reported_errors
from .parts import Parts, on_each, opened_parts
from .upkeep import confirm, confirmation

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
    with _opened(context) as parts:
        home = parts.home(name or "@")
        found = None if name is None else addresses.find(parts.stores[home], name)
        lease = None if found is None else found.lease
        secret = new_key(home, len(parts.stores))
        if found is None or found.address.startswith("@"):
            _done(on_each(parts, lambda store: capabilities.grant_view(store, secret, lease, label, ttl)))
        else:
            capabilities.grant_view(parts.stores[home], secret, lease, label, ttl)
    text = capabilities.key_text(secret)
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
    rows: list[ViewerKey] = []
    with _opened(context) as parts:
        failed = on_each(parts, lambda store: _add_keys(rows, capabilities.viewer_keys(store)))
    rows.sort(key=lambda row: row.created_at, reverse=True)
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
    _done(failed)


@click.command("revoke")
@click.argument("label")
@_json
@click.pass_context
def revoke(context: click.Context, label: str, as_json: bool) -> None:
    """Revoke all viewers' keys with this label: pages that they have open end at once."""
    revoked: list[ViewerKey] = []

    def work(store: Store) -> None:
        own = [each for each in capabilities.viewer_keys(store) if each.label == label]
        capabilities.revoke_view(store, label)
        _add_keys(revoked, own)

    with _opened(context) as parts:
        _done(on_each(parts, work))
    count = len(revoked)
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
    value: object
    with _opened(context) as parts:
        if network is None:
            store = parts.stores[parts.home(name)]
            lease = addresses.find(store, name)
            confirm(f"Close the inbox {shorten(lease.address, 1000)}, lease {lease.lease}?", yes)
            value = closed = capabilities.close_inbox(store, lease.lease)
            line = f"{shorten(closed.address, 1000)}: lease {closed.lease} is closed"
        else:
            confirm(f"Close the network {network}{', with the inboxes opened from there' if inboxes else ''}?", yes)
            counts: list[int] = []
            _done(
                on_each(
                    parts,
                    lambda store: counts.append(capabilities.close_network(store, network, ttl, label, inboxes)),
                )
            )
            count = sum(counts)
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
    with _opened(context) as parts:
        if network is None:
            rows: dict[str, ClosedNetwork] = {}
            failed = on_each(parts, lambda store: rows.update((r.network, r) for r in closed_networks(store)))
            if as_json:
                echo_json([*rows.values()])
            elif not rows:
                say("nothing found")
            else:
                lines = [[row.network, row.label, local(row.closed_at), _end(row.expires_at)] for row in rows.values()]
                say_all(table(["NETWORK", "LABEL", "CLOSED", "EXPIRES"], lines, 60, terminal_columns()))
            _done(failed)
            return
        written = _network(network)
        if written is None:
            raise Failure(
                f"{network!r} is not a network: expected one such as 192.0.2.0/24 or 2001:db8::/64", EX_DATAERR
            )
        reopened: list[bool] = []
        _done(on_each(parts, lambda store: reopened.append(capabilities.reopen_network(store, written))))
        if not any(reopened):
            raise Failure(f"{written} is not closed; `pipehandler web reopen` lists those that are", EX_NOINPUT)
    if as_json:
        echo_json({"network": written})
    else:
        say(f"{written} is open again")


COMMANDS = (key, keys, revoke, close, reopen)
"""What `pipehandler web` has beside the server."""


@contextmanager
def _opened(context: click.Context) -> Iterator[Parts]:
    with opened_parts(context) as parts:
        try:
            yield parts
        except NoSuchLease as error:
            raise Failure(str(error), EX_NOINPUT) from error


def _done(failed: list[str]) -> None:
    """Raise Failure where shards have failed."""
    if failed:
        raise Failure(
            "\n".join([*failed, "the other shards are done; repeat the command when all of them answer"]),
            EX_UNAVAILABLE,
        )


def _add_keys(known: list[ViewerKey], more: list[ViewerKey]) -> None:
    """Add the keys of a shard to those of others; one that each of them has counts once."""
    seen = {(each.label, each.lease) for each in known if each.of_all_shards}
    known += [each for each in more if not each.of_all_shards or (each.label, each.lease) not in seen]


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
