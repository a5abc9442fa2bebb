"""Is the schema that of this program, with its functions and views as `migrate` installed them?"""

from collections.abc import Callable, Iterator

from pipehandler.store.connection import Store
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE, StoreError
from pipehandler.store.health import code_status, health
from pipehandler.store.sql_files import code, migrations

from .finding import Finding

_FUNCTIONS = """
SELECT p.proname::text AS name
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE n.nspname = 'pipehandler' AND p.proname IN ('health', 'code_objects', 'code_status')
"""

_INSTALL = "# install the newer pipehandler on this host, too"

ToMigrate = Callable[[str, str], Finding]
"""Makes a finding from its code and what is wrong, whose fix is the command that migrates."""


def check_schema(store: Store, to_migrate: ToMigrate) -> list[Finding]:
    """Compare the schema of the database with that of this program. Raises StoreError."""
    present = {row["name"] for row in store.rows(_FUNCTIONS)}
    try:
        if "health" not in present and "code_status" not in present:
            return [to_migrate("schema-old", "the schema has no function pipehandler.health")]
        if "health" in present:
            version, newest = health(store).schema_version, migrations()[-1].version
            if version < newest:
                what = f"the schema has version {version}, and this program needs {newest}"
                return [to_migrate("schema-old", what)]
            if version > newest:
                return [_newer(f"the schema has version {version}, and this program knows {newest}")]
        missing = {"health", "code_objects", "code_status"} - present
        if missing:
            return [_damaged([f"function pipehandler.{name}()" for name in sorted(missing)], to_migrate)]
        return list(_code(store, to_migrate))
    except StoreError as error:
        if error.sqlstate != INSUFFICIENT_PRIVILEGE:  # which check_role has reported
            raise
        return []


def _code(store: Store, to_migrate: ToMigrate) -> Iterator[Finding]:
    status, own = code_status(store), code()
    if status is None or status.version < own.version:
        found = status.version if status else "no"
        yield to_migrate(
            "schema-old", f"the functions in the database have version {found}, this program needs {own.version}"
        )
        return
    if status.version > own.version:
        yield _newer(f"the functions in the database have version {status.version}, this program knows {own.version}")
    elif status.checksum != own.checksum:
        yield Finding(
            "schema-build",
            f"the functions in the database have version {own.version}, but are from another build of pipehandler",
            "What this program expects of them may not be what they do.",
            "# install the same released pipehandler on every host",
        )
    if status.damaged:
        yield _damaged(status.damaged, to_migrate)
    for name in status.unknown:
        yield Finding(
            "schema-unknown",
            f"{name} is in the schema pipehandler, but does not come from `pipehandler migrate`",
            "It may run instead of a function of ours, and then read, change or lose mail.",
            f"DROP {name};",
        )


def _damaged(names: list[str], to_migrate: ToMigrate) -> Finding:
    verb = "is" if len(names) == 1 else "are"
    return to_migrate("schema-damaged", f"{', '.join(names)} {verb} missing, or not as `pipehandler migrate` made it")


def _newer(what: str) -> Finding:
    return Finding(
        "schema-new",
        what,
        "What this program stores may not be what the newer one expects.",
        _INSTALL,
    )
