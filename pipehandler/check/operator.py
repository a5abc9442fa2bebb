"""Check what the operator's commands and the timer of `expire` need: the role of database.admin_conninfo, as root uses it."""

import os
import time
from collections.abc import Iterator

from pipehandler.postfix.destination import parents, replacement, route
from pipehandler.postfix.postconf import Postfix, PostfixError, tables, words
from pipehandler.postfix.templates import PROGRAM
from pipehandler.settings.config import Config
from pipehandler.store.addresses import leased_domains
from pipehandler.store.connection import Store
from pipehandler.store.due import rules_differ
from pipehandler.store.errors import StoreError
from pipehandler.store.health import health
from pipehandler.store.hints import hint
from pipehandler.store.roles import MAINTENANCE, READER
from pipehandler.store.shards import Shard, shards

from .collation import check_collation
from .days import start_expire
from .finding import Finding
from .lmtp import lmtp_transports
from .recipients import check_shards_away
from .refused import unreachable
from .restored import check_restored
from .role import quoted
from .schema import check_schema
from .transport import transports

_PATIENCE = 3600
"""Seconds after which what has expired should be gone, and changed rules should be known to the database."""

_MAY = """
SELECT current_user::text AS role,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS reads,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'DELETE') AS removes
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'pipehandler' AND c.relname = 'delivery'
"""

_COMMANDS_FAIL = "Mail is delivered, but `list`, `show`, `expire` and the other commands that read or change it fail."

_RELEASE = "SELECT current_setting('server_version_num')::int AS number"

_CLASSES = ("virtual_mailbox_domains", "virtual_alias_domains", "mydestination", "relay_domains")
"""The parameters that list the domains Postfix receives mail for (ADDRESS_CLASS_README)."""


def check_operator(config: Config, path: str, postfix: Postfix | None) -> list[Finding]:
    """Check as root, with `config` that was read from `path`. postfix: the instance, if it can be read."""
    if not config.database.admin_conninfo:
        return []
    database = config.database
    store = Store(database.admin_conninfo, database.connect_timeout, database.statement_timeout)
    try:
        store.connect()
    except StoreError as error:
        return [_unreachable(database.admin_conninfo, error, path)]
    try:
        found = shards(store)
        if not found:
            return _rights(store) or [*_expiry(store, config, path), *_leases(store, postfix, config)]
    except StoreError as error:
        return [_fails(error)]
    finally:
        store.close()
    return [
        *(check_shards_away(postfix) if postfix else ()),
        *(finding for shard in found for finding in _of_shard(shard, config, path, postfix)),
    ]


def _of_shard(shard: Shard, config: Config, path: str, postfix: Postfix | None) -> Iterator[Finding]:
    """Check one shard, to which the operator's commands connect without the proxy."""
    database = config.database
    conninfo = shard.own(database.admin_conninfo)
    store = Store(conninfo, database.connect_timeout, database.statement_timeout)
    try:
        store.connect()
    except StoreError as error:
        yield _unreachable_shard(shard, conninfo, error, path)
        return
    try:
        found = (
            _rights(store)
            or check_schema(store, _to_migrate)
            or [
                *_expiry(store, config, path),
                *_leases(store, postfix, config),
                *check_collation(store, store.rows(_RELEASE)[0]),
                *check_restored(store, lambda name: f"{PROGRAM} --shard {shard.number} {name}"),
            ]
        )
    except StoreError as error:
        found = [_fails(error)]
    finally:
        store.close()
    for finding in found:
        yield finding._replace(what=f"shard {shard.number}: {finding.what}")


def _to_migrate(code: str, what: str) -> Finding:
    detail = "Its mail would be deferred (4.3.0 message store unavailable)."
    return Finding(code, what, detail, f"# on the proxy, as a superuser: {PROGRAM} migrate")


def _unreachable(conninfo: str, error: StoreError, path: str) -> Finding:
    finding = unreachable(conninfo, error, path, key="database.admin_conninfo", groups=(READER, MAINTENANCE))
    if finding.code == "database-unreachable":
        return finding
    return finding._replace(code=f"admin-{finding.code}", detail=_COMMANDS_FAIL)


def _unreachable_shard(shard: Shard, conninfo: str, error: StoreError, path: str) -> Finding:
    finding = unreachable(conninfo, error, path, key="database.admin_conninfo", groups=(READER, MAINTENANCE))
    if finding.code == "database-unreachable":  # its place is not in the configuration, and the proxy may reach it
        finding = finding._replace(fix="# start it, or let this host connect to it, as the operator's commands do")
    what = f"shard {shard.number} ({shard.place}): {finding.what}"
    return finding._replace(code=f"admin-{finding.code}", what=what, detail=_COMMANDS_FAIL)


def _fails(error: StoreError) -> Finding:
    return Finding(
        "database-fails",
        f"a query with database.admin_conninfo failed: {error} (SQLSTATE {error.sqlstate})",
        "Commands that read or change mail may fail, and the timer of `expire` too.",
        f"# {hint(error.sqlstate) or 'read the log of the server'}",
    )


def _rights(store: Store) -> list[Finding]:
    findings = []
    for may in store.rows(_MAY):  # none without the schema, which the handler's part reports
        missing = [group for group, has in ((READER, may["reads"]), (MAINTENANCE, may["removes"])) if not has]
        if missing:
            findings.append(
                Finding(
                    "admin-rights-too-few",
                    f"role {may['role']} of database.admin_conninfo is not a member of {' and '.join(missing)}",
                    "Mail is delivered, but commands that read or change it fail, and so does the timer of `expire`.",
                    f"GRANT {', '.join(missing)} TO {quoted(may['role'])};",
                )
            )
    return findings


def _expiry(store: Store, config: Config, path: str) -> Iterator[Finding]:
    since = health(store).oldest_expired
    what = ""
    if since and time.time() - since.timestamp() > _PATIENCE:
        what = f"mail or leases that expired at {since.isoformat(' ', 'seconds')} have not been removed"
    elif time.time() - os.stat(path).st_mtime > _PATIENCE and rules_differ(store, config.retention):
        what = f"the rules of retention in {path} are not those of the database, which `expire` brings there"
    if what:
        yield Finding(
            "expire-overdue",
            what,
            "`pipehandler expire` does not run, or fails: mail is kept for longer than the rules say.",
            start_expire(path),
        )


def _leases(store: Store, postfix: Postfix | None, config: Config) -> Iterator[Finding]:
    if postfix is None:
        return
    try:
        domains = leased_domains(store)
        foreign = [domain for domain in domains if not _serves(postfix, domain)]
        elsewhere = {
            domain: where
            for domain in domains
            if domain not in foreign and (where := _elsewhere(postfix, config, domain))
        }
    except PostfixError:  # a table that fails, which check_tables reports
        return
    for domain, where in elsewhere.items():
        yield Finding(
            "lease-elsewhere",
            f"addresses are leased in {domain}, and its addresses {where}",
            "None of their mail reaches the handler.",
            "# remove that line from the table, or the leases if the mail is meant for the other place",
        )
    if foreign:
        listed = words(postfix.parameters["virtual_mailbox_domains"])
        plain = not any(":" in word or "/" in word for word in listed)
        yield Finding(
            "lease-domain",
            f"addresses are leased in {', '.join(foreign)}, which Postfix does not receive mail for",
            "Mail to them is refused or sent elsewhere; none of it reaches the handler.",
            postfix.command("-e", f"virtual_mailbox_domains={', '.join([*listed, *foreign])}")
            if plain
            else f"# add it to {' '.join(listed)}",
        )


def _serves(postfix: Postfix, domain: str) -> bool:
    """Whether one of the lists of domains has `domain`."""
    return any(_lists(postfix, name, domain) for name in _CLASSES)


def _lists(postfix: Postfix, name: str, domain: str) -> bool:
    """Whether the list of domains `name` has `domain`, in either of its forms (RFC 5890: U-label, A-label)."""
    forms = {domain.lower(), _ascii(domain)}
    value = postfix.parameters.get(name, "")
    listed = {word.lower() for word in words(value)}
    if name == "relay_domains":  # parent_domain_matches_subdomains has it by default
        forms |= {parent for form in forms for parent in parents(form)}
    if forms & listed or any("/" in word and ":" not in word for word in listed):  # a file may have it
        return True
    return any(postfix.query(table.lstrip("!"), forms) for table in tables(value))


def _elsewhere(postfix: Postfix, config: Config, domain: str) -> str:
    """Return where the mail of a leased domain goes instead of to the handler; "" if nothing says so."""

    def find(table: str, key: str) -> str:
        return postfix.query(table, [key]).get(key, "")

    parameter, address = replacement(postfix.parameters, _ascii(domain), find)
    if parameter:
        return f"are all replaced by {address} ({parameter})"
    if _lists(postfix, "relay_domains", domain):  # another host may store them in the same database
        return ""
    transport, _, host = route(postfix.parameters, _ascii(domain), find).partition(":")
    ours = {service.name for service in (*transports(postfix), *lmtp_transports(postfix, config))}
    if not transport or transport in ours or config.watch.maildirs:
        return ""
    return f"go to {transport}:{host} (transport_maps)"


def _ascii(domain: str) -> str:
    try:
        return domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        return domain.lower()
