"""Was the database restored, without `pipehandler restored`?"""

from collections.abc import Callable, Iterator

from pipehandler.store.connection import Store
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE, StoreError
from pipehandler.store.restored import CLUSTER, DUMP, TIMELINE, changed

from .finding import Finding

_WHAT = {
    DUMP: "the tables were restored from a dump",
    CLUSTER: "the database is in another cluster than before, after pg_upgrade for example",
    TIMELINE: "a standby was promoted, or the cluster was recovered to a point in time",
}
_EFFECT = (
    "Numbers of leases and deliveries that were given out after the backup may be given out again, and an application that keeps"
    " one would show the mail of another. If no commit was lost (pg_upgrade, pg_upgradecluster, a synchronous standby), add --nothing-lost."
)


def check_restored(store: Store, command: Callable[[str], str]) -> Iterator[Finding]:
    """Compare the cluster with the one that the numbers belong to. command: makes the line that runs a command as the owner of
    the database. Raises StoreError."""
    try:
        reason = changed(store)
    except StoreError as error:
        if error.sqlstate != INSUFFICIENT_PRIVILEGE:  # which check_role has reported
            raise
        return
    if reason:
        yield Finding("restored", _WHAT[reason], _EFFECT, command("restored"))
