"""The addresses that every domain must accept: postmaster (RFC 5321 4.5.1) and abuse (RFC 2142)."""

import shlex

from ..host import Host
from ..postfix_state import PostfixState
from ..record import Record
from ..step import Step, output
from .tables import accepts_any

REQUIRED = ("postmaster", "abuse")
"""The local parts that every domain must accept: RFC 5321 4.5.1 and RFC 2142."""


def recipients(host: Host, _: Record) -> Step:
    """Return the step that leases the addresses, and with --catch-all the whole domain. `--remove` keeps leases."""
    if accepts_any(PostfixState.read(host)):
        return Step("recipients", "virtual_mailbox_maps accepts every recipient (static:)")
    ascii_domains = [domain for domain in host.domains if domain.isascii()]
    wanted = [f"{name}@{domain}" for domain in ascii_domains for name in REQUIRED]
    if host.catch_all:
        wanted += [f"@{domain}" for domain in ascii_domains]
    missing = [address for address in wanted if not _is_leased(host, address)]
    return Step(
        "recipients",
        f"{'without a lease' if missing else 'leased'}: {' '.join(missing or wanted)}",
        tuple(f"{host.program('address', 'add', address, '--label', 'setup')} > /dev/null" for address in missing),
    )


def _is_leased(host: Host, address: str) -> bool:
    """Return whether a lease accepts mail to an address; for a catch-all, whether one exists."""
    if host.server.is_local:
        return host.server.query(host.database, "SELECT pipehandler.lookup(:'address')", address=address) == ["OK"]
    leases = output(
        ["sh", "-c", f"{host.program('address', 'list', '--limit', '1000000')} | grep -F {shlex.quote(address)}"]
    )
    return bool(leases)
