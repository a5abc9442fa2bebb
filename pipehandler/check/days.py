"""Check that the partitions of today and tomorrow are there. `expire` creates them, so without them it does not run."""

import os
from collections.abc import Iterator

from pipehandler.postfix.templates import PROGRAM
from pipehandler.store.connection import Store
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE, StoreError
from pipehandler.store.health import health

from .finding import Finding

_UNITS = "pipehandler-expire.service pipehandler-expire.timer"


def check_days(store: Store, path: str) -> Iterator[Finding]:
    """Report missing partitions of today and tomorrow. path: of the configuration. Raises StoreError."""
    try:
        prepared = health(store).days_prepared
    except StoreError as error:
        if error.sqlstate != INSUFFICIENT_PRIVILEGE:  # which check_role reports
            raise
        return
    if prepared is not None and prepared < 2:
        yield Finding(
            "partition-missing",
            f"the tables have no partitions for {'tomorrow' if prepared else 'today'} (UTC): `pipehandler expire` creates them",
            "Nothing is deferred: such mail is stored without a day. Retention removes it row by row, at a much greater cost.",
            start_expire(path),
        )


def start_expire(path: str) -> str:
    """Return the command that runs `expire` from now on, with the configuration at `path`."""
    return (
        f"for unit in {_UNITS}; do {PROGRAM} --config {path} postfix $unit > /etc/systemd/system/$unit; done"
        " && systemctl enable --now pipehandler-expire.timer"
        if os.path.isdir("/run/systemd/system")
        else "# run `pipehandler expire --every 60` under your supervisor, or `pipehandler expire` from cron"
    )
