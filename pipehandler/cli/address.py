"""`pipehandler address new | add | list | extend | expire | remove`: leases of recipient addresses.

Exit statuses besides those of all commands: 65 invalid address; 66 no such lease; 73 the address has a lease already.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta

import click

from pipehandler.cli.group import Group
from pipehandler.cli.terminal import say, say_all, shorten, table, terminal_columns
from pipehandler.mail.sysexits import EX_CANTCREAT, EX_DATAERR, EX_NOINPUT
from pipehandler.settings.config_file import load
from pipehandler.settings.duration import FOREVER, period
from pipehandler.store import addresses
from pipehandler.store.addresses import AddressTaken, Lease, NoAddress, NoSuchLease
from pipehandler.store.connection import Store
from pipehandler.store.roles import ADDRESS_ADMIN

from .command import Failure, counted, echo_json, local, opened_store, quiet_option, reported_errors
from .upkeep import confirm, confirmation, hinted


def period_of(_context: click.Context, _parameter: click.Parameter, value: str | None) -> timedelta | None:
    """Read an option that is a duration, or "forever", which is None like a missing one."""
    try:
        return None if value is None else period(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}; or {FOREVER}") from None


_ttl = click.option(
    "--ttl",
    callback=period_of,
    metavar="DURATION",
    help="How long from now, such as 10m, 36h, 1d12h; default: forever.",
)
_label = click.option("--label", help="A name of your choice.")
_json = click.option("--json", "as_json", is_flag=True, help="The lease as a JSON object, for programs.")
_lease = click.argument("name", metavar="ADDRESS|LEASE")


@click.group("address", cls=Group)
def address() -> None:
    """Issue recipient addresses, for a time or forever.

    A number means a lease; anything else means an address, and so its current lease.
    """


@address.command("new")
@click.option("--domain", help="The domain of the address; default: recipients.domain of the configuration.")
@_ttl
@_label
@_json
@click.pass_context
def new(context: click.Context, domain: str | None, ttl: timedelta | None, label: str | None, as_json: bool) -> None:
    """Issue a random address that can be read aloud, and print it."""
    if domain is None:
        with reported_errors():
            domain = load(context.obj["config"]).recipients.domain
    if not domain:
        raise click.UsageError("no domain: give --domain, or set recipients.domain in the configuration")
    with _opened(context) as store:
        _show_address(addresses.new(store, domain, ttl, label), as_json)


@address.command("add")
@click.argument("name", metavar="ADDRESS")
@_ttl
@_label
@_json
@click.pass_context
def add(context: click.Context, name: str, ttl: timedelta | None, label: str | None, as_json: bool) -> None:
    """Issue this address; @DOMAIN is a catch-all for all addresses of the domain without a separate lease."""
    with _opened(context) as store:
        _show_address(addresses.add(store, name, ttl, label), as_json)


@address.command("list")
@click.option("--label", metavar="TEXT", help="Only leases with a label that matches.")
@click.option("--domain", metavar="DOMAIN", help="Only leases of this domain, in either of its spellings.")
@click.option("--expired", is_flag=True, help="Expired leases instead of active ones.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, 1_000_000), default=20, show_default=True, help="Maximum number of leases."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
@click.pass_context
def list_(
    context: click.Context, label: str | None, domain: str | None, expired: bool, limit: int, as_json: bool
) -> None:
    """List leases, newest first, each with the number of its deliveries.

    A TEXT matches without regard to case. With * it is a pattern for the whole value, in which * stands for anything; any other
    TEXT is a part of the value.
    """
    with opened_store(context) as store:
        rows = addresses.leases(store, label=label, domain=domain, expired=expired, limit=limit)
    if as_json:
        echo_json(rows)
    elif not rows:
        say("nothing found")
    else:
        lines = [[row.lease, row.address, row.label, local(row.created_at), _end(row), row.deliveries] for row in rows]
        head = ["LEASE", "ADDRESS", "LABEL", "CREATED", "EXPIRES", "DELIVERIES"]
        say_all(table(head, lines, 60, terminal_columns()))


@address.command("extend")
@_lease
@_ttl
@_json
@click.pass_context
def extend(context: click.Context, name: str, ttl: timedelta | None, as_json: bool) -> None:
    """Extend a lease; without --ttl, forever. A lease never becomes shorter.

    An expired lease is restored with all its mail, unless it has been removed or its address issued again.
    """
    with _opened(context) as store:
        _show_end(addresses.extend(store, name, ttl), as_json)


@address.command("expire")
@_lease
@_json
@click.pass_context
def expire(context: click.Context, name: str, as_json: bool) -> None:
    """End a lease now: its address is refused, and its mail hidden."""
    with _opened(context) as store:
        _show_end(addresses.expire(store, name), as_json)


@address.command("remove")
@_lease
@click.option("-n", "--dry-run", is_flag=True, help="Delete nothing; show what would be deleted.")
@confirmation
@quiet_option
@_json
@click.pass_context
def remove(context: click.Context, name: str, dry_run: bool, yes: bool, quiet: bool, as_json: bool) -> None:
    """Delete a lease and all its mail, immediately and permanently."""
    with _opened(context) as store:
        lease = addresses.find(store, name)
        if not dry_run:
            count = counted(lease.deliveries, "delivery", "deliveries")
            confirm(f"Remove {_line(lease, f'with {count}')} permanently?", yes)
            lease = addresses.remove(store, lease)
    if as_json:
        echo_json({**asdict(lease), "dry_run": dry_run})
    elif dry_run or not quiet:
        verb = "would be removed" if dry_run else "removed"
        say(_line(lease, f"{verb} with {counted(lease.deliveries, 'delivery', 'deliveries')}"))


@contextmanager
def _opened(context: click.Context) -> Iterator[Store]:
    """Open the store that the options name; errors about addresses and leases become a Failure."""
    with opened_store(context, of_proxy=True) as store, hinted(ADDRESS_ADMIN):
        try:
            yield store
        except NoAddress as error:
            raise Failure(str(error), EX_DATAERR) from error
        except NoSuchLease as error:
            raise Failure(str(error), EX_NOINPUT) from error
        except AddressTaken as error:
            raise Failure(str(error), EX_CANTCREAT) from error


def _show_address(lease: Lease, as_json: bool) -> None:
    if as_json:
        echo_json(lease)
    else:
        say(lease.address)


def _show_end(lease: Lease, as_json: bool) -> None:
    if as_json:
        echo_json(lease)
    else:
        say(_line(lease, f"expires {_end(lease)}"))


def _line(lease: Lease, text: str) -> str:
    return f"{shorten(lease.address, 1000)}: lease {lease.lease} {text}"


def _end(lease: Lease) -> str:
    return local(lease.expires_at) if lease.expires_at else "never"
