"""The pages of the documentation, in the order in which they are read: their blocks, tables and links."""

import re
import textwrap
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]

PAGES = (
    "README.md",
    "docs/install.md",
    "docs/setup.md",
    "docs/receive-only.md",
    "docs/upgrade.md",
    "docs/rollback.md",
    "docs/uninstall.md",
    "docs/containers.md",
    "docs/configuration.md",
    "docs/resident-workers.md",
    "docs/lmtp.md",
    "docs/maildir.md",
    "docs/cli.md",
    "docs/reading-mail.md",
    "docs/stream.md",
    "docs/addresses.md",
    "docs/retention.md",
    "docs/erase.md",
    "docs/backup.md",
    "docs/high-availability.md",
    "docs/scaling.md",
    "docs/schema.md",
    "docs/inbox-page.md",
    "docs/tutorial-disposable-inbox.md",
    "docs/tutorial-newsletter-reader.md",
    "docs/troubleshooting.md",
    "docs/collation.md",
    "docs/outcomes.md",
    "docs/monitoring.md",
    "docs/quarantine.md",
    "docs/performance.md",
    "docs/fault-campaign.md",
    "docs/limits.md",
    "docs/security.md",
    "docs/shares.md",
    "docs/contributing.md",
    "docs/release.md",
    "ARCHITECTURE.md",
    "docs/design/resident-workers.md",
    "docs/design/lmtp.md",
    "docs/design/maildir.md",
    "docs/design/journal.md",
    "docs/design/monitoring.md",
    "docs/design/addresses.md",
    "docs/design/expiry.md",
    "docs/design/identity.md",
    "docs/design/stream.md",
    "docs/design/inbox.md",
    "docs/design/sql.md",
    "docs/design/partitions.md",
    "docs/design/shards.md",
    "docs/design/charsets.md",
    "docs/design/setup.md",
    "docs/design/cost.md",
    "docs/design/check.md",
    "docs/design/reparse.md",
    "docs/design/second-opinion.md",
    "docs/design/postfix-facts.md",
    "docs/design/attacks.md",
    "CHANGELOG.md",
)

GENERATED = ("docs/cli.md", "docs/schema.md")
"""Pages that script/reference writes: their lines are as long as the quoted text."""

LANGUAGES = ("sh", "sql", "python", "text", "mermaid")
"""The languages of fenced blocks: the first three are executed, the others are only shown."""


_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block. line: that of its opening fence, from 1."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        """The page and the line, as editors and compilers write them."""
        return f"{self.page}:{self.line}"


def read(page: str) -> str:
    """The text of a page."""
    return (REPOSITORY / page).read_text("utf-8")


def blocks(page: str, language: str | None = None) -> list[Block]:
    """The fenced blocks of a page in their order: those of one language, or all."""
    return blocks_of(page, read(page), language)


def blocks_of(page: str, text: str, language: str | None = None) -> list[Block]:
    """The same, for a page with this text."""
    found = (
        Block(page, text.count("\n", 0, fence.start()) + 1, fence["language"], textwrap.dedent(fence["text"]))
        for fence in _FENCE.finditer(text)
    )
    return [block for block in found if language in (None, block.language)]


def all_blocks(language: str) -> list[Block]:
    """The blocks of one language on all pages."""
    return [block for page in PAGES for block in blocks(page, language)]


def prose(page: str) -> str:
    """A page with its fenced blocks emptied; line numbers are unchanged."""
    return _FENCE.sub(lambda block: "\n" * block[0].count("\n"), read(page))


def marked(page: str, name: str) -> str:
    """The text between <!-- name --> and <!-- /name -->, without the fence of a block."""
    found = re.search(rf"^<!-- {name} -->\n(?:```\w*\n)?(.*?)(?:^```\n)?^<!-- /", read(page), re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no <!-- {name} -->"
    return found[1]


def table(page: str, name: str) -> list[list[str]]:
    """The rows of the table between <!-- name --> and <!-- /name -->, without its head."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in marked(page, name).strip().splitlines()[2:]
    ]


def before(page: str) -> list[str]:
    """The pages whose commands come before those of this one, in order: its line "Before this page"."""
    found = re.search(r"^Before this page: (.*)\.$", read(page), re.MULTILINE)
    return [f"docs/{target}" for target in re.findall(r"\]\(([\w-]+\.md)\)", found[1])] if found else []
