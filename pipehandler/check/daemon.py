"""Check what Postfix does now, beside what its files say: whether it runs, what it ignores, what was meant for a few days, and
what it offers but cannot do."""

import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from pipehandler.postfix.postconf import Postfix, Service, words
from pipehandler.postfix.postqueue import QueueError, listing
from pipehandler.settings.config import Config

from .finding import Finding
from .transport import entry_command

_SOFT_BOUNCE_DAYS = 3

_CERTIFICATES = ("smtpd_tls_chain_files", "smtpd_tls_cert_file", "smtpd_tls_eccert_file")


def check_running(postfix: Postfix) -> Iterator[Finding]:
    """Check whether this instance runs; needs root. Raises PostfixError."""
    if not postfix.is_running():
        yield Finding(
            "postfix-stopped",
            f"Postfix with the configuration in {postfix.directory} is not running",
            "No mail is received, and none is delivered; what programs on this host send waits in maildrop.",
            postfix.command("start", program="postfix"),
        )


def check_held(postfix: Postfix) -> Iterator[Finding]:
    """Report mail on hold, which a person or a rule (HOLD) put there."""
    try:
        held = listing(postfix.directory).queues.get("hold")
    except QueueError:  # `status` shows it
        return
    if held:
        yield Finding(
            "queue-held",
            f"{held.messages} {'message is' if held.messages == 1 else 'messages are'} on hold in the queue, the oldest since"
            f" {datetime.fromtimestamp(held.oldest, UTC):%Y-%m-%d %H:%M} UTC",
            "Postfix tries to deliver none of them until a person releases them, and does not return them either.",
            postfix.command("-H", "ALL", program="postsuper"),
        )


def check_soft_bounce(postfix: Postfix) -> Iterator[Finding]:
    """Report soft_bounce in a main.cf that has not been changed for days."""
    if postfix.parameters.get("soft_bounce") != "yes":
        return
    changed = os.stat(os.path.join(postfix.directory, "main.cf")).st_mtime
    if time.time() - changed > _SOFT_BOUNCE_DAYS * 86_400:
        yield Finding(
            "soft-bounce",
            f"soft_bounce is yes, and main.cf has not been changed since {datetime.fromtimestamp(changed, UTC):%Y-%m-%d}",
            "It is for the first days: unknown recipients get 450 instead of 550, and mail that should be returned stays in"
            " the queue.",
            f"{postfix.command('-X', 'soft_bounce')} && {postfix.command('reload', program='postfix')}",
        )


def check_switched_off(postfix: Postfix, services: list[Service]) -> Iterator[Finding]:
    """Report what was switched off for a while, and forgot: our transports, and the ports for mail.

    services: our transports.
    """
    reload = postfix.command("reload", program="postfix")
    names = {service.name for service in services}
    deferred = words(postfix.parameters["defer_transports"])
    if not names.isdisjoint(deferred):
        rest = ", ".join(name for name in deferred if name not in names)
        yield Finding(
            "transport-deferred",
            f"defer_transports has {', '.join(name for name in deferred if name in names)}",
            "Postfix accepts mail, and leaves it in the queue without trying to deliver it.",
            f"{postfix.command('-e', f'defer_transports={rest}') if rest else postfix.command('-X', 'defer_transports')}"
            f" && {reload}",
        )
    patterns = words(postfix.parameters["master_service_disable"])
    receiving = [each for each in postfix.services if each.kind == "inet" and each.command in ("smtpd", "postscreen")]
    off = [each.pattern for each in (*services, *receiving) if _is_disabled(each, patterns)]
    if off:
        yield Finding(
            "service-disabled",
            f"master_service_disable is {' '.join(patterns)}, so that Postfix runs no {', '.join(dict.fromkeys(off))}",
            "Clients cannot connect to a service of the type inet; mail for one of the type unix waits in the queue.",
            f"{postfix.command('-X', 'master_service_disable')} && {reload}",
        )


def _is_disabled(service: Service, patterns: list[str]) -> bool:
    """Whether the first pattern that matches (postconf(5), master_service_disable) disables this service."""
    for pattern in patterns:
        if pattern.removeprefix("!") in (service.kind, f"{service.name}.{service.kind}"):
            return not pattern.startswith("!")
    return False


def check_expired(postfix: Postfix) -> Iterator[Finding]:
    """Report certificates of smtpd(8) that have expired, if openssl(1) is there."""
    if postfix.parameters["smtpd_tls_security_level"] in ("", "none") or shutil.which("openssl") is None:
        return
    for path in dict.fromkeys(word for name in _CERTIFICATES for word in words(postfix.parameters[name])):
        command = ["openssl", "x509", "-noout", "-enddate", "-checkend", "0", "-in", path]
        done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 # our own arguments
        if done.returncode and (end := re.search("notAfter=(.*)", done.stdout)):  # otherwise it cannot be read
            yield Finding(
                "certificate-expired",
                f"the certificate in {path} expired on {end[1]}",
                "Senders that verify it (MTA-STS) do not deliver; others do.",
                f"# renew it, for instance `certbot renew`; then {postfix.command('reload', program='postfix')}",
            )


def check_certificates(postfix: Postfix) -> Iterator[Finding]:
    """Report files of smtpd_tls_chain_files that do not exist. If those of smtpd_tls_cert_file are missing, smtpd(8) answers 454
    to STARTTLS, and mail arrives without TLS."""
    if postfix.parameters["smtpd_tls_security_level"] in ("", "none"):
        return
    for path in words(postfix.parameters["smtpd_tls_chain_files"]):
        try:
            os.stat(path)
        except FileNotFoundError:
            yield Finding(
                "tls-file-missing",
                f"smtpd_tls_chain_files names {path}, which does not exist",
                "smtpd(8) offers STARTTLS all the same, and every handshake fails: clients with TLS may never deliver.",
                f"{postfix.command('-e', 'smtpd_tls_security_level=none')} # until the file exists",
            )
            return
        except OSError:  # only root can look there
            return


def check_duplicates(postfix: Postfix, services: list[Service], path: str, config: Config | None) -> Iterator[Finding]:
    """Report entries that master.cf has more than once, if they are ours. path, config: as for check_postfix."""
    ours = {service.pattern: service for service in services}
    for pattern, count in Counter(service.pattern for service in postfix.services).items():
        if count > 1 and pattern in ours:
            yield Finding(
                "transport-duplicate",
                f"master.cf has {count} entries {pattern}",
                "Postfix warns and uses the last of them: what is changed in another one has no effect.",
                entry_command(postfix, path, config, ours[pattern]),
            )
