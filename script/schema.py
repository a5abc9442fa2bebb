"""Write sql/schema.sql, and a line of sql/code/versions where sql/code has changed. Run by script/schema."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from harness import account
from harness.database import Database
from harness.postgresql import FAST, PostgreSQL
from harness.schema_dump import VERSION, schema_text

from pipehandler.store.sql_files import code

SQL = Path(__file__).parent.parent / "sql"


def main() -> None:
    """Generate both files from what is installed, which script/schema brings up to date first."""
    with (
        account.folder("pipehandler-schema-") as folder,
        PostgreSQL(folder / "pg", VERSION, FAST).start() as server,
        Database.fresh(server) as database,
    ):
        text = schema_text(server, database.name)
    (SQL / "schema.sql").write_text(text, "utf-8")
    print(f"sql/schema.sql: {text.count(chr(10))} lines")

    versions = SQL / "code" / "versions"
    number, checksum = versions.read_text("utf-8").split()[-2:]
    if checksum != code().checksum:
        with versions.open("a", encoding="utf-8") as file:
            file.write(f"{int(number) + 1} {code().checksum}\n")
        print(f"sql/code/versions: sql/code is version {int(number) + 1} now")


main()
