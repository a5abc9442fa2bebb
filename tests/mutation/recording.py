"""A pytest plugin that records what each test executes, including the processes that it starts, and the SQL functions
that it calls.

coverage calls this a context. Child processes read theirs from the environment, so it is renewed for each test.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import coverage
import psycopg
import pytest
from harness import handler, postgresql, preloaded
from harness.database import Database

FOLDER = "MUTATION_RECORD"
"""The environment variable that names the folder for the records."""

_CONFIG = "COVERAGE_PROCESS_CONFIG"  # what the patch "subprocess" reads
_FUNCTIONS = "SELECT funcname FROM pg_stat_user_functions WHERE schemaname = 'pipehandler' AND calls > 0"


def pytest_configure() -> None:
    """Let the servers of the tests count the calls of functions, and wait longer: each process that ends saves what it
    has executed, which takes a third of a second."""
    postgresql.FAST["track_functions"] = "all"
    preloaded.PATIENCE *= 4


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Make the test the context of all code executed until it has ended, including its fixtures."""
    current = coverage.Coverage.current()
    if current is None:
        return (yield)
    current.switch_context(item.nodeid)
    outside = current.config.context
    current.config.context = item.nodeid
    os.environ[_CONFIG] = handler.ENVIRONMENT[_CONFIG] = current.config.serialize()
    try:
        return (yield)
    finally:
        current.config.context = outside
        current.switch_context("")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Record the functions that were called in the databases of the test, as long as these exist."""
    called: set[str] = set()
    for database in getattr(item, "funcargs", {}).values():
        if isinstance(database, Database):
            with suppress(psycopg.Error):  # the test has stopped the server
                called.update(row.funcname for row in database.rows(_FUNCTIONS))
    _record({"test": item.nodeid, "functions": sorted(called)})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record how long each phase took, and whether it passed."""
    if not hasattr(report, "node"):  # with xdist, not a second time in the process that collects the reports
        _record({"test": report.nodeid, "seconds": report.duration, "outcome": report.outcome})


def _record(line: dict[str, Any]) -> None:
    with Path(os.environ[FOLDER], f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
