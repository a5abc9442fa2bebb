"""The command `check`: is everything ready for the first mail?"""

import os

import click

from pipehandler.check.account import check_account
from pipehandler.check.database import account
from pipehandler.check.finding import Finding
from pipehandler.check.handler import check_handler, unusable
from pipehandler.check.postfix import check_postfix, unreadable
from pipehandler.check.transport import processes, transports
from pipehandler.cli.terminal import safe
from pipehandler.postfix.postconf import DEFAULT_DIRECTORY, Postfix, PostfixError, Service
from pipehandler.settings.config import Config, ConfigError, load

from .command import echo_json


@click.command("check")
@click.option(
    "--config-directory", default=DEFAULT_DIRECTORY, show_default=True, help="Postfix's configuration directory."
)
@click.option(
    "--part",
    type=click.Choice(["all", "handler", "postfix"]),
    default="all",
    show_default=True,
    help="handler: only what the handler needs, as this account.",
)
@click.option("--maxproc", type=click.IntRange(0), default=0, help="With --part handler: processes of the transport.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, for programs.")
@click.pass_context
def check(context: click.Context, config_directory: str, part: str, maxproc: int, as_json: bool) -> None:
    """Be sure before the first mail: look for what is wrong, say why it matters and what mends it.

    As root, because only root can try what Postfix's pipe user can do. Exit status: 0 nothing found, 1 something found.
    """
    if context.obj["conninfo"]:
        raise click.UsageError("check looks at what the configuration says; --conninfo is not for it")
    path = context.obj["config"]
    if part == "handler":
        checked, found = [f"the handler's part as {account()}"], check_handler(path, maxproc)
    else:
        checked, found = _check_host(path, config_directory, with_handler=part == "all")
    found = list(dict.fromkeys(found))  # two transports may share what is wrong
    if as_json:
        echo_json([finding._asdict() for finding in found])
    else:
        click.echo(safe(_report(found, checked)))
    context.exit(1 if found else 0)


def _check_host(path: str, directory: str, with_handler: bool) -> tuple[list[str], list[Finding]]:
    """What was checked, and what was found: Postfix, and what its transports' accounts find."""
    config, unloadable = _loaded(path)
    services: list[tuple[Postfix, Service]] = []
    checked = []
    try:
        postfix = Postfix(directory)
        services = [(postfix, service) for service in transports(postfix)]
        of_postfix = check_postfix(postfix, path, config)
        checked = [f"Postfix in {directory}"]
    except PostfixError as error:
        of_postfix = [unreadable(directory, error)]
    users = {service.attributes.get("user", "").partition(":")[0] for _, service in services}
    if os.geteuid() != 0 and users and account() not in users:
        # What is closed to us may be open to the account, and to mend it would harm.
        _note("not root, nor the account of the transport: the handler's part was not tried")
        return checked, of_postfix
    if not with_handler:
        return checked, [*unloadable, *of_postfix]
    if os.geteuid() != 0:
        _note(f"not root: the handler's part was tried as {account()}, but not in the environment of pipe(8)")
        return [f"the handler's part as {account()}", *checked], [*check_handler(path), *of_postfix]
    of_handler: list[Finding] = []
    tried = []
    for postfix, service in services:
        found = check_account(postfix, service, processes(postfix, service))
        if found is not None:
            of_handler += found
            tried.append(f"the handler's part as {service.attributes['user']}")
    if not tried:
        _note("the account of the transport is not known, or has no interpreter: the handler's part was not tried")
        of_handler = unloadable
    return [*dict.fromkeys(tried), *checked], [*of_handler, *of_postfix]


def _loaded(path: str) -> tuple[Config | None, list[Finding]]:
    try:
        return load(path), []
    except ConfigError as error:
        return None, [unusable(path, error)]


def _note(text: str) -> None:
    click.echo(f"note: {safe(text)}", err=True)


def _report(found: list[Finding], checked: list[str]) -> str:
    """For a person: three lines for each finding, and one for all."""
    lines = []
    for finding in found:
        lines += [f"{finding.code}: {finding.what}", f"    why:  {finding.why}", f"    mend: {finding.mend}", ""]
    count = len(found)
    result = "everything is as it should be" if not count else "1 finding" if count == 1 else f"{count} findings"
    lines.append(f"{result} (checked: {', '.join(checked) or 'nothing could be'})")
    return "\n".join(lines)
