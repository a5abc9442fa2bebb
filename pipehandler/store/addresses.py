"""Leases of recipient addresses: the queries behind `pipehandler address`.

A lease is one period of one address. Its name is its number, or its address, which means the lease that the address has
now or, without one, had last. Every function raises StoreError if the database fails.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from .bigint import bigint
from .connection import Store
from .errors import NAME_TAKEN, NO_DATA_FOUND, RAISE_EXCEPTION, UNIQUE_VIOLATION, DataRefused, StoreError
from .filters import pattern_of_words
from .readable import readable_rows

_COLUMNS = "a.lease, a.address, a.label, a.created_at, a.expires_at"

_LIST = """
SELECT a.lease, a.address, a.label, a.created_at, a.expires_at,
       (SELECT count(*) FROM pipehandler.delivery d WHERE d.lease = a.lease) AS deliveries
  FROM pipehandler.address a
 WHERE (a.expires_at IS NULL OR a.expires_at > now()) <> %(expired)s
   AND (%(label)s::text IS NULL OR a.label COLLATE "C" ~* %(label)s)
   AND (%(domain)s::text IS NULL OR substring(a.address FROM '@[^@]*$') = pipehandler.canonical('@' || %(domain)s))
 ORDER BY a.lease DESC
 LIMIT %(limit)s
"""

_FIND = f"SELECT {_COLUMNS}, a.deliveries FROM pipehandler.find_lease(%s::bigint, %s::text) AS a"  # noqa: S608 # constant
_DOMAINS = """
SELECT DISTINCT substring(a.address FROM '@([^@]*)$') AS domain
  FROM pipehandler.address a
 WHERE a.expires_at IS NULL OR a.expires_at > now()
 ORDER BY domain
 LIMIT 100
"""


class NoSuchLease(Exception):
    """The lease does not exist, or cannot be extended any more; the text says which and what to do."""


class AddressTaken(Exception):
    """The address has a lease already; the text says what to do."""


class NoAddress(Exception):
    """The text is not an address; the error says what is expected."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One row of pipehandler.address. expires_at: None for a lease that never ends."""

    lease: int
    address: str
    label: str | None
    created_at: datetime
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class CountedLease(Lease):
    """A lease with the number of its deliveries."""

    deliveries: int


def leases(
    store: Store, *, label: str | None = None, domain: str | None = None, expired: bool = False, limit: int = 20
) -> list[CountedLease]:
    """The newest leases first, at most `limit`: the current ones, or those that have expired.

    label: a text as in filters.py. domain: compared without regard to case, as U-labels or A-labels.
    """
    parameters = {"label": label and pattern_of_words(label), "domain": domain, "expired": expired, "limit": limit}
    return readable_rows(store, _LIST, parameters, CountedLease, "lease", "lease")


def leased_domains(store: Store) -> list[str]:
    """The domains of all leases that have not expired, as pipehandler.canonical writes them; at most a hundred."""
    return store.values(_DOMAINS, of=str)


def new(store: Store, domain: str, ttl: timedelta | None = None, label: str | None = None) -> Lease:
    """Lease a random address of `domain` for `ttl`, or forever. Raises NoAddress if `domain` is not a domain."""
    with _translated(domain):
        return _call(store, "pipehandler.lease_random_address(%s::text, %s::interval, %s::text)", domain, ttl, label)


def add(store: Store, address: str, ttl: timedelta | None = None, label: str | None = None) -> Lease:
    """Lease `address` (@domain is a catch-all) for `ttl`, or forever. Raises AddressTaken and NoAddress."""
    with _translated(address):
        return _call(store, "pipehandler.lease_address(%s::text, %s::interval, %s::text)", address, ttl, label)


def extend(store: Store, name: str, ttl: timedelta | None = None) -> Lease:
    """Let a lease end `ttl` from now, or never, but not earlier than before. Raises NoSuchLease."""
    with _translated(name):
        return _call(store, "pipehandler.extend_lease(%s::bigint, %s::interval)", _find(store, name).lease, ttl)


def expire(store: Store, name: str) -> Lease:
    """End a lease now. Its mail is hidden until it is removed; `extend` shows it again. Raises NoSuchLease."""
    with _translated(name):
        return _call(store, "pipehandler.expire_lease(%s::bigint)", _find(store, name).lease)


def find(store: Store, name: str) -> CountedLease:
    """The lease with this name, with the number of its deliveries. Raises NoSuchLease."""
    with _translated(name):
        return _find(store, name)


def remove(store: Store, lease: CountedLease) -> CountedLease:
    """Delete a lease and its mail for good, and return it with the number of deliveries it had. Raises NoSuchLease."""
    with _translated(lease.address):
        (deliveries,) = store.values("SELECT pipehandler.remove_lease(%s::bigint)", [lease.lease], of=int)
        return replace(lease, deliveries=deliveries)


def _call(store: Store, function: str, *parameters: Any) -> Lease:
    (lease,) = store.rows(f"SELECT {_COLUMNS} FROM {function} AS a", parameters, row=Lease)  # noqa: S608 # constant
    return lease


def _find(store: Store, name: str) -> CountedLease:
    """The lease with this number or address."""
    number = bigint(name)
    parameters = [number, None if number is not None else name]
    rows = readable_rows(store, _FIND, parameters, CountedLease, "lease", "lease")
    if not rows:
        raise NoSuchLease(f"there is no lease {name}; `pipehandler address list` shows all")
    return rows[0]


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Distinguish what the SQL functions raise from faults of the database. name: what the caller passed."""
    try:
        yield
    except DataRefused as error:
        raise NoAddress(f"{name!r} is not an address") from error
    except StoreError as error:
        if error.sqlstate == UNIQUE_VIOLATION:
            raise AddressTaken(f"{error}; extend it, or expire it first") from error
        if error.sqlstate == NAME_TAKEN:
            raise AddressTaken(str(error)) from error
        if error.sqlstate == RAISE_EXCEPTION:
            raise NoAddress(str(error)) from error
        if error.sqlstate == NO_DATA_FOUND:
            raise NoSuchLease(str(error)) from error
        raise
