"""A message to postmaster of each domain, through this host's Postfix."""

import json
import shlex
from datetime import UTC, datetime

from pipehandler.postfix.postqueue import QueueError, listing

from ..host import Host
from ..postfix_state import RECIPIENTS, PostfixState
from ..step import Step, output
from .tables import accepts_any

SUBJECT = "pipehandler setup"
"""The beginning of the message's subject, by which the next run finds it."""

_SECONDS = 60


def first_message(host: Host, changed: bool) -> Step:
    """Return the step that sends the message and waits until it is stored.

    changed: whether this run changed the host. If so, an older message proves nothing.
    """
    addresses = [f"postmaster@{domain}" for domain in host.domains if domain.isascii()]
    missing = [address for address in addresses if changed or not _is_stored(host, address)]
    if not missing:
        return Step("first message", f"stored for {', '.join(addresses)}")
    subject = f"{SUBJECT} {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    commands = []
    for address in missing:
        if not accepts_any(PostfixState.read(host)):
            # Look up as smtpd(8) does: through proxymap(8), which runs under Postfix's account.
            table = f"proxy:pgsql:{host.file(RECIPIENTS)}"
            commands.append(f"{host.postfix_program('postmap', '-q', address, table)} > /dev/null")
        header = f"From: {address}\\nTo: {address}\\nSubject: {subject}\\n"
        text = f"{header}\\nThis message came through Postfix and pipehandler into the database.\\n"
        commands.append(f"printf {shlex.quote(text)} | {host.postfix_program('sendmail', '-f', address, address)}")
        stored = f"until {_list(host, address, subject)} | grep -F {address}; do sleep 1; done"
        commands.append(f"timeout {_SECONDS} sh -c {shlex.quote(stored)}")
    return Step("first message", f"to {', '.join(missing)}", tuple(commands))


def failure(host: Host) -> str:
    """Return why the message may not have been stored: the reasons in Postfix's queue."""
    try:
        reasons = [reason for queue in listing(host.config_directory).queues.values() for reason in queue.reasons]
    except QueueError as error:
        reasons = [str(error)]
    return f"the message was not stored; {'; '.join(reasons) or 'nothing is in the queue: read the mail log'}"


def _list(host: Host, address: str, subject: str, *options: str) -> str:
    return host.program("list", "--recipient", address, "--subject", subject, "--limit", "1", *options)


def _is_stored(host: Host, address: str) -> bool:
    printed = output(shlex.split(_list(host, address, SUBJECT, "--json")))
    return bool(printed and json.loads(printed))
