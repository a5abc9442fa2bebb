"""Compare the transport of lmtp(8) with what `pipehandler postfix lmtp.master.cf` and `lmtp.main.cf` print."""

import os
import shlex
import socket
from collections.abc import Iterator

from pipehandler.postfix.postconf import Postfix, PostfixError, Service, seconds
from pipehandler.postfix.postconf import words as listed
from pipehandler.postfix.templates import PROGRAM
from pipehandler.settings.config import Config

from .argv import DEFERRED
from .finding import Finding
from .transport import processes

NAME = "pipehandler-lmtp"
"""The name of the transport in the example."""

_FILTER = "lmtp_delivery_status_filter"
_FILTER_FILE = "pipehandler_status_filter"
_BOUNCED = (
    "5.5.1 host mx[/run/pipehandler/lmtp] said: 500 5.5.1 command not recognised (in reply to LHLO command)",
    "5.4.4 unable to look up host",
)
"""Texts with which lmtp(8) bounces mail for a fault of this host."""

_CHANGING = (
    "lmtp_generic_maps",
    "lmtp_header_checks",
    "lmtp_mime_header_checks",
    "lmtp_nested_header_checks",
    "lmtp_body_checks",
)
"""Parameters that change addresses or bytes on the way."""

_MARGIN = 30  # seconds between our deadline and Postfix's
_CONNECT_SECONDS = 2.0


def lmtp_transports(postfix: Postfix, config: Config | None) -> list[Service]:
    """Return the services of lmtp(8) that deliver to `pipehandler serve`: by their name, or by the socket they are given."""
    places = _places(config)
    routes = [value for name, value in postfix.parameters.items() if name.endswith("_transport")]
    using = {route.partition(":")[0] for route in routes if route.partition(":")[2] in places}
    return [each for each in postfix.services if each.command == "lmtp" and (each.name == NAME or each.name in using)]


def check_lmtp(
    postfix: Postfix, path: str, service: Service, config: Config | None, started: bool
) -> Iterator[Finding]:
    """Check one transport. path: that of `config`. started: whether the service should be running."""
    for name, wanted, detail in (
        ("lmtp_line_length_limit", "0", "Longer lines are broken: what is stored differs from what was received."),
        ("lmtp_send_xforward_command", "yes", "The queue id and the client would not be stored."),
    ):
        if _value(postfix, service, name) != wanted:
            found = _value(postfix, service, name) or "not set"
            fix = postfix.command("-P", f"{service.pattern}/{name}={wanted}")
            yield Finding(name.replace("_", "-"), f"{name} of {service.name} is {found}, not {wanted}", detail, fix)
    yield from _changes(postfix, service)
    yield from _status_filter(postfix, service)
    yield from _reports(postfix, service, config)
    yield from _concurrency(postfix, service, config)
    if config:
        yield from _socket(postfix, service, path, config, started)


def _value(postfix: Postfix, service: Service, name: str) -> str:
    return service.options.get(name, postfix.parameters.get(name, ""))


def _places(config: Config | None) -> set[str]:
    if config is None:
        return set()
    return {f"{kind}:{place}" for kind, place in (("unix", config.lmtp.socket), ("inet", config.lmtp.address)) if place}


def _changes(postfix: Postfix, service: Service) -> Iterator[Finding]:
    for name in _CHANGING:
        if value := _value(postfix, service, name):
            yield Finding(
                "lmtp-changes",
                f"{name} of {service.name} is {value}",
                "What is stored differs from what was received.",
                postfix.command("-P", f"{service.pattern}/{name}="),
            )
    if flags := service.attributes.get("flags"):
        yield Finding(
            "lmtp-changes",
            f"flags={flags} of {service.name}",
            "Fields are prepended or addresses changed: what is stored differs from what was received.",
            postfix.command("-MX", service.pattern) + " && " + _entry(postfix, service),
        )


def _entry(postfix: Postfix, service: Service) -> str:
    """Return a command that writes the entry to master.cf as the example has it."""
    words = [PROGRAM, "postfix", "lmtp.master.cf", "--config-directory", postfix.directory]
    if service.maxproc.isdigit() and service.maxproc != "0":
        words += ["--maxproc", service.maxproc]
    command = shlex.join(words)
    rename = "" if service.name == NAME else f" | sed {shlex.quote(f's/^{NAME} /{service.name} /')}"
    return f"{command}{rename} >> {shlex.quote(os.path.join(postfix.directory, 'master.cf'))}"


def _status_filter(postfix: Postfix, service: Service) -> Iterator[Finding]:
    tables = _value(postfix, service, _FILTER)
    file = os.path.join(postfix.directory, _FILTER_FILE)
    fix = (
        f"{shlex.join([PROGRAM, 'postfix', _FILTER_FILE])} > {shlex.quote(file)}"
        f" && {postfix.command('-P', f'{service.pattern}/{_FILTER}=regexp:{file}')}"
    )
    detail = "Where lmtp(8) itself calls a failure permanent, mail is bounced instead of deferred."
    try:
        unfiltered = [text for text in _BOUNCED if not postfix.lookup(tables, text).startswith("4.")] if tables else []
    except PostfixError as error:
        yield Finding("status-filter", f"{_FILTER}={tables} cannot be used: {error}", detail, fix)
        return
    if not tables or unfiltered:
        what = f"does not turn {unfiltered[0]} into 4.3.0" if unfiltered else "is not set"
        yield Finding("status-filter", f"{_FILTER} of {service.name} {what}", detail, fix)


def _reports(postfix: Postfix, service: Service, config: Config | None) -> Iterator[Finding]:
    """Check who sends reports of success, and who may choose ORCPT."""
    name = "lmtp_discard_lhlo_keywords"
    keywords = [word.lower() for word in listed(_value(postfix, service, name))]
    if config is None or not config.lmtp.trust_orcpt:
        if "dsn" not in keywords:
            yield Finding(
                "lmtp-dsn",
                f"{name} of {service.name} does not have dsn",
                "A sender that requests a report of success gets none: Postfix leaves it to the handler, which sends no mail.",
                postfix.command("-P", f"{service.pattern}/{name}=dsn,silent-discard"),
            )
        return
    if "dsn" in keywords:
        yield Finding(
            "lmtp-orcpt",
            f"{name} of {service.name} has dsn, but lmtp.trust_orcpt is true",
            "No original recipient comes in, so none is stored.",
            postfix.command("-P", f"{service.pattern}/{name}="),
        )
    if "dsn" not in [word.lower() for word in listed(postfix.parameters["smtpd_discard_ehlo_keywords"])]:
        yield Finding(
            "lmtp-orcpt",
            "lmtp.trust_orcpt is true, but smtpd_discard_ehlo_keywords does not have dsn",
            "Any sender can choose the original recipient that is stored.",
            postfix.command("-e", "smtpd_discard_ehlo_keywords=dsn,silent-discard"),
        )


def _concurrency(postfix: Postfix, service: Service, config: Config | None) -> Iterator[Finding]:
    name = f"{service.name}_destination_concurrency_failed_cohort_limit"
    value = postfix.parameters.get(name, "1")
    if value.startswith("$"):
        value = postfix.parameters.get(value.strip("${}"), "1")
    if value != "0":
        yield Finding(
            "lmtp-cohort",
            f"{name} is {value}",
            "After one connection that is lost with its message, all mail is deferred for minutes.",
            postfix.command("-e", f"{name}=0"),
        )
    if config is None:
        return
    name, needed = "lmtp_data_done_timeout", config.limits.deadline + _MARGIN
    value = _value(postfix, service, name)
    if not value[:-1].isdigit() or seconds(value) < needed:
        yield Finding(
            "lmtp-timeout",
            f"{name} of {service.name} is {value}; limits.deadline is {config.limits.deadline} s",
            "Postfix would not wait for the reply, and deliver the message again.",
            postfix.command("-P", f"{service.pattern}/{name}={max(600, needed)}s"),
        )
    maxproc = processes(postfix, service)
    if not 0 < maxproc <= config.lmtp.max_connections:
        yield Finding(
            "lmtp-connections",
            f"{service.name} may have {maxproc or 'any number of'} processes (maxproc), but lmtp.max_connections is {config.lmtp.max_connections}",
            "Connections are refused when all are in use, and their mail is deferred.",
            postfix.command("-F", f"{service.pattern}/process_limit={config.lmtp.max_connections}"),
        )


def _socket(postfix: Postfix, service: Service, path: str, config: Config, started: bool) -> Iterator[Finding]:
    """Check whether lmtp(8) can reach the receiver."""
    lmtp = config.lmtp
    if not lmtp.socket and not lmtp.address:
        what = f"{service.name} is in master.cf, but {path} has neither lmtp.socket nor lmtp.address"
        fix = f'# add to {path}: [lmtp], socket = "/run/pipehandler/lmtp"; and restart pipehandler: docs/lmtp.md'
        yield Finding("lmtp-off", what, "Nothing receives the mail. " + DEFERRED, fix)
        return
    route = postfix.parameters["virtual_transport"]
    if route.partition(":")[0] == service.name and route.partition(":")[2] not in _places(config):
        place = f"unix:{lmtp.socket}" if lmtp.socket else f"inet:{lmtp.address}"
        fix = postfix.command("-e", f"virtual_transport={service.name}:{place}")
        yield Finding("lmtp-route", f"virtual_transport is {route}; the receiver is at {place}", DEFERRED, fix)
    if service.chroot != "n" and lmtp.socket:
        what = f"{service.name} runs in the queue directory (chroot {service.chroot})"
        fix = postfix.command("-F", f"{service.pattern}/chroot=n")
        yield Finding("chroot", what, f"{lmtp.socket} is outside. {DEFERRED}", fix)
    owner = postfix.parameters["mail_owner"]
    if lmtp.socket and owner not in lmtp.accounts:
        what = f"lmtp.accounts does not have {owner}, the account that lmtp(8) runs as (mail_owner)"
        yield Finding("lmtp-accounts", what, DEFERRED, f"# add {owner!r} to lmtp.accounts in {path}")
    if started and lmtp.socket and not _answers(lmtp.socket):
        what = f"nothing accepts connections at {lmtp.socket}"
        yield Finding("lmtp-silent", what, DEFERRED, "systemctl restart pipehandler.service # docs/lmtp.md")


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(path)
        except OSError as error:
            return isinstance(error, PermissionError)  # of another account
    return True
