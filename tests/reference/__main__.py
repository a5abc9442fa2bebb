"""Write the generated documents into docs/; run by script/reference."""

from pathlib import Path

from harness import account
from harness.database import Database
from harness.postgresql import FAST, PostgreSQL

from . import commands, manual, schema

DOCS = Path(__file__).parents[2] / "docs"


def main() -> None:
    """Write each file that differs, and print its name."""
    pages = {"cli.md": commands.page(), "man/pipehandler.8": manual.pipehandler()}
    pages["man/pipehandler.toml.5"] = manual.configuration()
    with (
        account.folder("pipehandler-pg-") as folder,
        PostgreSQL(folder / "16", 16, FAST) as server,
        Database.fresh(server.start()) as database,
    ):
        pages["schema.md"] = schema.page(database)
    for name, text in pages.items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(f"wrote docs/{name}")


if __name__ == "__main__":
    main()
