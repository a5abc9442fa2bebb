"""`pipehandler restored`: what a database needs after a restore."""

import click

from pipehandler.cli.terminal import say
from pipehandler.store import restored as store_of
from pipehandler.store.migrate import migrate

from .command import counted, echo_json, opened_store, quiet_option
from .upkeep import hinted


@click.command("restored")
@click.option(
    "--nothing-lost",
    is_flag=True,
    help="No commit was lost: after pg_upgrade, pg_upgradecluster, or a fail-over to a synchronous standby. Numbers go on as"
    " they are.",
)
@quiet_option
@click.option("--json", "as_json", is_flag=True, help="What was done as a JSON object, for programs.")
@click.pass_context
def restored(context: click.Context, nothing_lost: bool, quiet: bool, as_json: bool) -> None:
    """Finish a restore: run it once as the owner of the database, before mail arrives again; safe to run twice.

    It does what `migrate` does, creates group roles that are missing, and sets all rights. It lets the numbers of leases and
    deliveries go on where none was ever given out, so that a number that an application keeps never means something else. In
    another cluster, cursors of the stream from before are refused.
    """
    with opened_store(context) as store, hinted():
        steps = migrate(store, lambda line: say(line, err=True), again=True)
        moved = [] if nothing_lost else store_of.move_numbers(store)
        refused, adopted = False, 0
        # In a dump, transactions have the numbers of the former cluster, even if nothing was lost.
        if not nothing_lost or store_of.changed(store) == store_of.DUMP:
            refused = store_of.replace_cursors(store)
            adopted = sum(store_of.adopt_deliveries(store))
        store_of.record(store)
    if as_json:
        echo_json(
            {
                "applied": [step.name for step in steps],
                "sequences": [each._asdict() for each in moved],
                "cursors_refused": refused,
                "deliveries_adopted": adopted,
            }
        )
    elif not quiet:
        for step in steps:
            say(f"applied {step.name}, roles and rights")
        for each in moved:
            say(f"{each.sequence}: {each.after} is next, the last one was {each.before}")
        if adopted:
            say(f"{counted(adopted, 'delivery', 'deliveries')} had transaction numbers of another cluster")
    if refused and not as_json:
        say(
            "cursors of the stream from before are refused: applications begin again, with an empty one or `cursor_now()`"
        )
    if not as_json and not quiet:
        say("recorded this cluster")
