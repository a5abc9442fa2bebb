"""Check whether Postfix knows at RCPT TO which recipients the handler accepts: virtual_mailbox_maps and its pgsql table."""

import os
import re
import shlex
from collections.abc import Iterator

from pipehandler.postfix.postconf import Postfix, words
from pipehandler.postfix.templates import PROGRAM, literal
from pipehandler.settings.config import Config

from .finding import Finding

_FILE = "pgsql-recipients.cf"
_SHARDS_FILE = "pgsql-shards.cf"
_RESTRICTIONS = "smtpd_recipient_restrictions"
_QUERY = re.compile(r"^query\s*=.*?pipehandler\.lookup\(\s*'%[sS]'\s*(?:,\s*('(?:[^']|'')*')\s*)?\)", re.MULTILINE)


def check_recipients(postfix: Postfix, path: str, config: Config) -> Iterator[Finding]:
    """Check the table of recipients. path: of the handler's configuration; config: its contents."""
    tables = words(postfix.parameters["virtual_mailbox_maps"])
    files = _files(tables)
    if config.recipients.policy == "known" and (not files or any("static:" in table for table in tables)):
        yield Finding(
            "recipients-open",
            f"virtual_mailbox_maps is {' '.join(tables) or 'empty'}, but recipients.policy is known",
            "Mail for any recipient is accepted; without a lease it is bounced later (5.1.1) to a sender that may be forged.",
            _set_up(postfix, path),
        )
    for file in files:
        yield from _table(os.path.join(postfix.directory, file), config)


def check_shards_away(postfix: Postfix) -> Iterator[Finding]:
    """Check, where the database is the proxy of shards, that mail to an address whose shard is away is deferred at RCPT TO."""
    files = _files(words(postfix.parameters["virtual_mailbox_maps"]))
    ours = [file for file in files if _query(os.path.join(postfix.directory, file))]
    settings = [postfix.parameters, *(service.options for service in postfix.services)]
    restrictions = " ".join(value for each in settings for name, value in each.items() if "restriction" in name)
    if not ours or re.search(r"check_recipient_access[\s,]+(proxy:)?pgsql:", restrictions):
        return
    source, target = (shlex.quote(os.path.join(postfix.directory, name)) for name in (ours[0], _SHARDS_FILE))
    script = shlex.quote(r"s/^query = SELECT \(.*\)/query = SELECT l FROM \1 AS l WHERE l <> 'OK'/")
    access = f"check_recipient_access proxy:pgsql:{os.path.join(postfix.directory, _SHARDS_FILE)}"
    before = postfix.explicit().get(_RESTRICTIONS)
    fix = f"cp -p {source} {target} && sed -i {script} {target} && {postfix.command('-e', f'{_RESTRICTIONS}={access}')}"
    yield Finding(
        "shard-away-accepted",
        f"no check_recipient_access in {_RESTRICTIONS} asks for recipients whose shard is away",
        "Mail for them is accepted, known or not: it waits in the queue, and bounces later if the address was never issued.",
        f"# add `{access}` to {_RESTRICTIONS}, and make that file (docs/scaling.md)" if before else fix,
    )


def _files(tables: list[str]) -> list[str]:
    return [table.rpartition("pgsql:")[2] for table in tables if re.match("(proxy:)?pgsql:", table)]


def _query(file: str) -> re.Match[str] | None:
    """The query in `file`, if it is ours: not that of another table, nor one that an operator wrote."""
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            return _QUERY.search(stream.read())
    except OSError:  # postconf warns of it
        return None


def _set_up(postfix: Postfix, path: str) -> str:
    file = os.path.join(postfix.directory, _FILE)
    others = [table for table in words(postfix.explicit().get("virtual_mailbox_maps", "")) if "static:" not in table]
    tables = ", ".join([*others, f"proxy:pgsql:{file}"])
    command = [PROGRAM, "--config", path, "postfix", _FILE, "--config-directory", postfix.directory]
    return (
        f"{shlex.join(command)} > {shlex.quote(file)}"
        f" && {postfix.command('-e', f'virtual_mailbox_maps={tables}')}"
        " # in psql: CREATE ROLE postfix LOGIN IN ROLE pipehandler_lookup;"
    )


def _table(file: str, config: Config) -> Iterator[Finding]:
    query_match = _query(file)
    if not query_match:
        return
    actual, expected = query_match[1] or "'+'", literal(config.recipients.delimiter)
    if actual != expected:
        query = f"query = SELECT pipehandler.lookup('%s', {expected})"
        script = "s/^query.*/" + re.sub(r"([\\/&])", r"\\\1", query) + "/"
        yield Finding(
            "recipients-delimiter",
            f"the query in {file} uses the delimiter {actual}, but recipients.delimiter is {expected}",
            "Postfix refuses recipients that the handler would accept, or accepts some that it then rejects.",
            f"sed -i {shlex.quote(script)} {shlex.quote(file)}",
        )
