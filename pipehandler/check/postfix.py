"""Check Postfix: main.cf here, the entry in master.cf in transport.py.

This covers everything that the example files for Postfix set, and other settings of Postfix that can lose or refuse mail.
"""

import os
import re
import shlex
from collections.abc import Iterator

from pipehandler.postfix.postconf import Postfix, PostfixError, Service, seconds
from pipehandler.settings.config import Config
from pipehandler.settings.config_file import ConfigError, load

from .argv import configuration
from .daemon import (
    check_certificates,
    check_duplicates,
    check_expired,
    check_held,
    check_running,
    check_soft_bounce,
    check_switched_off,
)
from .finding import Finding
from .lmtp import check_lmtp, lmtp_transports
from .message_size import raise_message_size
from .routes import check_routes
from .transport import check_transport, entry_command, transports

_MARGIN = 30  # seconds between our deadline and Postfix's
_DAY = 86400
_OF_TRANSPORT = ("_destination_recipient_limit", "_time_limit")
_OLDEST = (3, 7)


def unreadable(directory: str, error: PostfixError) -> Finding:
    """Return the finding that Postfix is missing or cannot read its own configuration."""
    return Finding(
        "postfix",
        f"the configuration of Postfix in {directory} cannot be read: {error}",
        "Without Postfix nothing brings mail to the handler.",
        "apt-get install postfix" if "no program" in str(error) else f"# edit {directory}: {error}",
    )


def check_postfix(postfix: Postfix, path: str, config: Config | None, started: bool = True) -> list[Finding]:
    """Check this instance.

    path: of the handler's configuration; config: its contents, if it can be loaded. started: whether it should be running.
    Whether it does, and what its tables answer to its own account, only root can find out.
    """
    services, lmtp = transports(postfix), lmtp_transports(postfix, config)
    findings = [
        *_warnings(postfix, services),
        *_host(postfix, [*services, *lmtp], path, config),
        *check_soft_bounce(postfix),
        *check_certificates(postfix),
        *check_expired(postfix),
        *check_switched_off(postfix, [*services, *lmtp]),
    ]
    if started and os.geteuid() == 0:
        findings += [*check_running(postfix), *check_held(postfix)]
    by_maildir = bool(config and config.watch.maildirs)  # check/maildirs.py
    if not services and not lmtp and not by_maildir:
        findings.append(
            Finding(
                "transport-missing",
                f"no service in {postfix.directory}/master.cf runs pipehandler deliver; for another instance of Postfix, name its"
                " directory with --config-directory",
                "Postfix cannot reach the handler.",
                entry_command(postfix, path, config, None),
            )
        )
    findings += check_duplicates(postfix, services, path, config)
    for service in {service.pattern: service for service in services}.values():  # of several the last, as Postfix does
        service_path, service_config = _configuration(service, services, path, config)
        findings += check_transport(postfix, service, service_path, service_config)
        if service.command == "pipe":
            findings += _limits(postfix, service, service_config)
    for service in lmtp:
        findings += check_lmtp(postfix, path, service, config, started)
    if services or lmtp:
        findings += check_routes(postfix, [*services, *lmtp], path, config)
    return findings


def _configuration(
    service: Service, services: list[Service], path: str, config: Config | None
) -> tuple[str, Config | None]:
    """Return the configuration that `service` should name: the one being checked, unless another transport has it already."""
    own = configuration(service)
    if own == path or path not in map(configuration, services):
        return path, config
    try:
        return own, load(own)
    except ConfigError:  # the check of its account reports that
        return own, None


def _warnings(postfix: Postfix, services: list[Service]) -> Iterator[Finding]:
    runs = any(service.command == "pipe" for service in services)
    for warning in postfix.warnings:
        unused = re.search(r"main\.cf: unused parameter: ([^=]+)=", warning)
        if unused and unused[1].endswith(_OF_TRANSPORT) and not runs:
            continue  # they will be used as soon as the transport exists
        yield Finding(
            "postfix-warning",
            f"postconf warns: {warning}",
            "Postfix ignores that setting, or does something else.",
            postfix.command("-X", unused[1]) if unused else f"# edit it: {warning}",
        )


def _limits(postfix: Postfix, service: Service, config: Config | None) -> Iterator[Finding]:
    """Check what main.cf sets for the transport."""
    name = f"{service.name}_destination_recipient_limit"
    if postfix.parameters.get(name) != "1":
        yield Finding(
            "recipient-limit",
            f"{name} is {postfix.parameters.get(name)}",
            "Several recipients share one status: if one of them is refused, all are.",
            postfix.command("-e", f"{name}=1"),
        )
    if config is None:
        return
    name = f"{service.name}_time_limit"
    value = service.options.get(name, postfix.parameters.get(name, "0"))
    needed = config.limits.deadline + _MARGIN
    if _seconds(value) < needed:
        yield Finding(
            "time-limit",
            f"{name} is {value}; limits.deadline is {config.limits.deadline} s, so it must be at least {needed} s",
            "Postfix would kill deliveries that the handler is about to end itself, and the reason would not be logged.",
            postfix.command("-e", f"{name}={max(300, needed)}s"),
        )


def _host(postfix: Postfix, services: list[Service], path: str, config: Config | None) -> Iterator[Finding]:
    """Check what main.cf sets for all mail."""
    parameters = postfix.parameters
    version = parameters["mail_version"]
    if tuple(int(number) for number in version.split("-")[0].split(".")[:2]) < _OLDEST:
        yield Finding(
            "postfix-version", f"this is Postfix {version}", "The handler needs 3.7 or newer.", "# upgrade Postfix"
        )
    if parameters["enable_long_queue_ids"] != "yes":
        yield Finding(
            "long-queue-ids",
            f"enable_long_queue_ids is {parameters['enable_long_queue_ids']}",
            "Queue ids are reused, so one in the log or in delivery.queue_id may belong to several messages.",
            postfix.command("-e", "enable_long_queue_ids=yes"),
        )
    for name in ("maximal_queue_lifetime", "bounce_queue_lifetime"):
        if _seconds(parameters[name], "d") < _DAY:
            yield Finding(
                "queue-lifetime",
                f"{name} is {parameters[name]}",
                "Mail deferred for that long is returned to its sender; an outage of the database may last longer.",
                postfix.command("-e", f"{name}=5d"),
            )
    size = _number(parameters["message_size_limit"])
    largest = config.limits.message_size if config else None
    if largest is not None and not 0 < size <= largest:
        yield Finding(
            "message-size-limit",
            f"message_size_limit is {size}{'' if size else ' (none)'}, but limits.message_size is {largest}",
            "Larger mail is accepted and then bounced (5.3.4) to a sender that may be forged.",
            _size_command(postfix, services, path, size) or postfix.command("-e", f"message_size_limit={largest}"),
        )
        size = largest
    for name in ("mailbox_size_limit", "virtual_mailbox_limit"):
        if 0 < _number(parameters[name]) < size:
            yield Finding(
                "mailbox-size-limit",
                f"{name} is {parameters[name]}, below message_size_limit = {size}",
                "local(8) or virtual(8) does not start, and all their mail is deferred.",
                postfix.command("-e", f"{name}=0"),
            )
    yield from _queue_space(postfix, size)


def _size_command(postfix: Postfix, services: list[Service], path: str, size: int) -> str:
    """Return the command that lets the handler accept what other mail of this host may have; "" if there is no other mail."""
    ours = postfix.parameters["virtual_transport"].partition(":")[0] in {service.name for service in services}
    return "" if ours or not size else raise_message_size(path, size)


def _queue_space(postfix: Postfix, size: int) -> Iterator[Finding]:
    directory = postfix.parameters["queue_directory"]
    try:
        space = os.statvfs(directory)
    except OSError as error:
        yield Finding(
            "queue-directory",
            f"queue_directory {directory}: {error.strerror}",
            "Postfix cannot start.",
            postfix.command("-e", "queue_directory=/var/spool/postfix"),
        )
        return
    room = space.f_bavail * space.f_frsize
    needed = max(2 * size, _number(postfix.parameters["queue_minfree"]))
    if room < needed:
        yield Finding(
            "queue-full",
            f"the file system of queue_directory {directory} has {room} octets free; it needs {needed}",
            "smtpd(8) refuses all mail (452 4.3.1) if less than 1.5 times message_size_limit is free.",
            f"# free space on the file system of {directory} (du -x {shlex.quote(directory)})",
        )


def _seconds(value: str, unit: str = "s") -> int:
    """Read a time in main.cf; an invalid one counts as 0, which no check accepts."""
    try:
        return seconds(value, unit)
    except ValueError:
        return 0


def _number(value: str) -> int:
    """Read a number in main.cf; an invalid one counts as 0."""
    return int(value) if value.isdigit() else 0
