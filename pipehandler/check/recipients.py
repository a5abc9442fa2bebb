"""Does Postfix know at RCPT TO which recipients the handler will take? virtual_mailbox_maps, and the table for the pool of addresses."""

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
    """What is wrong with the table of recipients. path: of the handler's configuration; config: what is in it."""
    tables = words(postfix.parameters["virtual_mailbox_maps"])
    files = [table.rpartition("pgsql:")[2] for table in tables if re.match("(proxy:)?pgsql:", table)]
    if config.recipients.policy == "known" and (not files or any("static:" in table for table in tables)):
        yield Finding(
            "recipients-open",
            f"virtual_mailbox_maps is {' '.join(tables) or 'empty'}, and recipients.policy is known",
            "Mail for anybody is accepted; what has no lease is bounced later (5.1.1), to a sender that may be forged.",
            _set_up(postfix, path),
        )
    for file in files:
        yield from _table(os.path.join(postfix.directory, file), config)


def _set_up(postfix: Postfix, path: str) -> str:
    file = os.path.join(postfix.directory, _FILE)
    words = [PROGRAM, "--config", path, "postfix", _FILE, "--config-directory", postfix.directory]
    return (
        f"{shlex.join(words)} > {shlex.quote(file)}"
        f" && {postfix.command('-e', f'virtual_mailbox_maps=proxy:pgsql:{file}')}"
        " # in psql: CREATE ROLE postfix LOGIN IN ROLE pipehandler_lookup;"
    )


def _table(file: str, config: Config) -> Iterator[Finding]:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            found = _QUERY.search(stream.read())
    except OSError:  # postconf warns of it
        return
    if not found:  # another table, or a query of the operator's own
        return
    asked, wanted = found[1] or "'+'", literal(config.recipients.delimiter)
    if asked != wanted:
        query = f"query = SELECT pipehandler.lookup('%s', {wanted})"
        script = "s/^query.*/" + re.sub(r"([\\/&])", r"\\\1", query) + "/"
        yield Finding(
            "recipients-delimiter",
            f"the query in {file} says that {asked} begins an extension; recipients.delimiter is {wanted}",
            "Recipients are refused that the handler would take, or accepted and then rejected.",
            f"sed -i {shlex.quote(script)} {shlex.quote(file)}",
        )
