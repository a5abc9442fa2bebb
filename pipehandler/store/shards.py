"""Several databases as one: where the shards are, and how they are made (docs/design/shards.md).

A shard is a database of its own, which `migrate` and all other statements reach directly. The proxy is a database whose
functions find the shard; it has no mail. Deliveries, Postfix and readers connect to the proxy alone.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

from psycopg import sql
from psycopg.conninfo import make_conninfo

from .bigint import bigint
from .connection import Store
from .conninfo import has_several_servers, parameters
from .errors import NO_SQLSTATE, StoreError
from .message_store import IS_PROXY
from .migrate import WAIT, MigrationError, migrate
from .proxy import complete, differences
from .roles import ADDRESS_ADMIN, INGEST, LOOKUP, MAINTENANCE, READER
from .session import with_settings

COUNTS = (2, 4, 8, 16, 32)
"""How many shards there may be: PL/Proxy takes the last bits of a number."""

TIMEOUTS = {"statement_timeout": 20_000, "lock_timeout": 1_000}
"""Of the proxy's sessions on a shard, in milliseconds. PL/Proxy passes no setting of its own session on."""

DURABLE = "on"
"""synchronous_commit of these sessions."""

_PLACE = ("host", "hostaddr", "port", "dbname")
_PRIMARY = "target_session_attrs"
_LOCATION = (*_PLACE, _PRIMARY)
_ENCRYPTION = ("gssencmode", "channel_binding", "require_auth")
"""Of a conninfo, besides what begins with ssl."""

_CONNECTING: dict[str, str | int] = {"connect_timeout": 3, "tcp_user_timeout": 5000, "application_name": "pipehandler"}

_STATEMENT_SECONDS = 3600

_SHARDING = "SELECT s.shard, s.shards, s.delimiter FROM pipehandler.sharding s"
_IS_SHARDED = f"SELECT {IS_PROXY}"
_SHARDS = "SELECT s.shard AS number, s.conninfo FROM pipehandler.shards() AS s"
_OF_ADDRESS = "SELECT pipehandler.shard_of(%s, s.delimiter, s.shards) FROM pipehandler.sharding s"


class Shard(NamedTuple):
    """A shard: its number, from 0, and how the proxy connects to it, without the user and without secrets."""

    number: int
    conninfo: str

    @property
    def place(self) -> str:
        """Where it is, in a few words."""
        known = parameters(self.conninfo)
        return " ".join(f"{name}={known[name]}" for name in _PLACE if known.get(name))

    def own(self, conninfo: str) -> str:
        """How the user of `conninfo` connects to the shard itself. Raises StoreError."""
        kept = parameters(conninfo).items()
        return make_conninfo(
            "",
            **{name: value for name, value in kept if name not in (*_LOCATION, "options")},
            **_location(self.conninfo),
        )


def shards(store: Store) -> list[Shard]:
    """The shards behind this database; none if it is not their proxy. Raises StoreError."""
    if store.values(_IS_SHARDED, of=bool) != [True]:
        return []
    return store.rows(_SHARDS, row=Shard)


def chosen(store: Store, name: str) -> Shard | None:
    """The shard with this number, or that has this address; None where there is no such shard. Raises StoreError."""
    found = {shard.number: shard for shard in shards(store)}
    if not found or name.isdecimal():
        return found.get(int(name)) if name.isdecimal() and len(name) < 3 else None
    (number,) = store.values(_OF_ADDRESS, [name], of=int)
    return found[number]


def shard_of_lease(store: Store, name: str, count: int) -> int:
    """The number of the shard, of `count`, that has the lease with this number or address. store: the proxy. Raises StoreError."""
    number = bigint(name)
    if number is not None:
        return number % count
    if name.startswith("@"):
        return 0  # it has the number of a catch-all, and the others a copy
    (found,) = store.values(_OF_ADDRESS, [name], of=int)
    return found


def migrate_all(store: Store, conninfo: str, report: Callable[[str], object], wait: float = WAIT) -> list[str]:
    """Migrate the shards behind `store`, if there are any, and then `store` itself: its functions call theirs.

    conninfo: that of `store`. wait: as for `migrate`, for all of them together. Returns the names of the steps that were
    applied. Raises MigrationError, StoreError, where a shard fails after the other shards were migrated.
    """
    return _all_of(_migrated(store, [shard.own(conninfo) for shard in shards(store)], report, wait), report)


def plan_of_proxy(store: Store) -> str:
    """What `migrate_all` would add to this database as the proxy of shards, as statements. Raises StoreError."""
    missing = [each for each in differences(store) if each.is_missing] if shards(store) else []
    return "".join(f"{each.statement};\n" for each in missing)


def make_shards(
    store: Store,
    conninfo: str,
    conninfos: Sequence[str],
    delimiter: str,
    user: str,
    report: Callable[[str], object],
    wait: float = WAIT,
) -> list[str]:
    """Make `store` the proxy of the empty databases at `conninfos`, in the order of their numbers.

    Safe to repeat, with other places where shards have moved. user: the role as which PL/Proxy connects to every shard; it
    is created where it is missing, without a password. wait: as for `migrate_all`. Returns the names of the steps that were
    applied. Raises MigrationError, StoreError.
    """
    if len(conninfos) not in COUNTS:
        raise MigrationError(
            f"{len(conninfos)} shards; there may be {', '.join(map(str, COUNTS))}, and never more later"
        )
    owned = [Shard(number, text).own(conninfo) for number, text in enumerate(conninfos)]
    end = time.monotonic() + wait
    applied = _all_of(_migrated(store, owned, report, wait), report)
    for number, text in enumerate(owned):
        with closing(Store(text, statement_timeout=_STATEMENT_SECONDS)) as shard:
            become_shard(shard, number, len(owned), delimiter)
            _admit(shard, user)
    become_proxy(store, conninfos, delimiter, user)
    last = migrate(store, report, max(0.0, end - time.monotonic()), again=True)
    return [*applied, *(step.name for step in last), *complete(store)]


def _migrated(store: Store, conninfos: Sequence[str], report: Callable[[str], object], wait: float) -> Iterator[str]:
    """Migrate the shards, and then `store`; where a shard fails, the other shards and not `store`."""
    end = time.monotonic() + wait
    failed: list[StoreError | MigrationError] = []
    for number, conninfo in enumerate(conninfos):
        with closing(Store(conninfo, statement_timeout=_STATEMENT_SECONDS)) as shard:
            try:
                for step in migrate(shard, report, max(0.0, end - time.monotonic())):
                    yield f"{step.name} on shard {number}"
            except (StoreError, MigrationError) as error:
                failed.append(_of_shard(error, number))
    if failed:
        for further in failed[1:]:
            report(str(further))
        raise failed[0]
    if store.values(_IS_SHARDED, of=bool) == [True]:
        yield from complete(store)
    for step in migrate(store, report, max(0.0, end - time.monotonic())):
        yield step.name


def _all_of(steps: Iterator[str], report: Callable[[str], object]) -> list[str]:
    """The names of all steps; where one fails, those before it are reported, because nothing returns them."""
    done: list[str] = []
    try:
        for name in steps:
            done.append(name)
    except (StoreError, MigrationError):
        for name in done:
            report(f"applied {name}")
        raise
    return done


def _of_shard(error: StoreError | MigrationError, number: int) -> StoreError | MigrationError:
    """The same error, with the number of the shard, and what follows from it."""
    text = f"shard {number}: {error}; the proxy was not migrated, because its functions call those of all shards: run this again"
    if isinstance(error, StoreError):
        return StoreError(error.outcome, text, error.sqlstate)
    return type(error)(text)


def become_shard(store: Store, number: int, count: int, delimiter: str) -> None:
    """Make this empty, migrated database shard `number` of `count`, forever. Raises StoreError."""
    store.rows("SELECT pipehandler.become_shard(%s, %s, %s)", [number, count, delimiter])


def _admit(store: Store, user: str) -> None:
    """Give the proxy's role the rights that it needs on a shard, and the language in which it understands warnings."""
    name = sql.Identifier(user).as_string(None)
    if not store.rows("SELECT 1 AS one FROM pg_catalog.pg_roles r WHERE r.rolname = %s", [user]):
        store.script(f"CREATE ROLE {name} LOGIN")
    groups = ", ".join((INGEST, READER, LOOKUP, ADDRESS_ADMIN, MAINTENANCE))
    store.script(f"GRANT {groups} TO {name}; ALTER ROLE {name} SET lc_messages = 'C'")


def become_proxy(store: Store, conninfos: Sequence[str], delimiter: str, user: str) -> None:
    """Make this empty, migrated database the proxy of the shards at `conninfos`, in the order of their numbers.

    user: the role as which PL/Proxy connects to every shard. The caller applies sql/proxy afterwards (`migrate` with again=True).
    Raises MigrationError where it cannot be one, StoreError.
    """
    for row in store.rows(_SHARDING):
        if (row["shard"], row["shards"], row["delimiter"]) != (None, len(conninfos), delimiter):
            raise MigrationError(
                f"this database is the proxy of {row['shards']} shards with the delimiter {row['delimiter']!r}, or a shard"
                " itself, and that cannot change"
            )
        store.script(place_statement([Shard(number, text) for number, text in enumerate(conninfos)]))
        return
    (used,) = store.values(
        "SELECT EXISTS (SELECT FROM pipehandler.delivery) OR EXISTS (SELECT FROM pipehandler.address)", of=bool
    )
    if used:
        raise MigrationError("this database has mail or leases; the proxy is another, empty one")
    options = ", ".join(f"p{number} {sql.quote(proxy_conninfo(conninfo))}" for number, conninfo in enumerate(conninfos))
    try:
        store.script(
            "BEGIN; CREATE EXTENSION IF NOT EXISTS plproxy;"  # noqa: S608 # each value is a literal
            f" CREATE SERVER pipehandler FOREIGN DATA WRAPPER plproxy OPTIONS ({options});"
            f" CREATE USER MAPPING FOR CURRENT_USER SERVER pipehandler OPTIONS (user {sql.quote(user)});"
            f" INSERT INTO pipehandler.sharding (shards, delimiter) VALUES ({len(conninfos)}, {sql.quote(delimiter)});"
            " COMMIT"
        )
    except StoreError as error:
        store.close()
        if error.sqlstate == NO_SQLSTATE:
            raise
        raise MigrationError(
            f"{error}; the proxy needs PL/Proxy (Debian: postgresql-15-plproxy), and a superuser who migrates it, because"
            " its language is not a trusted one"
        ) from error


def proxy_conninfo(conninfo: str) -> str:
    """How the proxy connects to the shard at `conninfo`: with the settings of a session, and without user and secrets. Of
    several servers, it finds the primary."""
    encryption = {name: value for name, value in parameters(conninfo).items() if _encrypts(name)}
    settings = with_settings({**encryption, **_location(conninfo)}, TIMEOUTS)
    settings["options"] += f" -c synchronous_commit={DURABLE}"
    return make_conninfo("", **settings, **_CONNECTING)


def _location(conninfo: str) -> dict[str, str]:
    """Where a shard is, and, where it has several servers, which of them it is."""
    given = parameters(conninfo)
    found = {_PRIMARY: "read-write"} if has_several_servers(conninfo) else {}
    return found | {name: given[name] for name in _LOCATION if name in given}


def _encrypts(name: str) -> bool:
    return name in _ENCRYPTION or (name.startswith("ssl") and name != "sslpassword")


def place_statement(shards: Sequence[Shard]) -> str:
    """The statement after which the proxy finds these shards at their places."""
    places = ", ".join(f"SET p{number} {sql.quote(proxy_conninfo(conninfo))}" for number, conninfo in shards)
    return f"ALTER SERVER pipehandler OPTIONS ({places})"
