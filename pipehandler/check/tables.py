"""Query Postfix's tables as Postfix does, with its account: a table that fails refuses all mail, whatever main.cf says.

With the same queries: is postmaster accepted in every domain?
"""

import os
import re
import shlex
from collections.abc import Iterator

from pipehandler.postfix.postconf import Postfix, PostfixError, tables, words
from pipehandler.postfix.templates import PROGRAM
from pipehandler.store.roles import LOOKUP

from .finding import Finding
from .role import quoted

_PARAMETERS = ("virtual_mailbox_domains", "virtual_mailbox_maps", "virtual_alias_maps", "transport_maps")
"""Those that decide on a recipient of ours."""

_COMPILED = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb", "dbm": ".pag"}
"""Tables that postmap(1) makes from a text, and what it appends to the name."""

_CONFIGURED = ("pgsql", "mysql", "ldap", "sqlite", "memcache")
"""Tables with a file of parameters."""

_MOST_DOMAINS = 100


def check_tables(postfix: Postfix, path: str) -> Iterator[Finding]:
    """Query each table; needs root. path: of the handler's configuration."""
    failed = False
    for table in dict.fromkeys(table for name in _PARAMETERS for table in tables(postfix.parameters[name])):
        try:
            postfix.query(table.lstrip("!"), ["postmaster@example.invalid"])
        except PostfixError as error:
            failed = True
            if _is_missing(table):
                continue
            yield Finding(
                "table-fails",
                f"{table} cannot be queried as {postfix.parameters['mail_owner']}: {error}",
                "Clients are refused for now (451 4.3.0 Temporary lookup failure), or mail waits in the queue.",
                _fix(postfix, table.lstrip("!"), str(error)),
            )
    if not failed:
        yield from _postmaster(postfix, path)


def _is_missing(table: str) -> bool:
    """Whether the file with the parameters of a table does not exist, which postconf warns of."""
    kind, _, name = table.lstrip("!").removeprefix("proxy:").partition(":")
    return kind in _CONFIGURED and not os.path.exists(name)


def _fix(postfix: Postfix, table: str, error: str) -> str:
    kind, _, name = table.removeprefix("proxy:").partition(":")
    if "unsupported dictionary type" in error:
        return f"apt-get install postfix-{kind}"
    if kind in _COMPILED and os.path.exists(name) and not os.path.exists(name + _COMPILED[kind]):
        return postfix.command(f"{kind}:{name}", program="postmap")
    if kind == "pgsql" and "pipehandler.lookup" in (text := _content(name)):
        role = re.search(r"^\s*hosts\s*=(?:.|\n)*?[?&]user=([\w.-]+)", text, re.MULTILINE)
        return _login(role[1] if role else postfix.parameters["mail_owner"])
    again = postfix.command("-q", "postmaster@example.com", table, program="postmap")
    return f"# correct it, until this is silent: runuser -u {postfix.parameters['mail_owner']} -- {again}"


def _content(name: str) -> str:
    try:
        with open(name, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _login(role: str) -> str:
    """Return SQL after which the role of Postfix exists, may log in and may look recipients up; safe to run twice."""
    literal = "'" + role.replace("'", "''") + "'"
    create = f"IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) THEN CREATE ROLE {quoted(role)};END IF;"
    return f"DO $do$ BEGIN {create}END $do$; ALTER ROLE {quoted(role)} LOGIN; GRANT {LOOKUP} TO {quoted(role)};"


def _postmaster(postfix: Postfix, path: str) -> Iterator[Finding]:
    """Look for postmaster in each domain that virtual_mailbox_domains lists by name."""
    maps = tables(postfix.parameters["virtual_mailbox_maps"])
    domains = [word for word in words(postfix.parameters["virtual_mailbox_domains"]) if not re.search("[:/!{}]", word)]
    if not maps:
        return  # any recipient is accepted
    found: set[str] = set()
    asked = [f"{name}@{domain}" for domain in domains[:_MOST_DOMAINS] for name in ("postmaster", "")]
    for table in (*maps, *tables(postfix.parameters["virtual_alias_maps"])):
        found |= postfix.query(table, asked).keys()
    missing = [
        f"postmaster@{domain}"
        for domain in domains[:_MOST_DOMAINS]
        if not found & {f"postmaster@{domain}", f"@{domain}"}
    ]
    if not missing:
        return
    ours = any("pipehandler.lookup" in _content(table.rpartition("pgsql:")[2]) for table in maps if "pgsql:" in table)
    add = [shlex.join([PROGRAM, "--config", path, "address", "add", address]) for address in missing]
    yield Finding(
        "postmaster-missing",
        f"{', '.join(missing)}: neither virtual_mailbox_maps nor virtual_alias_maps has it, so RCPT TO is refused",
        "Every domain that receives mail must accept it (RFC 5321 4.5.1): other operators, block lists and certificate"
        " authorities write there.",
        " && ".join(add) if ours else f"# add it to virtual_alias_maps or to {maps[0]}",
    )
