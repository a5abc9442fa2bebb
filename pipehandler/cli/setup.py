"""Commands that install and run the handler: `deliver`, `migrate`, `postfix`, `client`, `serve`."""

import os
import shlex
import sys
from typing import Any

import click

from pipehandler.cli.terminal import say, say_all, table
from pipehandler.mail.sysexits import EX_UNAVAILABLE
from pipehandler.monitor.service_status import DIGESTS, OTHER_NAMESPACE, ask, stale
from pipehandler.postfix import client, templates
from pipehandler.settings.config import DEFAULT_SOCKET
from pipehandler.settings.config_file import load
from pipehandler.settings.duration import duration
from pipehandler.store.conninfo import uri
from pipehandler.store.migrate import plan
from pipehandler.store.shards import make_shards, migrate_all, plan_of_proxy

from .command import (
    Failure,
    chosen_conninfo,
    config_directory_option,
    echo_json,
    opened_store,
    quiet_option,
    reported_errors,
)


@click.command("deliver", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, metavar="--sender=ADDRESS [--MACRO=VALUE]... -- RECIPIENT...")
@click.pass_context
def deliver(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Deliver the message on stdin. This is what pipe(8) runs; see `pipehandler postfix`.

    The options are the macros of pipe(8), with dashes; --config=FILE names the configuration.
    """
    from pipehandler.fence import deliver

    # The arguments as they were given, because click interprets "--" itself.
    deliver([f"--config={context.obj['config']}", *sys.argv[sys.argv.index("deliver") + 1 :]])


def _seconds_of(_context: click.Context, _parameter: click.Parameter, value: str) -> float:
    """Read an option that is a duration, or 0."""
    try:
        return 0 if value == "0" else duration(value).total_seconds()
    except ValueError as error:
        raise click.BadParameter(f"{error}; or 0") from None


@click.command("migrate")
@click.option("-n", "--dry-run", is_flag=True, help="Print what would be done, as a psql script.")
@click.option(
    "--proxy-of",
    "conninfos",
    multiple=True,
    metavar="CONNINFO",
    help="Make the database the proxy of shards; once for each of them, in the order of their numbers.",
)
@click.option(
    "--proxy-user", default="pipehandler_proxy", show_default=True, help="With --proxy-of: its role on the shards."
)
@click.option(
    "--wait",
    default="5m",
    show_default=True,
    callback=_seconds_of,
    metavar="DURATION",
    help="How long it tries again while other sessions hold locks, before it ends with 75; 0: it tries once.",
)
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="What was applied as a JSON object, for programs.")
@click.pass_context
def migrate_(
    context: click.Context,
    dry_run: bool,
    conninfos: tuple[str, ...],
    proxy_user: str,
    wait: float,
    quiet: bool,
    as_json: bool,
) -> None:
    """Bring the schema of the database up to date; safe to run twice, and from two hosts at once.

    It waits for a lock for a few seconds at a time, so that deliveries go on, reports which session holds it, and tries again
    for as long as --wait says. Functions that were damaged are installed again. Of a sharded database, first all shards are
    migrated, then their proxy; where a shard fails, the others are migrated, and the proxy is not.
    """
    if dry_run and (as_json or conninfos):
        raise click.UsageError("--dry-run prints SQL; it excludes --json and --proxy-of")
    with opened_store(context, of_proxy=True) as store:
        if dry_run:
            say_all(((plan_of_proxy(store) + plan(store)) or "-- nothing to do\n").removesuffix("\n").split("\n"))
            return
        conninfo = chosen_conninfo(context)

        def report(line: str) -> None:
            say(line, err=True)

        if conninfos:
            delimiter = load(context.obj["config"]).recipients.delimiter
            done = make_shards(store, conninfo, conninfos, delimiter, proxy_user, report, wait)
        else:
            done = migrate_all(store, conninfo, report, wait)
        if as_json:
            echo_json({"applied": done})
            return
        if quiet:
            return
        for step in done:
            say(f"applied {step}")
        if not done:
            say("nothing to do: the schema is up to date")


_LMTP = ("lmtp.master.cf", "lmtp.main.cf", "pipehandler-lmtp.socket")
"""The files for LMTP, which name lmtp.socket."""


@click.command("postfix")
@click.argument("file", metavar="[FILE]", type=click.Choice(["all", *templates.FILES]), default="all")
@click.option("--user", default="pipehandler", show_default=True, help="The account that runs the handler.")
@click.option(
    "--domain",
    "domains",
    multiple=True,
    default=["example.com"],
    show_default=True,
    help="A domain whose mail is stored; once for each.",
)
@config_directory_option
@click.option("--socket", default=DEFAULT_SOCKET, show_default=True, help="Where `pipehandler serve` listens.")
@click.option(
    "--maxproc",
    default=20,
    show_default=True,
    help="Maximum number of messages at the same time; below PostgreSQL's max_connections.",
)
@click.option(
    "--client",
    "client_path",
    metavar="PATH|none",
    default=client.PATH,
    show_default=True,
    help="The hand-over client, which is used if it is installed and works; none: Python is started.",
)
@click.pass_context
def postfix_lines(
    context: click.Context, /, file: str, domains: tuple[str, ...], client_path: str, **options: Any
) -> None:
    """Print the lines for Postfix, the units for systemd, and the files for monitoring, with the paths of this installation.

    FILE is one of these; without it, all are printed. Postfix: master.cf, main.cf, pipehandler_status_filter, pgsql-recipients.cf;
    for a host that does nothing else, receive-only.master.cf and receive-only.main.cf; for LMTP, lmtp.master.cf and lmtp.main.cf.
    systemd: pipehandler-lmtp.socket, pipehandler.sysusers, pipehandler.tmpfiles, pipehandler.socket, pipehandler.service,
    pipehandler-watch.service, pipehandler-metrics.service, pipehandler-expire.service, pipehandler-expire.timer,
    pipehandler-web.service. logrotate: pipehandler.logrotate. nginx: pipehandler.nginx. Prometheus: pipehandler.rules.yml. Grafana:
    pipehandler.dashboard.json.
    """
    options["domain"] = ", ".join(domains)
    if file in ("all", "master.cf"):
        options["client"] = _client_words(client_path)
    if file in ("all", "pgsql-recipients.cf", "pipehandler.logrotate", "pipehandler.nginx", *_LMTP) and os.path.exists(
        context.obj["config"]
    ):
        with reported_errors():
            configured = load(context.obj["config"])
            options["delimiter"] = configured.recipients.delimiter
            options["log_file"] = configured.log.file
            options["lmtp"] = configured.lmtp.socket
            options["web"] = configured.web
            if configured.database.conninfo:
                options["database"] = uri(configured.database.conninfo)
    for name in templates.FILES if file == "all" else [file]:
        if file == "all":
            say(f"##### {name}")
        say_all(templates.lines(name, config=context.obj["config"], **options).split("\n"))


def _client_words(path: str) -> list[str]:
    """Return what starts the client at `path`; [] if there is none, or it does not work."""
    if path == "none" or (path == client.PATH and not os.path.exists(path)):
        return []
    problem = client.usable(path)
    if problem:
        say(f"note: master.cf starts Python, because the hand-over client does not work: {problem}", err=True)
    return [] if problem else client.start(path)


@click.command("client")
@click.argument("path", default=client.PATH)
def client_(path: str) -> None:
    """Install the hand-over client, which needs a tenth of the CPU time of the Python entrypoint.

    It is a small program in C, for hosts with resident workers. It is copied to PATH, in one step and only if it works there;
    without PATH, to /usr/local/lib/pipehandler/client. `pipehandler postfix master.cf` then prints lines that use it.
    """
    try:
        client.install(path)
    except client.ClientError as error:
        raise Failure(str(error), EX_UNAVAILABLE) from None
    option = "" if path == client.PATH else f" --client {shlex.quote(path)}"
    say(f"installed {path}")
    say(f"`pipehandler postfix master.cf{option}` prints the lines that use it")


@click.command("serve")
@click.option("--status", is_flag=True, help="Show the counts of the running service.")
@click.option("--json", "as_json", is_flag=True, help="With --status: a JSON object, for programs.")
@click.option("--trial", is_flag=True, hidden=True)
@click.pass_context
def serve(context: click.Context, status: bool, as_json: bool, trial: bool) -> None:
    """Run the resident workers, which deliver without the cost of starting a process.

    SIGTERM stops it after the messages in progress. It notices by itself that the configuration has changed, and that the
    program was replaced, and becomes the new one; SIGHUP reads the configuration again. Without the service, every message is
    delivered by a separate process.
    """
    with reported_errors():
        config = load(context.obj["config"])
        if not status:
            from pipehandler.workers.service import serve, try_out  # loads all that a delivery needs

            if trial:
                say(try_out())
                return
            serve(context.obj["config"], config, lambda line: say(line, err=True))
            return
        answer = ask(config.serve.socket)
    if as_json:
        echo_json(answer)
    else:
        counts = [[name, count] for name, count in answer.items() if name not in DIGESTS]
        say_all(table(["WHAT", "COUNT"], counts))
        for what in stale(answer, config):
            say(f"the workers {what}: `pipehandler check`")
        if answer.get("other_namespace"):
            say(f"other_namespace: {OTHER_NAMESPACE}")
