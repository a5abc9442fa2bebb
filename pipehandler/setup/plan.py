"""Plan the steps of setup in order, carry them out, and undo them."""

import json
import os
import shlex
from collections.abc import Callable, Iterator

from pipehandler.postfix.postconf import find_program, words

from .files import digest
from .host import Host
from .postfix_state import PostfixState
from .record import Record
from .step import Change, SetupError, Step, output, run
from .steps.account import account, directories
from .steps.configuration import configuration
from .steps.database import database, roles, schema
from .steps.embedded import embedded
from .steps.first_message import failure, first_message
from .steps.packages import packages
from .steps.program import program
from .steps.receive_only import receive_only
from .steps.recipients import recipients
from .steps.routing import routing
from .steps.server import server
from .steps.services import postfix, units
from .steps.tables import tables
from .steps.transport import transport
from .undo import undo

STEPS: tuple[Callable[[Host, Record], Step], ...] = (
    *(packages, program, account, directories),
    *(embedded, server, database, schema, roles),
    *(configuration, tables, transport, recipients, routing, receive_only),
    *(units, postfix),
)
"""All steps before the first message. Each depends on those before it."""

_CAUTIOUS = (packages, program, account, server, database, configuration, tables, transport, routing, receive_only)
"""The steps that refuse a host with a conflict, or show differences for other mail."""

# The kinds of change after which Postfix must reload its configuration.
_OF_POSTFIX = ("parameter", "list", "settings", "block", "postscreen", "copy")

Say = Callable[[str], object]
"""A function that is called with each line for the operator."""


def plan(host: Host, record: Record) -> list[Step]:
    """Return all steps for the host as it is now. Raises SetupError."""
    steps = [make(host, record) for make in STEPS]
    return [*steps, first_message(host, any(step.commands for step in steps))]


def preview(host: Host, record: Record) -> list[str]:
    """Return the differences that need confirmation. Raises SetupError for any conflict, before anything is changed."""
    return [line for make in _CAUTIOUS for line in make(host, record).differences]


def set_up(host: Host, record: Record, say: Say) -> bool:
    """Do what is missing. Returns whether `check` finds no problem. Raises SetupError at the first step that fails."""
    changed = False
    for make in STEPS:
        host = host.with_settings()
        step = make(host, record)
        changed = changed or bool(step.commands)
        _carry_out(step, record, say)
        if step.commands and (left := make(host.with_settings(), record)).commands:
            raise SetupError(f"{step.title}: its commands succeeded, but still: {left.found}")
    host = host.with_settings()
    clean = _check(host, say)
    try:
        _carry_out(first_message(host, changed), record, say)
    except SetupError as error:
        raise SetupError(f"{failure(host)} ({error})") from error
    return clean


def check_command(host: Host) -> str:
    """Return the command that checks for anything that would make deliveries fail."""
    return host.program("check", "--config-directory", host.config_directory)


def _check(host: Host, say: Say) -> bool:
    say("check")
    say(f"    $ {check_command(host)}")
    try:
        run(check_command(host))
    except SetupError:
        return False
    return True


def _carry_out(step: Step, record: Record, say: Say) -> None:
    if step.found:
        say(f"{step.title}: {step.found}")
    if not step.commands:
        return
    for change in step.changes:
        record.add(change)
    record.save()
    _run_all(step, say)
    for change in step.changes:
        if change.kind == "file":
            record.add(change._replace(after=digest(change.name)))
    record.save()


def _run_all(step: Step, say: Say) -> None:
    for command in step.commands:
        for number, line in enumerate(command.split("\n")):
            say(f"    {'$' if number == 0 else '>'} {line}")
        run(command)


def removal(host: Host, record: Record) -> Iterator[tuple[Change | None, Step]]:
    """Yield the steps that undo the recorded changes, latest first, each for the host as it is then. Raises SetupError.

    A step without a change reloads Postfix.
    """
    folder = Change("folder", os.path.dirname(record.path))  # contains the record, so it comes last
    to_reload = False
    for change in [*(change for change in reversed(record.changes) if change != folder), None]:
        if to_reload and (change is None or change.kind not in _OF_POSTFIX):
            to_reload = False
            yield None, Step("postfix", "it reads its configuration again", PostfixState.read(host).reload())
        if change:
            to_reload = to_reload or change.kind in _OF_POSTFIX
            yield change, undo(host, change)


def remove(host: Host, record: Record, say: Say) -> list[str]:
    """Undo all recorded changes. Returns the failures, which stay in the record. Raises SetupError."""
    refuse_with_mail_in_queue(host, record)
    failed = []
    for change, step in removal(host, record):
        say(f"{step.title}: {step.found}")
        try:
            _run_all(step, say)
        except SetupError as error:
            failed.append(str(error))
        else:
            if change:
                record.discard(change)
                record.save()
    if not failed:
        _run_all(without_record(record), say)
    return failed


def without_record(record: Record) -> Step:
    """Return the step that removes the record, once everything in it is undone, and its folder if setup created it."""
    folder = os.path.dirname(record.path)
    commands = [shlex.join(["rm", "-f", record.path])]
    if record.find("folder", folder):
        commands.append(shlex.join(["rmdir", "--ignore-fail-on-non-empty", folder]))
    return Step("record", record.path, tuple(commands))


def refuse_with_mail_in_queue(host: Host, record: Record) -> None:
    """Raise SetupError while Postfix has queued mail for the handler, which would bounce after the removal."""
    change = record.find("list", "virtual_mailbox_domains")
    if change is None or find_program("postconf") is None:
        return
    domains = words(change.after or "")
    listed = output([*host.postfix_program("postqueue", "-j").split()])
    if listed is None:
        raise SetupError("the queue of Postfix cannot be listed; `postfix start`, so that no mail in it is lost")
    waiting = [
        address
        for line in listed.splitlines()
        for address in (recipient["address"] for recipient in json.loads(line)["recipients"])
        if address.rpartition("@")[2].lower() in domains
    ]
    if waiting:
        raise SetupError(
            f"Postfix has mail for {waiting[0]}{' and others' if len(waiting) > 1 else ''} in its queue, which would bounce;"
            " deliver it first (`postqueue -f`; `pipehandler status` has the reasons), or delete it (`postsuper -d`)"
        )
