"""The command `check`: find problems before the first mail does."""

import os

import click

from pipehandler.check.account import check_account
from pipehandler.check.client import entrypoint
from pipehandler.check.finding import Finding
from pipehandler.check.handler import check_handler, unusable
from pipehandler.check.maildirs import check_maildirs
from pipehandler.check.operator import check_operator
from pipehandler.check.postfix import check_postfix, unreadable
from pipehandler.check.refused import account
from pipehandler.check.transport import processes, transports
from pipehandler.check.web import check_web
from pipehandler.cli.terminal import say, say_all, working
from pipehandler.postfix.postconf import Postfix, PostfixError, Service
from pipehandler.settings.config import Config
from pipehandler.settings.config_file import ConfigError, load

from .command import config_directory_option, echo_json, quiet_option

FOUND, PARTIAL = 1, 3
"""Exit statuses: findings; no findings, but not everything could be checked."""


@click.command("check")
@config_directory_option
@click.option(
    "--part",
    type=click.Choice(["all", "handler", "postfix"]),
    default="all",
    show_default=True,
    help="handler: only what the handler needs, checked as this account. postfix: only Postfix.",
)
@click.option(
    "--maxproc", type=click.IntRange(0), default=0, help="With --part handler: maxproc of the transport in master.cf."
)
@click.option("--before-start", is_flag=True, help="Postfix has not been started yet: do not report that.")
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
@click.pass_context
def check(
    context: click.Context,
    config_directory: str,
    part: str,
    maxproc: int,
    before_start: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Check the installation: report each problem, its effect, and a command that fixes it.

    Run it as root, because only root can try what the accounts of the transport and of Postfix may do. Exit status: 0 no
    findings; 1 findings; 3 no findings, but only a part could be checked.
    """
    if context.obj["conninfo"]:
        raise click.UsageError("check connects as the configuration says; it does not take --conninfo")
    path = context.obj["config"]
    if part == "handler":
        checked, findings = [f"the handler's part as {account()}"], check_handler(path, maxproc)
    else:
        with working("checking"):
            checked, findings = _check_host(path, config_directory, part == "all", not before_start)
    findings = list(dict.fromkeys(findings))  # two transports may share a problem
    partial = part != "handler" and os.geteuid() != 0
    if as_json:
        echo_json([finding._asdict() for finding in findings])
    elif findings or not quiet:
        say_all(_report(findings, checked, partial))
    context.exit(FOUND if findings else PARTIAL if partial else 0)


def _check_host(path: str, directory: str, with_handler: bool, started: bool) -> tuple[list[str], list[Finding]]:
    """Check Postfix, and the handler as the account of each transport. Returns what was checked, and the findings."""
    config, unloadable = _loaded(path)
    postfix = None
    services: list[tuple[Postfix, Service]] = []
    checked = []
    try:
        postfix = Postfix(directory)
        services = [(postfix, service) for service in transports(postfix)]
        of_postfix = check_postfix(postfix, path, config, started)
        used = " and ".join(dict.fromkeys(entrypoint(service) for _, service in services))
        checked = [f"Postfix in {directory}" + (f" with {used}" if used else "")]
    except PostfixError as error:
        of_postfix = [unreadable(directory, error)]
    users = {service.attributes.get("user", "").partition(":")[0] for _, service in services}
    if os.geteuid() != 0 and users and account() not in users:
        # What is closed to us may be open to the account, and a fix could do harm.
        _note("not root, nor the account of the transport: the handler's part was not checked")
        return checked, of_postfix
    if not with_handler:
        return checked, [*unloadable, *of_postfix]
    if os.geteuid() != 0:
        _note(f"not root: the handler's part was checked as {account()}, but not in the environment of pipe(8)")
        return [f"the handler's part as {account()}", *checked], [*check_handler(path), *of_postfix]
    of_handler: list[Finding] = []
    tried = []
    for instance, service in services:
        of_account = check_account(instance, service, processes(instance, service))
        if of_account is not None:
            of_handler += of_account
            tried.append(f"the handler's part as {service.attributes['user']}")
    if not tried:
        _note(
            "the account of the transport is unknown, or cannot run the interpreter: the handler's part was not checked"
        )
        of_handler = unloadable
    of_operator = (
        [
            *check_operator(config, path, postfix),
            *check_maildirs(config),
            *check_web(config, path, postfix if services else None),
        ]
        if config
        else []
    )
    return [*dict.fromkeys(tried), *checked], [*of_handler, *of_postfix, *_new(of_operator, of_handler)]


def _new(findings: list[Finding], others: list[Finding]) -> list[Finding]:
    """Return those with a code that no other finding has: a server that is down is reported once."""
    codes = {finding.code for finding in others}
    return [finding for finding in findings if finding.code not in codes]


def _loaded(path: str) -> tuple[Config | None, list[Finding]]:
    try:
        return load(path), []
    except ConfigError as error:
        return None, [unusable(path, error)]


def _note(text: str) -> None:
    say(f"note: {text}", err=True)


def _report(findings: list[Finding], checked: list[str], partial: bool) -> list[str]:
    """Return the findings as lines of text: three lines for each, and a summary."""
    lines = []
    for finding in findings:
        lines += [f"{finding.code}: {finding.what}", f"    detail: {finding.detail}", f"    fix:    {finding.fix}", ""]
    count = len(findings)
    result = "1 finding" if count == 1 else f"{count} findings"
    if not count:
        result = (
            "everything is as it should be"
            if not partial
            else "nothing found, but this was only a part: run it as root"
        )
    lines.append(f"{result} (checked: {', '.join(checked) or 'nothing could be checked'})")
    return lines
