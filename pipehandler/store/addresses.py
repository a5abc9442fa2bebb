"""The pool of recipient addresses: the queries behind `pipehandler address`.

A lease is one period of one address. It is named by its number, or by its address, which then means the lease that the address
has now, or had last. Every function raises StoreError where the database does not answer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from .connection import DataRefused, Store, StoreError

Row = dict[str, Any]

_COLUMNS = "a.lease, a.address, a.label, a.created_at, a.expires_at"

_LIST = """
SELECT a.lease, a.address, a.label, a.created_at, a.expires_at,
       (SELECT count(*) FROM pipehandler.delivery d WHERE d.lease = a.lease) AS deliveries
  FROM pipehandler.address a
 WHERE (a.expires_at IS NULL OR a.expires_at > now()) <> %(expired)s
   AND (%(label)s::text IS NULL OR a.label = %(label)s)
   AND (%(domain)s::text IS NULL OR substring(a.address FROM '@[^@]*$') = pipehandler.canonical('@' || %(domain)s))
 ORDER BY a.lease DESC
 LIMIT %(limit)s
"""

_GIVEN_OUT = "23505"  # unique_violation
_NO_ADDRESS = "P0001"  # raise_exception
_NO_LEASE = "P0002"  # no_data_found


class NoSuchLease(Exception):
    """A lease that is not there, or cannot be extended any more; the text says which and what to do."""


class AddressTaken(Exception):
    """An address that is given out already; the text says what to do."""


class NoAddress(Exception):
    """What cannot be an address; the text says what is expected."""


def leases(
    store: Store, *, label: str | None = None, domain: str | None = None, expired: bool = False, limit: int = 20
) -> list[Row]:
    """The newest leases first, at most `limit`, each with the number of its deliveries: those that live, or those that have
    expired. `label` and `domain` have to be equal; domains in every case, as U-labels or A-labels."""
    parameters = {"label": label, "domain": domain, "expired": expired, "limit": limit}
    return store.rows(_LIST, parameters)


def new(store: Store, domain: str, ttl: timedelta | None = None, label: str | None = None) -> Row:
    """A lease of a random address of `domain`, for `ttl` or for ever. Raises NoAddress where `domain` is no domain."""
    with _translated(domain):
        return _one(store, "pipehandler.lease_random_address(%s::text, %s::interval, %s::text)", domain, ttl, label)


def add(store: Store, address: str, ttl: timedelta | None = None, label: str | None = None) -> Row:
    """A lease of `address` (@domain is a catch-all), for `ttl` or for ever. Raises AddressTaken and NoAddress."""
    with _translated(address):
        return _one(store, "pipehandler.lease_address(%s::text, %s::interval, %s::text)", address, ttl, label)


def extend(store: Store, name: str, ttl: timedelta | None = None) -> Row:
    """Let a lease last for `ttl` from now on, or for ever; never shorter than before. Raises NoSuchLease."""
    with _translated(name):
        return _one(store, "pipehandler.extend_lease(%s::bigint, %s::interval)", _find(store, name)["lease"], ttl)


def expire(store: Store, name: str) -> Row:
    """End a lease now; its mail is out of sight, and `extend` brings it back. Raises NoSuchLease."""
    with _translated(name):
        return _one(store, "pipehandler.expire_lease(%s::bigint)", _find(store, name)["lease"])


def remove(store: Store, name: str) -> Row:
    """Delete a lease and its mail for good; returns what it was, with the number of its "deliveries". Raises NoSuchLease."""
    with _translated(name):
        row = _find(store, name)
        (gone,) = store.rows("SELECT pipehandler.remove_lease(%s::bigint) AS deliveries", [row["lease"]])
        return row | gone


def _one(store: Store, call: str, *parameters: Any) -> Row:
    (row,) = store.rows(f"SELECT {_COLUMNS} FROM {call} AS a", parameters)  # noqa: S608 # our own text
    return row


def _find(store: Store, name: str) -> Row:
    """The lease that `name`, its number or its address, stands for."""
    if name.isascii() and name.isdigit() and int(name) < 1 << 63:
        where = "a.lease = %s::bigint"
    else:
        where = "a.address = pipehandler.canonical(%s::text) AND NOT a.superseded"
    rows = store.rows(f"SELECT {_COLUMNS} FROM pipehandler.address a WHERE {where}", [name])  # noqa: S608 # our own text
    if not rows:
        raise NoSuchLease(f"there is no lease {name}; `pipehandler address list` shows what there is")
    return rows[0]


@contextmanager
def _translated(name: str) -> Iterator[None]:
    """Tell what the functions of the pool raise from trouble with the database. name: what the caller gave."""
    try:
        yield
    except DataRefused as error:
        raise NoAddress(f"{name!r} is no address") from error
    except StoreError as error:
        if error.sqlstate == _GIVEN_OUT:
            raise AddressTaken(f"{error}; extend its lease, or expire it first") from error
        if error.sqlstate == _NO_ADDRESS:
            raise NoAddress(str(error)) from error
        if error.sqlstate == _NO_LEASE:
            raise NoSuchLease(str(error)) from error
        raise
