"""The command `setup`: a mail host for a domain, from the packages to the first message."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import click

from pipehandler.cli.terminal import say, say_all
from pipehandler.mail.sysexits import EX_CONFIG, EX_NOPERM
from pipehandler.postfix.postconf import DEFAULT_DIRECTORY
from pipehandler.setup import dns
from pipehandler.setup.host import DATABASE, Host, checked_name, normalized
from pipehandler.setup.plan import check_command, plan, preview, removal, remove, set_up, without_record
from pipehandler.setup.postfix_state import PostfixState
from pipehandler.setup.record import Record
from pipehandler.setup.server import DEBIAN_SERVER, EMBEDDED_FOLDER, Server, embedded_server
from pipehandler.setup.step import SetupError, Step, whole_script
from pipehandler.store.conninfo import located, parameters

from .command import Failure, quiet_option, reported_errors


@click.command("setup")
@click.option("--domain", "domains", multiple=True, help="A domain whose mail is stored; once for each.")
@click.option("--catch-all", is_flag=True, help="Accept mail for every address of the domains.")
@click.option("--receive-only", is_flag=True, help="A host without other mail: TLS, postscreen, limits, no relay.")
@click.option("--embedded", is_flag=True, help="Without a PostgreSQL server: use the one of the extra `embedded`.")
@click.option("--database", default=DATABASE, show_default=True, help="The database, created if it does not exist.")
@click.option("--user", default="pipehandler", show_default=True, help="The account that runs the handler.")
@click.option(
    "--config-directory", default=DEFAULT_DIRECTORY, show_default=True, help="Postfix's configuration directory."
)
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be done, as a shell script.")
@click.option("--remove", "removing", is_flag=True, help="Undo what setup did on this host; the mail stays.")
@click.option(
    "-y", "--yes", is_flag=True, help="Do not ask before values of a host are changed that other mail depends on."
)
@quiet_option
@click.pass_context
def setup(
    context: click.Context,
    /,
    domains: tuple[str, ...],
    catch_all: bool,
    receive_only: bool,
    embedded: bool,
    database: str,
    user: str,
    config_directory: str,
    dry_run: bool,
    removing: bool,
    yes: bool,
    quiet: bool,
) -> None:
    """Set up this host to store the mail of a domain: packages, account, database, Postfix, and a first message.

    Safe to run again: what is there already stays as it is. Mail that this host handles already goes on as before. Each step prints
    its commands. Exit status: 0 done, 1 done but `check` has findings, 77 not root, 78 a step failed.
    """
    if not domains and not removing:
        raise click.UsageError("name the domain whose mail is stored, such as --domain example.com")
    with reported_errors(), _reported_setup_errors():
        server = embedded_server() if embedded else _server(context.obj["conninfo"])
        host = Host(
            domains=tuple(dict.fromkeys(name for domain in domains for name in normalized(domain))),
            config=context.obj["config"],
            config_directory=config_directory,
            account=checked_name(user, "an account"),
            server=server,
            database=checked_name(database, "a database"),
            systemd=os.path.isdir("/run/systemd/system"),
            embedded=EMBEDDED_FOLDER if embedded else "",
            catch_all=catch_all,
            receive_only=receive_only,
        ).with_settings()
        record = Record.load(host.record)
        if not host.settings and not server.is_local:
            raise SetupError(
                f"the server ({located(server.conninfo)}) is on another host, whose roles setup cannot create; docs/install.md"
                " has the single commands"
            )
        if dry_run:
            say_all(_removal_script(host, record) if removing else _script(host, record))
            return
        if os.geteuid() != 0:
            raise Failure("only root can set up a mail host; --dry-run shows what it would do", EX_NOPERM)
        if removing:
            with _held_back(quiet):
                _remove(host, record)
            return
        _confirm(preview(host, record), yes)
        with _held_back(quiet) as output:
            output.needed = not set_up(host, record, say)
            say_all(_afterwards(host.with_settings()))
    context.exit(1 if output.needed else 0)


class _Output:
    """needed: whether what was held back has to be shown."""

    needed = False


@contextmanager
def _held_back(quiet: bool) -> Iterator[_Output]:
    """Hold back what this process and its children print, if `quiet`; print it at the end if it is needed, or after an error."""
    output = _Output()
    if not quiet:
        yield output
        return
    with tempfile.TemporaryFile() as held:
        sys.stdout.flush()
        stdout = os.dup(1)
        os.dup2(held.fileno(), 1)
        try:
            yield output
        except BaseException:
            output.needed = True
            raise
        finally:
            sys.stdout.flush()
            os.dup2(stdout, 1)
            os.close(stdout)
            if output.needed:
                held.seek(0)
                say_all(held.read().decode("utf-8", "replace").splitlines())


@contextmanager
def _reported_setup_errors() -> Iterator[None]:
    try:
        yield
    except SetupError as error:
        raise Failure(str(error), EX_CONFIG) from error


def _server(conninfo: str | None) -> Server:
    """Return the server that --conninfo names, or Debian's."""
    if conninfo is None:
        return DEBIAN_SERVER
    return Server(located(conninfo), str(parameters(conninfo).get("user") or "postgres"))


def _script(host: Host, record: Record) -> list[str]:
    steps = plan(host, record)
    differences = [f"# {line}" for step in steps for line in step.differences]
    purpose = f"What `pipehandler setup` would do on this host now, for {', '.join(host.domains)}."
    check = Step("check", "its findings become the exit status", (f"{check_command(host)} || findings=$?",))
    script = whole_script(purpose, [*steps[:-1], check, steps[-1]])
    head, _, rest = script.partition("\nset -eu\n")
    return [*head.split("\n"), *differences, *f"set -eu\n{rest}".split("\n"), 'exit "${findings:-0}"']


def _removal_script(host: Host, record: Record) -> list[str]:
    steps = [*(step for _, step in removal(host, record)), without_record(record)] if record.changes else []
    purpose = "What `pipehandler setup --remove` would do on this host now."
    return whole_script(purpose, steps).rstrip("\n").split("\n")


def _confirm(differences: list[str], yes: bool) -> None:
    """Show what changes for other mail of this host, and ask. Raises Failure if the answer is no, or cannot be given."""
    if not differences:
        return
    say("This host handles mail already. These values become different:")
    say_all(f"    {line}" for line in differences)
    try:
        agreed = yes or click.confirm("Go on?")
    except click.Abort:  # nobody is there
        agreed = False
    if not agreed:
        raise Failure("nothing was changed; --yes confirms the differences", EX_CONFIG)


def _remove(host: Host, record: Record) -> None:
    if not record.changes:
        say(f"nothing to undo: there is no record {record.path}")
        return
    kept = [change.name for change in record.changes if change.kind == "kept"]
    failed = remove(host, record, say)
    if kept:
        say(
            f"kept, with the mail: {', '.join(kept)}; the group roles pipehandler_* belong to it, and packages stay as well"
        )
    if failed:
        raise SetupError(f"not everything could be undone; run it again after the reason is gone: {'; '.join(failed)}")


def _afterwards(host: Host) -> list[str]:
    """Return the DNS records to add, and what to do next."""
    state = PostfixState.read(host)
    domains = [name for name in host.domains if name.isascii()]
    lines = dns.report(domains, state.value("myhostname"), state.value("inet_interfaces"))
    domain = host.domains[0]
    return [
        "",
        "DNS, for the zones of the domains:",
        *(f"    {line}" for line in lines),
        "",
        "Next: an address that accepts mail, and the mail that arrives",
        f"    {host.program('address', 'add', f'user@{domain}')}",
        f"    {host.program('list')}",
    ]
