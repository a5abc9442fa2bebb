"""A commit that did not wait for its standby."""

from types import SimpleNamespace
from typing import Any

from pipehandler.store.standby import CommitWatch


def warning(function: str | None) -> Any:
    """A warning raised by this function of the server."""
    return SimpleNamespace(source_function=function)


def test_one_warning_among_others() -> None:
    """A warning from the function that waits for the standby decides, whatever is reported before or after it."""
    watch = CommitWatch()
    watch(warning("CheckMyDatabase"))
    watch(warning(None))
    assert not watch.weak
    watch(warning("SyncRepWaitForLSN"))
    watch(warning("CheckMyDatabase"))
    assert watch.weak
