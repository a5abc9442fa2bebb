"""`--receive-only`: what a host without other mail needs against strangers. Values that exist stay."""

import re
import shlex

from pipehandler.postfix.postconf import Service

from ..files import append, keep
from ..host import Host
from ..postfix_state import PostfixState
from ..record import Record
from ..step import Change, SetupError, Step

BEGIN, END = "# BEGIN pipehandler setup --receive-only", "# END pipehandler setup --receive-only"
"""The marker lines around the services that setup appends to master.cf."""

REPLACED = "#replaced by pipehandler setup: "
"""The text before the line of smtpd(8) that postscreen(8) replaces."""

_WITH_POSTSCREEN = ("smtpd/pass", "dnsblog/unix", "tlsproxy/unix")
_SUBMISSION = frozenset({"submission", "submissions", "smtps", "465", "587"})
_CERTIFICATE = frozenset({"smtpd_tls_cert_file", "smtpd_tls_key_file"})
_CERTIFICATES = _CERTIFICATE | {"smtpd_tls_chain_files", "smtpd_tls_eccert_file", "smtpd_tls_eckey_file"}


def receive_only(host: Host, record: Record) -> Step:
    """Return the step that sets what main.cf does not set, and puts postscreen(8) before smtpd(8). Raises SetupError.

    It refuses a host that handles other mail.
    """
    if not host.receive_only:
        return Step("receive-only", "")
    state = PostfixState.read(host)
    _refuse_other_mail(state)
    wanted = parsed(host.postfix_text("receive-only.main.cf"))
    if not _CERTIFICATES.isdisjoint(state.explicit):
        wanted = {name: value for name, value in wanted.items() if name not in _CERTIFICATE}
    missing = {name: value for name, value in wanted.items() if name not in state.explicit}
    kept = [name for name, value in wanted.items() if state.explicit.get(name, value) != value]
    commands: list[str] = []
    if missing:
        commands.append(
            host.postfix_program("postconf", "-e", *(f"{name} = {value}" for name, value in missing.items()))
        )
    before = record.find("settings", "receive-only")
    recorded = {**parsed(before.after or "" if before else ""), **missing}
    changes = [
        Change("settings", "receive-only", after="".join(f"{name} = {value}\n" for name, value in recorded.items()))
    ]
    postscreen, found = _postscreen(state)
    if postscreen:
        commands += postscreen
        changes.append(Change("postscreen", host.file("master.cf")))
    if commands:
        copying, copies = keep(record, host.file("main.cf"), host.file("master.cf"))
        commands = [*copying, *commands, *state.reload()]
        changes = [*copies, *changes]
    if kept:
        found += f"; main.cf has other values of {', '.join(kept)}, which stay (docs/receive-only.md)"
    return Step("receive-only", found, tuple(commands), tuple(changes))


def _refuse_other_mail(state: PostfixState) -> None:
    if state.beside:
        raise SetupError(
            "--receive-only is for a host without other mail, and the virtual_ parameters of main.cf serve other mail;"
            " run setup without it, and choose from the lines of `pipehandler postfix receive-only.main.cf`"
        )
    ports = [service.name for service in _services(state) if service.kind == "inet" and service.name in _SUBMISSION]
    if ports:
        raise SetupError(
            f"--receive-only is for a host that sends no mail, and {state.host.file('master.cf')} has the service"
            f" {ports[0]}; remove it first ({state.host.postfix_program('postconf', '-MX', f'{ports[0]}/inet')})"
        )


def _services(state: PostfixState) -> list[Service]:
    return state.postfix.services if state.postfix else []


def parsed(text: str) -> dict[str, str]:
    """Return the settings in the lines of main.cf, without comments."""
    return dict(re.findall(r"^(\w+) =[ ]?(.*)$", text, re.MULTILINE))


def _postscreen(state: PostfixState) -> tuple[list[str], str]:
    """Return the commands that put postscreen(8) on the SMTP port, and what was found there."""
    services = {service.pattern: service for service in _services(state)}
    listening = services.get("smtp/inet")
    if listening and listening.command == "postscreen":
        return [], "postscreen listens on the SMTP port"
    plain = listening is None or (listening.command == "smtpd" and not listening.options)
    file = state.host.file("master.cf")
    if not plain or not services.keys().isdisjoint(_WITH_POSTSCREEN):
        return [], f"the services of {file} for the SMTP port are not the usual ones, and stay: without postscreen"
    lines = state.host.postfix_files("receive-only.master.cf")
    comment = f"s/^smtp[[:space:]]+inet[[:space:]]/{REPLACED}&/"
    commands = [shlex.join(["sed", "-i", "-E", comment, file])] if listening else []
    return [*commands, *append(file, lines, BEGIN, END)], "smtpd listens on the SMTP port, without postscreen"
