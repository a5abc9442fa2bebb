"""The SQL files that come with the program, as steps of a migration. docs/design/sql.md has the rules for them.

sql/bookkeeping.sql and sql/roles.sql prepare a migration; sql/schema has what happens once, numbered and frozen; sql/code has
the current functions and views, applied as a whole; sql/proxy has those that the proxy of several shards has instead.
"""

import re
from functools import cache
from hashlib import sha256
from typing import NamedTuple

from pipehandler.settings.data_files import data_files

from .roles import ADDRESS_ADMIN, FORMER, MAINTENANCE

_FORMER_ROLES = dict(zip(FORMER, (ADDRESS_ADMIN, MAINTENANCE), strict=True))
"""Roles that frozen files know by a former name. sql/roles.sql has renamed them before a file runs."""


_CONCURRENT = "-- Outside of a transaction"
"""How a file begins whose statements cannot be in one, such as CREATE INDEX CONCURRENTLY."""

_TOGETHER = "-- In the transaction that follows"
"""What begins the rest of such a file, which is applied in one transaction with the functions and views."""


class Migration(NamedTuple):
    """One file of sql/schema: its number, its name, and its statements."""

    version: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return sha256(self.statements.encode()).hexdigest()

    @property
    def concurrent(self) -> bool:
        """Whether statements of it run one by one, outside of a transaction, while deliveries go on."""
        return self.statements.startswith(_CONCURRENT)

    def parts(self) -> list[str]:
        """The statements outside of a transaction, one by one; an empty line is between them, and nowhere else."""
        first = self._statements.partition(_TOGETHER)[0] if self.concurrent else ""
        return [part for part in first.split("\n\n") if part.strip()]

    def script(self) -> str:
        """The statements within a transaction, with the current names of roles; the last one records the file."""
        statements = self._statements
        if self.concurrent:
            _, heading, rest = statements.partition(_TOGETHER)
            statements = heading + rest
        record = (
            "INSERT INTO pipehandler.migration (version, name, checksum)"  # noqa: S608 # our own files
            f" VALUES ({self.version}, '{self.name}', '{self.checksum}');"
        )
        return f"-- schema/{self.name}\n{statements}\n{record}\n"

    @property
    def _statements(self) -> str:
        former = re.compile(r"\b(" + "|".join(_FORMER_ROLES) + r")\b")
        return former.sub(lambda found: _FORMER_ROLES[found[0]], self.statements)


class Code(NamedTuple):
    """The functions and views of this program: version (only grows, see sql/code/versions) and the files, in order.

    proxy: the files that follow on the proxy of several shards; is_proxy: whether they are applied.
    """

    version: int
    files: tuple[tuple[str, str], ...]
    proxy: tuple[tuple[str, str], ...] = ()
    is_proxy: bool = False

    @property
    def name(self) -> str:
        """How the step is reported."""
        return f"functions and views, version {self.version}"

    @property
    def checksum(self) -> str:
        """SHA-256 of all the files, in hexadecimal."""
        return sha256("\0".join(part for file in self.files + self.proxy for part in file).encode()).hexdigest()

    def script(self) -> str:
        """The statements of the files, and the one that records which objects they made."""
        files = "\n".join(f"-- code/{name}\n{statements}" for name, statements in self.files)
        if self.is_proxy:
            files += "".join(f"\n-- proxy/{name}\n{statements}" for name, statements in self.proxy)
        return f"""{files}
INSERT INTO pipehandler.code (version, checksum, objects)
SELECT {self.version}, '{self.checksum}', jsonb_object_agg(object, digest) FROM pipehandler.code_objects()
    ON CONFLICT (version) DO UPDATE
   SET (checksum, objects, server, applied_at, applied_by)
     = (excluded.checksum, excluded.objects, excluded.server, excluded.applied_at, excluded.applied_by);
"""  # noqa: S608 # our own files


Step = Migration | Code
"""What `pipehandler migrate` applies: it has a name, and a script."""


@cache
def migrations() -> tuple[Migration, ...]:
    """All files of sql/schema, in order."""
    return tuple(Migration(int(name[:4]), name, text) for name, text in _files("schema"))


@cache
def code(is_proxy: bool = False) -> Code:
    """The files of sql/code. is_proxy: for the proxy of several shards, with those of sql/proxy."""
    versions = (data_files("sql") / "code" / "versions").read_text("utf-8").split("\n")
    return Code(int(versions[-2].split()[0]), _files("code"), _files("proxy"), is_proxy)


def preparation() -> str:
    """The statements that come before all steps: the tables that record them, and the roles."""
    return "".join(f"-- {name}\n{_read(name)}\n" for name in ("bookkeeping.sql", "roles.sql"))


def _files(folder: str) -> tuple[tuple[str, str], ...]:
    found = sorted(file.name for file in (data_files("sql") / folder).iterdir() if file.name.endswith(".sql"))
    return tuple((name, _read(f"{folder}/{name}")) for name in found)


def _read(path: str) -> str:
    return data_files("sql").joinpath(path).read_text("utf-8")
