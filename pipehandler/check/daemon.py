"""Check what Postfix does now, beside what its files say: whether it runs, what it ignores, what was meant for a few days, and
what it offers but cannot do."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

from pipehandler.postfix.postconf import Postfix, Service, words
from pipehandler.settings.config import Config

from .finding import Finding
from .transport import entry_command

_SOFT_BOUNCE_DAYS = 3


def check_running(postfix: Postfix) -> Iterator[Finding]:
    """Check whether this instance runs; needs root. Raises PostfixError."""
    if not postfix.is_running():
        yield Finding(
            "postfix-stopped",
            f"Postfix with the configuration in {postfix.directory} is not running",
            "No mail is received, and none is delivered; what programs on this host send waits in maildrop.",
            postfix.command("start", program="postfix"),
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
