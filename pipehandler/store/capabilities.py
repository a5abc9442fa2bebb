"""Keys of the inbox page, as an operator issues and revokes them, and what an operator closes: `pipehandler web key`, ...

A viewer's key reads the mail of one lease, or all mail. It is printed once, and the database gets its SHA-256.
Every function raises StoreError if the database fails.
"""

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from .addresses import Lease, NoSuchLease
from .connection import Store
from .errors import NO_DATA_FOUND, StoreError
from .readable import readable_rows

_GRANT = "SELECT pipehandler.grant_view(%s::bytea, %s::bigint, %s::text, %s::interval)"
_REVOKE = "SELECT pipehandler.revoke_view(%s::text)"
_KEYS = """
SELECT c.label, c.lease, a.address, c.created_at, c.expires_at
  FROM pipehandler.capability c
  LEFT JOIN pipehandler.address a ON a.lease = c.lease
 WHERE c.kind = 'viewer'
 ORDER BY c.created_at DESC, c.label
"""
_CLOSE = """
SELECT a.lease, a.address, a.label, a.created_at, a.expires_at FROM pipehandler.close_inbox(%s::bigint) AS a
"""
_CLOSE_NETWORK = "SELECT pipehandler.close_network(%s::cidr, %s::interval, %s::text, %s::boolean)"
_REOPEN = "SELECT pipehandler.reopen_network(%s::cidr)"
_CLOSED = """
SELECT n.network::text, n.label, n.closed_at, n.expires_at FROM pipehandler.web_closed_network n ORDER BY n.network
"""


@dataclass(frozen=True, slots=True)
class ViewerKey:
    """A viewer's key, without the key itself. lease, address: None for all mail. expires_at: None: until it is revoked."""

    label: str
    lease: int | None
    address: str | None
    created_at: datetime
    expires_at: datetime | None

    @property
    def of_all_shards(self) -> bool:
        """Whether each shard has it, where there are several: it is to all mail, or to a catch-all."""
        return self.address is None or self.address.startswith("@")


@dataclass(frozen=True, slots=True)
class ClosedNetwork:
    """A network from which no inbox is opened. expires_at: None: until it is opened again."""

    network: str
    label: str | None
    closed_at: datetime
    expires_at: datetime | None


def key_text(key: bytes) -> str:
    """Return a key as text: base64url without padding (RFC 4648 5)."""
    return urlsafe_b64encode(key).rstrip(b"=").decode("ascii")


def grant_view(store: Store, key: bytes, lease: int | None, label: str, ttl: timedelta | None = None) -> None:
    """Let a new key (inbox_shards.new_key) read one lease, or (None) all mail.

    label: what `revoke_view` takes. ttl: None: until it is revoked. Raises NoSuchLease.
    """
    try:
        store.rows(_GRANT, [sha256(key).digest(), lease, label, ttl])
    except StoreError as error:
        raise _translated(error) from error


def viewer_keys(store: Store) -> list[ViewerKey]:
    """All viewers' keys, the newest first."""
    return readable_rows(store, _KEYS, [], ViewerKey, "the key", "label")


def revoke_view(store: Store, label: str) -> int:
    """Revoke the viewers' keys with this label; return how many there were."""
    (count,) = store.values(_REVOKE, [label], of=int)
    return count


def close_inbox(store: Store, lease: int) -> Lease:
    """End a visitor's inbox: its lease, its keys, and the right to get the address back. Raises NoSuchLease."""
    try:
        (closed,) = store.rows(_CLOSE, [lease], row=Lease)
    except StoreError as error:
        raise _translated(error) from error
    return closed


def close_network(
    store: Store, network: str, ttl: timedelta | None = None, label: str | None = None, inboxes: bool = False
) -> int:
    """Let nobody open an inbox from this network, for `ttl` or until `reopen_network`.

    inboxes: close those that were opened from there as well; returns how many.
    """
    (count,) = store.values(_CLOSE_NETWORK, [network, ttl, label, inboxes], of=int)
    return count


def reopen_network(store: Store, network: str) -> bool:
    """Take `close_network` back; return whether the network was closed."""
    (reopened,) = store.values(_REOPEN, [network], of=bool)
    return reopened


def closed_networks(store: Store) -> list[ClosedNetwork]:
    """The closed networks."""
    return readable_rows(store, _CLOSED, [], ClosedNetwork, "the network", "network")


def _translated(error: StoreError) -> Exception:
    return NoSuchLease(str(error)) if error.sqlstate == NO_DATA_FOUND else error
