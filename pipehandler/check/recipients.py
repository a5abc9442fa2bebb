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
_QUERY = re.compile(r"^query\s*=.*?pipehandler\.lookup\(\s*'%[sS]'\s*(?:,\s*('(?:[^']|'')*')\s*)?\)", re.MULTILINE)


def check_recipients(postfix: Postfix, path: str, config: Config) -> Iterator[Finding]:
    """Check the table of recipients. path: of the handler's configuration; config: its contents."""
    tables = words(postfix.parameters["virtual_mailbox_maps"])
    files = [table.rpartition("pgsql:")[2] for table in tables if re.match("(proxy:)?pgsql:", table)]
    if config.recipients.policy == "known" and (not files or any("static:" in table for table in tables)):
        yield Finding(
            "recipients-open",
            f"virtual_mailbox_maps is {' '.join(tables) or 'empty'}, but recipients.policy is known",
            "Mail for any recipient is accepted; without a lease it is bounced later (5.1.1) to a sender that may be forged.",
            _set_up(postfix, path),
        )
    for file in files:
        yield from _table(os.path.join(postfix.directory, file), config)


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
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            query_match = _QUERY.search(stream.read())
    except OSError:  # postconf warns of it
        return
    if not query_match:  # another table, or a query that the operator wrote
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
