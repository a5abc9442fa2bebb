"""Compare the transport in master.cf with what `pipehandler postfix master.cf` prints, where every word has a reason.

The fix is either a command for one field, or one that prints the whole entry again.
"""

import grp
import os
import pwd
import shlex
from collections.abc import Iterator

from pipehandler.postfix import client
from pipehandler.postfix.postconf import Postfix, PostfixError, Service
from pipehandler.postfix.templates import PROGRAM
from pipehandler.settings.config import Config

from .argv import DEFERRED, PartialFinding, check_argv, client_words, deliver_index
from .client import check_client
from .finding import Finding

_FILTER = "pipe_delivery_status_filter"
_FILTER_FILE = "pipehandler_status_filter"
_BOUNCED = (
    '5.3.0 Command died with status 1: "python"',
    '5.3.0 Command time limit exceeded: "python"',
    "5.7.0 permission denied",
    "5.1.1 user unknown. Command output: Traceback",
    "5.1.1 library 5.1.1 not found",
    "5.0.0 stored before",
)
"""The texts with which pipe(8) bounces mail if the handler could not start or did not end."""

_FLAGS = {
    "B": ("flags-change-bytes", "an empty line is appended to each message"),
    "F": ("flags-change-bytes", "a From_ line with the time is put before each message"),
    ".": ("flags-change-bytes", "a dot is added to lines that begin with one"),
    ">": ("flags-change-bytes", "a > is added to lines that begin with From"),
    "D": ("flags-needless", "a Delivered-To field is prepended"),
    "O": ("flags-needless", "an X-Original-To field is prepended"),
    "R": ("flags-needless", "a Return-Path field is prepended"),
    "q": ("flags-change-addresses", "addresses are quoted"),
    "u": ("flags-change-addresses", "the local part of addresses is folded to lower case"),
    "h": ("flags-change-addresses", "the domain of addresses is folded to lower case"),
}
_FLAGS_DETAIL = {
    "flags-change-bytes": "What is stored differs from what was received, and signatures no longer verify.",
    "flags-needless": "The envelope is in argv already, and each recipient's copy gets different bytes.",
    "flags-change-addresses": "The handler expects unchanged addresses; otherwise two recipients may become one.",
}


def transports(postfix: Postfix) -> list[Service]:
    """Return the services that run `deliver`."""
    return [service for service in postfix.services if deliver_index(service)]


def entry_command(postfix: Postfix, path: str, config: Config | None, service: Service | None) -> str:
    """Return a command that writes the correct entry to master.cf, and removes `service` first if it is given."""
    words = [PROGRAM, "--config", path, "postfix", "master.cf", "--config-directory", postfix.directory]
    if config:
        words += ["--socket", config.serve.socket]
    line = ""
    rename = ""
    if service:
        user = service.attributes.get("user", "").partition(":")[0]
        if not _user(postfix, service):  # the account is acceptable
            words += ["--user", user]
        if service.maxproc.isdigit() and service.maxproc != "0":
            words += ["--maxproc", service.maxproc]
        line = f"{postfix.command('-MX', service.pattern)} && "
        words += _same_client(service)
        if service.name != "pipehandler":
            rename = f" | sed {shlex.quote(f's/^pipehandler /{service.name} /')}"
    return f"{line}{shlex.join(words)}{rename} >> {shlex.quote(os.path.join(postfix.directory, 'master.cf'))}"


def _same_client(service: Service) -> list[str]:
    """Return the option that keeps the entrypoint which the entry has: to change it is the operator's decision."""
    path = client_words(service)[-2:-1] or (["none"] if os.path.exists(client.PATH) else [])
    return [] if path == (client.PATH,) else [each for name in path for each in ("--client", name)]


def check_transport(postfix: Postfix, service: Service, path: str, config: Config | None) -> list[Finding]:
    """Check the entry `service`. path: of the configuration that is checked; config: its contents, if it loads."""
    return [
        Finding(
            code, f"master.cf, {service.pattern}: {what}", detail, fix or entry_command(postfix, path, config, service)
        )
        for code, what, detail, fix in (
            *_fields(postfix, service),
            *_user(postfix, service),
            *_attributes(service),
            *check_client(postfix, service),
            *check_argv(service, path, config),
            *_status_filter(postfix, service),
        )
    ]


def _fields(postfix: Postfix, service: Service) -> Iterator[PartialFinding]:
    if service.command != "pipe" or service.kind != "unix":
        what = f"it is a service of {service.command}, of type {service.kind}"
        yield "transport-command", what, "Only pipe(8) starts the handler correctly. " + DEFERRED, ""
    # Postfix before 3.0, and its compatibility level 0, mean y.
    old = postfix.parameters.get("compatibility_level", "0") == "0"
    if service.chroot == "y" or (service.chroot == "-" and old):
        fix = postfix.command("-F", f"{service.pattern}/chroot=n")
        yield "chroot", "chroot is y", "The interpreter and PostgreSQL's socket are outside. " + DEFERRED, fix
    if processes(postfix, service) == 0:
        yield (
            "maxproc",
            "maxproc is 0, which allows any number of processes",
            "A burst of mail takes all connections of the database, and all memory.",
            postfix.command("-F", f"{service.pattern}/process_limit=20"),
        )


def processes(postfix: Postfix, service: Service) -> int:
    """Return the number of processes that the service may have; 0: any number."""
    maxproc = postfix.parameters["default_process_limit"] if service.maxproc == "-" else service.maxproc
    return int(maxproc) if maxproc.isdigit() else 0


def _user(postfix: Postfix, service: Service) -> list[PartialFinding]:
    name, _, group = service.attributes.get("user", "").partition(":")
    if not name:
        return [("user-missing", "user= is missing", "pipe(8) refuses to run anything. " + DEFERRED, "")]
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        fix = f"useradd --system --no-create-home --shell /usr/sbin/nologin {shlex.quote(name)}"
        return [("user-unknown", f"there is no account {name}", "pipe(8) cannot start. " + DEFERRED, fix)]
    try:
        group = grp.getgrgid(account.pw_gid).gr_name if not group else grp.getgrnam(group).gr_name
    except KeyError:
        fix = f"groupadd --system {shlex.quote(group or str(account.pw_gid))}"
        return [("user-unknown", f"the group of {name} does not exist", "pipe(8) cannot start. " + DEFERRED, fix)]
    of_postfix = (postfix.parameters["mail_owner"], postfix.parameters["setgid_group"])
    if account.pw_uid == 0 or grp.getgrnam(group).gr_gid == 0 or name in of_postfix or group in of_postfix:
        detail = "pipe(8) refuses root, Postfix's own account, and their groups. " + DEFERRED
        return [("user-privileged", f"it runs as {name}, group {group}", detail, "")]
    return []


def _attributes(service: Service) -> Iterator[PartialFinding]:
    wrong: dict[str, list[str]] = {}
    for flag in service.attributes.get("flags", ""):
        if flag in _FLAGS:
            code, effect = _FLAGS[flag]
            wrong.setdefault(code, []).append(f"{flag} ({effect})")
    for code, effects in wrong.items():
        yield code, f"flags={service.attributes['flags']} has {', '.join(effects)}", _FLAGS_DETAIL[code], ""
    if service.attributes.get("null_sender", "MAILER-DAEMON"):
        yield (
            "null-sender",
            "null_sender= is missing, or not empty",
            "Bounces would be stored with the sender MAILER-DAEMON instead of the null sender.",
            "",
        )
    if service.attributes.get("eol", "\\n") != "\\n":
        detail = "What is stored differs from what was received: the handler expects lines that end in LF."
        yield "flags-change-bytes", f"eol={service.attributes['eol']}", detail, ""
    if "chroot" in service.attributes:
        detail = "The interpreter and PostgreSQL's socket are outside. " + DEFERRED
        yield "chroot", f"chroot={service.attributes['chroot']}", detail, ""


def _status_filter(postfix: Postfix, service: Service) -> Iterator[PartialFinding]:
    file = os.path.join(postfix.directory, _FILTER_FILE)
    fix = (
        f"{shlex.join([PROGRAM, 'postfix', _FILTER_FILE])} > {shlex.quote(file)}"
        f" && {postfix.command('-P', f'{service.pattern}/{_FILTER}=regexp:{file}')}"
    )
    detail = "With a broken virtual environment, or a handler that does not end, mail is bounced instead of deferred."
    tables = service.options.get(_FILTER, postfix.parameters.get(_FILTER, ""))
    if not tables:
        yield "status-filter", f"{_FILTER} is not set", detail, fix
        return
    try:
        unfiltered = [text for text in _BOUNCED if not postfix.lookup(tables, text).startswith("4.")]
    except PostfixError as error:
        yield "status-filter", f"{_FILTER}={tables} cannot be used: {error}", detail, fix
        return
    if unfiltered:
        yield "status-filter", f"{_FILTER}={tables} does not turn {unfiltered[0]} into 4.3.0", detail, fix
