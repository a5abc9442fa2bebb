"""The SQL files keep the rules of docs/design/sql.md."""

import re
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from pipehandler.settings.data_files import data_files
from pipehandler.store.sql_files import Migration, code, migrations

SQL = Path(__file__).parents[3] / "sql"

FROZEN = {
    "0001_schema.sql": "4bf66a5503f889cd05e19f32993b561282459dbd817b98062f175d15b0f1f394",
    "0002_ingest.sql": "328df8480f4d1832076db7047a0cff94cdd7a673332c932027631c71a185e342",
    "0003_roles.sql": "d9de8cff943b2e0a3a4e560f9bd035ab20c96ffb0d25f0cfa913e71e1e7da56a",
    "0004_plans.sql": "61c1b1151a77c2f549aa582fb9a3327109732fbb5f275ac8f01c72ac6f7f1da8",
    "0005_health.sql": "ba68837459c3ec8bbf657af78b33090184d0cbb17f9d14ec642fe0615478387e",
    "0006_reparse.sql": "1c10646a0d5cdd91d3ee4582ac09459c9034710a1e6072c2b72ae0f05d8723dd",
    "0007_addresses.sql": "1bb7520e58b11e5182b3a90157f0cfc6bc8c5faba3ac26f757c43f8ee38a5eb2",
    "0008_retention.sql": "744bb9bfb9038de6cb19d9b9c89c61b5e0f9a02f7123676dc60d64225afe41e8",
    "0009_ingest.sql": "0eb884cdb1a492c2b5b5c4a40c6b39921659dfa094c8445979c7ab68aa2141b4",
    "0010_stream.sql": "52041588ce2066da223f7f3bac4a66a8b33eb5a25bdfecd03ef51e3387b1c852",
    "0011_health.sql": "88cbc14695f64ef5c1babf06c6188940b310b27f936a1b25b95ce26cc262e76b",
}


def test_released_files_are_frozen() -> None:
    """Databases store the checksums of these files; a change belongs in a new file."""
    digests = {path.name: sha256(path.read_bytes()).hexdigest() for path in (SQL / "schema").glob("*.sql")}
    assert {name: digests.get(name) for name in FROZEN} == FROZEN


def test_numbers() -> None:
    """No two files of sql/schema have the same number."""
    numbers = [migration.version for migration in migrations()]
    assert numbers == sorted(set(numbers))


def test_versions_of_the_code() -> None:
    """sql/code/versions has a line for each version, the last one for the present files: script/schema adds it."""
    lines = [line.split() for line in (SQL / "code" / "versions").read_text("utf-8").splitlines()]
    assert [int(number) for number, _ in lines] == list(range(1, len(lines) + 1))
    assert len({checksum for _, checksum in lines}) == len(lines)
    assert lines[-1] == [str(code().version), code().checksum], "run script/schema"


def test_what_is_installed() -> None:
    """All files travel with the package."""
    installed = data_files("sql")
    names = [str(path.relative_to(SQL)) for path in SQL.rglob("*") if path.is_file()]
    assert "schema.sql" in names
    for name in names:
        assert installed.joinpath(name).read_bytes() == (SQL / name).read_bytes(), name


@pytest.mark.parametrize("name", [name for name, _ in code().files])
def test_code(name: str) -> None:
    """Files of sql/code are readable and can be run again: short lines, a heading, nothing that works only once."""
    text = dict(code().files)[name]
    assert text.startswith("-- ")
    assert [line for line in text.split("\n") if len(line) > 120] == []
    statements = re.sub(
        r"BEGIN ATOMIC\n.*?\nEND;|(\$\$).*?\$\$|'[^']*'", "", re.sub(r"--.*", "", text), flags=re.DOTALL
    )
    allowed = ("CREATE OR REPLACE FUNCTION", "CREATE OR REPLACE VIEW", "COMMENT ON", "GRANT", "REVOKE", "DO")
    assert [part for part in map(str.strip, statements.split(";")) if part and not part.startswith(allowed)] == []
    assert not re.search(r"SELECT \w+\.\*\s+FROM", "".join(re.findall(r"CREATE OR REPLACE VIEW.*?;", text, re.DOTALL)))


def test_schema_never_calls_code() -> None:
    """A file of sql/schema that called a function of sql/code would change its effect with that function."""
    ours = set(
        re.findall(r"CREATE OR REPLACE (?:FUNCTION|VIEW) pipehandler\.(\w+)", "".join(text for _, text in code().files))
    )
    for migration in migrations():
        if migration.name not in FROZEN:
            called = re.findall(
                r"(?<!DROP FUNCTION )(?<!DROP FUNCTION IF EXISTS )(?<!DROP VIEW )pipehandler\.(\w+)",
                migration.statements,
            )
            created = re.findall(r"CREATE VIEW pipehandler\.(\w+)", migration.statements)
            assert ours.isdisjoint(set(called) - set(created)), migration.name


def hazards(*paths: Path) -> str:
    """What squawk finds in files of sql/schema: statements that lock a table for long, or rewrite it."""
    left_out = (
        "require-lock-timeout",  # `migrate` sets it
        "require-statement-timeout",  # an operator's decision
        "renaming-object",  # of an index; a renamed column fails the tests of the previous release
        "require-concurrent-index-deletion",  # cannot be in a transaction with the replacement of the index
        "ban-drop-function",  # sql/code creates it again
    )
    found = ""
    for path in paths:
        squawk = [str(Path(sys.executable).with_name("squawk")), "--pg-version", "14", "--exclude", ",".join(left_out)]
        if not Migration(0, "", path.read_text("utf-8")).concurrent:
            squawk.append("--assume-in-transaction")
        done = subprocess.run([*squawk, str(path)], capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stderr
        found += done.stdout if done.returncode else ""
    return found


def test_locks(tmp_path: Path) -> None:
    """No new file of sql/schema blocks deliveries with a lock that it holds while it reads or writes a whole table."""
    assert hazards(*(path for path in (SQL / "schema").glob("*.sql") if path.name not in FROZEN)) == ""
    slow = tmp_path / "9999_slow.sql"
    slow.write_text("ALTER TABLE pipehandler.delivery ALTER COLUMN recipient TYPE varchar(9);\n")
    assert "9999_slow.sql" in hazards(slow)
    slow.write_text("CREATE INDEX slow ON pipehandler.delivery (sender);\n")
    assert "9999_slow.sql" in hazards(slow)
