"""The command `watch`: new mail in Maildirs."""

import click

from pipehandler.cli.terminal import say
from pipehandler.settings.config_file import load

from .command import reported_errors


@click.command("watch")
@click.argument("maildirs", metavar="[MAILDIR]...", nargs=-1)
@click.option("--remove", is_flag=True, help="Remove the file of a stored message, instead of moving it to cur/.")
@click.pass_context
def watch(context: click.Context, maildirs: tuple[str, ...], remove: bool) -> None:
    """Store the new mail of Maildirs, as virtual(8), local(8) or another program delivers it.

    Without MAILDIR, those of watch.maildirs. A message is moved from new/ to cur/ when it is stored, and to failed/ if it can never
    be; after any other failure it stays in new/, and is tried again. Run it as the account that the Maildirs belong to. SIGTERM
    stops it after the messages in progress.
    """
    from pipehandler.maildir.watcher import watch  # loads all that a delivery needs

    with reported_errors():
        config = load(context.obj["config"])
        if remove:
            config = config._replace(watch=config.watch._replace(stored="remove"))
        chosen = maildirs or config.watch.maildirs
        if not chosen:
            raise click.UsageError("no Maildir: name one, or set watch.maildirs in the configuration")
        watch(context.obj["config"], config, chosen, lambda line: say(line, err=True))
