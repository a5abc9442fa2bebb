"""Check the shards behind a proxy, through the proxy, whose sessions there are those that a delivery uses."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from pipehandler.settings.config import Config
from pipehandler.store.connection import Store
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE, StoreError
from pipehandler.store.proxy import differences
from pipehandler.store.session import SETTINGS
from pipehandler.store.shards import DURABLE, TIMEOUTS, Shard, place_statement, shards
from pipehandler.store.sql_files import code

from .finding import Finding
from .role import quoted

_STATUS = "SELECT * FROM pipehandler.on_shard_status(%s)"
_OWN = "SELECT DISTINCT o.routing, o.delimiter FROM pipehandler.shard_status() AS o"

_SECONDS = 5
"""For one shard, whose server may be frozen."""

_OF_SESSION = ("client_min_messages", "DateStyle", "IntervalStyle", "TimeZone")
_ENGLISH = ("C", "POSIX", "en_")
"""How lc_messages begins. PL/Proxy passes on the words of a warning alone, such as that a standby did not confirm a commit."""

_DEFERRED = "Its mail is deferred, and stays in Postfix's queue; the other shards go on."
_ELSEWHERE = "Mail would be stored where no one looks for it, or twice."


def check_shards(store: Store, config: Config, path: str) -> Iterator[Finding]:
    """Check each shard behind `store`; nothing where that is not a proxy. path: of the configuration. Raises StoreError."""
    found = shards(store)
    if not found:
        return
    try:
        (own,) = store.rows(_OWN)
    except StoreError as error:
        if error.sqlstate != INSUFFICIENT_PRIVILEGE:  # which check_role reports
            raise
        return
    if own["delimiter"] != config.recipients.delimiter:
        yield Finding(
            "shard-delimiter",
            f"recipients.delimiter is {config.recipients.delimiter!r}; the shards were made with {own['delimiter']!r}",
            "Every message would be deferred: with another delimiter an address is on another shard.",
            f'# in {path}: [recipients], delimiter = "{own["delimiter"]}"; the same in pgsql-recipients.cf',
        )
    for each in differences(store):
        yield Finding(
            "proxy-differs",
            f"{each.name} {each.found}",
            "A shard that is frozen could hold up the mail of the others, or each message could cost the servers more.",
            "pipehandler migrate" if each.is_missing else f"# on the proxy, as a superuser: {each.statement};",
        )
    servers: dict[datetime, int] = {}
    asking = store.another(_SECONDS)
    try:
        for shard in found:
            try:
                rows = asking.rows(_STATUS, [shard.number])
            except StoreError as error:
                yield Finding(
                    "shard-away",
                    f"shard {shard.number} ({shard.place}) does not answer: {error}",
                    _DEFERRED,
                    "# start it; if it has moved, run `pipehandler migrate --proxy-of ...` with its new place (docs/scaling.md)",
                )
                continue
            yield from _place(shard, rows, len(found), own)
            if rows:
                yield from _program(shard, rows[0])
                yield from _session(shard, rows[0]["role"], {row["setting"]: row["value"] for row in rows})
                if (other := servers.setdefault(rows[0]["started"], shard.number)) != shard.number:
                    yield Finding(
                        "shard-cluster",
                        f"shards {other} and {shard.number} are databases of one cluster",
                        "Neither can move to another server by itself: physical replication takes the whole cluster.",
                        f"# while it is empty, make shard {shard.number} again in a cluster of its own",
                    )
    finally:
        asking.close()


def _place(shard: Shard, rows: list[dict[str, Any]], count: int, own: dict[str, Any]) -> Iterator[Finding]:
    """Compare what the database says that it is with what the proxy takes it for."""
    says = (rows[0]["shard"], rows[0]["shards"], rows[0]["delimiter"]) if rows else (None, None, None)
    if says != (shard.number, count, own["delimiter"]):
        is_it = f"shard {says[0]} of {says[1]} with the delimiter {says[2]!r}" if rows else "not a shard"
        yield Finding(
            "shard-mixed-up",
            f"{shard.place}, which the proxy takes for shard {shard.number} of {count}, is {is_it}",
            _ELSEWHERE,
            "# pipehandler migrate --proxy-of CONNINFO ..., with the places in the order of the numbers (docs/scaling.md)",
        )
    elif not rows[0]["numbers"]:
        yield Finding(
            "shard-numbers",
            f"shard {shard.number} gives out numbers of leases or deliveries that belong to other shards",
            "A number would mean different mail on different shards.",
            f"# in the database of shard {shard.number}, for address.lease as for delivery.id: ALTER TABLE pipehandler.delivery"
            f" ALTER COLUMN id SET INCREMENT BY 64 SET START WITH {64 + shard.number}; then pipehandler --shard"
            f" {shard.number} restored",
        )
    if rows and rows[0]["routing"] != own["routing"]:
        yield Finding(
            "shard-routing",
            f"shard {shard.number} and the proxy write addresses differently, because their servers have different releases",
            "An address may be on one shard at RCPT TO and on another one later.",
            "# run the same major release of PostgreSQL on the proxy and on all shards",
        )


def _program(shard: Shard, row: dict[str, Any]) -> Iterator[Finding]:
    if (row["code"], row["checksum"]) != (code().version, code().checksum):
        yield Finding(
            "shard-schema",
            f"shard {shard.number} has version {row['code']} of the functions, or another build; this program has {code().version}",
            "What this program expects of them may not be what they do.",
            "pipehandler migrate",
        )


def _session(shard: Shard, role: str, settings: dict[str, str]) -> Iterator[Finding]:
    """Check the settings of the very session that deliveries use there."""
    wanted = {name: SETTINGS[name] for name in _OF_SESSION} | {"synchronous_commit": DURABLE, "server_encoding": "UTF8"}
    wrong = {name: settings[name] for name, value in wanted.items() if _plain(settings[name]) != _plain(value)}
    if settings["synchronous_commit"] == "remote_apply":
        wrong.pop("synchronous_commit", None)
    wrong |= {name: settings[name] for name in TIMEOUTS if settings[name] in ("0", "")}
    if settings["lc_messages"] and not settings["lc_messages"].startswith(_ENGLISH):
        yield Finding(
            "shard-language",
            f"shard {shard.number} reports in another language than English: lc_messages is {settings['lc_messages']}",
            "A commit that its standby did not confirm would be acknowledged: the proxy passes on the words of a warning alone.",
            f"# on the server of shard {shard.number}: ALTER ROLE {quoted(role)} SET lc_messages = 'C';",
        )
    if wrong:
        listed = ", ".join(f"{name} is {value}" for name, value in wrong.items())
        yield Finding(
            "shard-session",
            f"the proxy's sessions on shard {shard.number} are not as they should be: {listed}",
            "A commit that is not safe could be acknowledged, or a stuck statement could hold up mail.",
            f"{place_statement([shard])};",
        )
    if settings["transaction_read_only"] == "on":
        is_standby = settings["in_hot_standby"] == "on"
        yield Finding(
            "shard-read-only",
            f"shard {shard.number} is read-only: {'its server is a standby' if is_standby else 'default_transaction_read_only is on'}",
            _DEFERRED,
            "# promote it, or name its primary: `pipehandler migrate --proxy-of ...` (docs/scaling.md)"
            if is_standby
            else f"# on the server of shard {shard.number}, for the role, the database or the server:"
            f" ALTER ROLE {quoted(role)} RESET default_transaction_read_only;",
        )
    for name in ("fsync", "full_page_writes"):
        if settings[name] != "on":
            yield Finding(
                f"shard-{name.replace('_', '-')}",
                f"{name} is {settings[name]} on shard {shard.number}",
                "After a power failure committed mail may be gone, and the whole database with it.",
                f"# on the server of shard {shard.number}: ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf();",
            )


def _plain(value: str) -> str:
    return value.replace(" ", "")
