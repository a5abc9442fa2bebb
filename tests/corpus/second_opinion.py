"""Compare our reading of real mail with that of independent parsers: `script/second-opinion`.

Each parser is a small program in the folder `parsers`, which reads file names and prints a line of JSON for each. The
values are compared field by field. second_opinion.tsv has a row for each difference (file, field, parser, kind), and
second_opinion_kinds.tsv records for each kind which parser is right and why. A difference without a row, or a row
without a difference, is printed and makes the status 1.

What counts as equal:

    text, html, subject, names   runs of white space (also no-break spaces and line ends) are one space, and none at
                                 either end; nothing and an empty value are the same
    addresses                    the case of letters does not matter; the members of groups are part of the list
    date                         the instant, in whole seconds; the zone does not matter
    message_id                   without its angle brackets
    attachments                  in any order; size and SHA-256 of the octets with LF and without line ends at the end;
                                 for what a parser does not keep as octets (message/rfc822) the name alone

The names of charsets are never compared, only what was decoded.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

from corpus.messages import FOLDER, names, read, table
from pipehandler.mail.parsed import Address
from pipehandler.parse.message import parse

PARSERS = Path(__file__).parent / "parsers"
TABLE = Path(__file__).with_suffix(".tsv")
PYTHON = (3, 11)
"""Whose email the table is for."""
FIELDS = ("subject", "from", "to", "cc", "date", "message_id", "text", "html", "attachments")

Key = tuple[str, str, str]
"""File, field, parser."""


def commands(modules: str) -> dict[str, list[str]]:
    """The command of each parser. modules: the folder with node_modules, in which postal-mime is."""
    return {
        "email": [sys.executable, str(PARSERS / "python_email.py")],
        "gmime": ["/usr/bin/python3", str(PARSERS / "gmime.py")],
        "postal-mime": ["node", str(PARSERS / "postal_mime.mjs"), modules],
    }


def missing(modules: str) -> str:
    """Return which parser is missing; "" if all are here."""
    if sys.version_info[:2] != PYTHON:
        return f"the table is for the email of Python {PYTHON[0]}.{PYTHON[1]}"
    if not Path(modules, "node_modules/postal-mime").is_dir() or not shutil.which("node"):
        return f"no postal-mime in {modules}/node_modules"
    gmime = "import gi; gi.require_version('GMime', '3.0')"
    if subprocess.run(["/usr/bin/python3", "-c", gmime], capture_output=True, check=False).returncode:
        return "no GMime 3 for Python (gir1.2-gmime-3.0, python3-gi)"
    return ""


def opinions(command: list[str], files: list[str]) -> Iterator[dict[str, Any]]:
    """The values that one parser reads in each file. Raises CalledProcessError if it does not get through all of
    them."""
    paths = "".join(f"{FOLDER / file}\n" for file in files)
    done = subprocess.run(command, input=paths.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == len(files), f"{command}: {len(lines)} answers for {len(files)} files"
    return map(json.loads, lines)


def ours(file: str) -> dict[str, Any]:
    """Our values for a file, in the shape of the parsers' output."""
    parsed = parse(read(file))
    return {
        "subject": parsed.subject,
        **{name: listed(value) for name, value in (("from", parsed.from_), ("to", parsed.to), ("cc", parsed.cc))},
        "date": parsed.date.astimezone(UTC).isoformat() if parsed.date else None,
        "message_id": parsed.message_id,
        "text": parsed.text,
        "html": parsed.html,
        "attachments": [[each.file_name, *measured(each.content)] for each in parsed.attachments],
    }


def listed(addresses: list[Address]) -> list[list[str]]:
    """Addresses as pairs."""
    return [[each.name, each.address] for each in addresses]


def measured(content: bytes) -> tuple[int, str]:
    """Size and SHA-256 with LF and without line ends at the end."""
    octets = content.replace(b"\r\n", b"\n").rstrip(b"\n")
    return len(octets), hashlib.sha256(octets).hexdigest()


def spaced(value: str | None) -> str:
    """Text with one space for each run of white space."""
    return " ".join((value or "").split())


def normal(field: str, value: Any) -> Any:
    """The value as it is compared; a text that begins with ! is the exception of a parser that failed, and is kept."""
    if isinstance(value, str) and value.startswith("!"):
        return value
    if field in ("from", "to", "cc"):
        return [[spaced(name), spaced(address).casefold()] for name, address in value or []]
    if field == "attachments":
        return sorted(([spaced(name), size, digest] for name, size, digest in value or []), key=repr)
    if field == "date":
        return value and value.partition(".")[0].removesuffix("+00:00")
    return spaced(value).strip("<> ") if field == "message_id" else spaced(value)


def equal(field: str, left: Any, right: Any) -> bool:
    """Whether two normalised values are the same."""
    if field != "attachments" or isinstance(right, str) or left == right:
        return bool(left == right)
    # Content that a parser does not keep as octets has only a name.
    rest = list(left)
    for name, size, digest in right:
        found = next((one for one in rest if one == [name, size, digest] or (size is None and one[0] == name)), None)
        if found is None:
            return False
        rest.remove(found)
    return not rest


def differences(modules: str) -> dict[Key, tuple[Any, Any]]:
    """Our value and theirs wherever they differ."""
    files = names()
    mine = [ours(file) for file in files]
    found = {}
    for parser, command in commands(modules).items():
        for file, our, their in zip(files, mine, opinions(command, files), strict=True):
            for field in FIELDS:
                left, right = normal(field, our[field]), normal(field, their.get(field))
                if not equal(field, left, right):
                    found[file, field, parser] = left, right
    return found


def explained() -> dict[Key, str]:
    """The kind of each known difference. Raises ValueError for a kind that is not described."""
    kinds = table("second_opinion_kinds.tsv")
    rows = {(file, field, parser): kind for (file, field, parser), kind in table(TABLE.name).items()}
    for key, kind in rows.items():
        if not any(known[0] == kind for known in kinds):
            raise ValueError(f"{TABLE.name}: {' '.join(key)}: second_opinion_kinds.tsv has no kind {kind!r}")
    return rows


def report(modules: str) -> list[str]:
    """The differences that have no row, and the rows that have no difference."""
    found, known = differences(modules), explained()
    new = [f"{' '.join(key)}\n    ours   {left!r:.400}\n    theirs {right!r:.400}" for key, (left, right) in found.items()
           if key not in known]  # fmt: skip
    return new + [f"{' '.join(key)}: no longer different" for key in known if key not in found]


def main() -> int:
    """Compare; 0 if all differences are explained."""
    arguments = argparse.ArgumentParser(description="Compare our reading of real mail with that of other parsers.")
    arguments.add_argument(
        "--modules", default=os.environ.get("PIPEHANDLER_NODE_MODULES", "."), help="has node_modules"
    )
    modules = str(Path(arguments.parse_args().modules).resolve())
    if not (FOLDER / "MANIFEST.tsv").is_file():
        sys.stdout.write(f"skipped: no corpus of real mail in {FOLDER}\n")
        return 0
    if reason := missing(modules):
        sys.stdout.write(f"cannot compare: {reason}\n")
        return 1
    lines = report(modules)
    sys.stdout.write("\n".join(lines or [f"all {len(explained())} differences are explained"]) + "\n")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
