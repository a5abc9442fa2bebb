"""Bring the catalogues of the inbox page up to date. Run by script/messages.

New sentences are added without a translation, those that are gone are removed; the English catalogue repeats its msgids.
Nothing is guessed: a sentence that has changed is a new one.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from harness.messages import catalogue_file, extracted, read_catalogue, translated, updated, written

from pipehandler.web.languages import LANGUAGES


def main() -> int:
    """Update each catalogue. Returns the exit status: 1 if a translation is missing."""
    template, missing = extracted(), 0
    for code in LANGUAGES:
        file = catalogue_file(code)
        before = file.read_bytes() if file.exists() else b""
        catalogue = updated(code, read_catalogue(code), template)
        after = written(catalogue)
        if after != before:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(after)
        absent = [message for message in catalogue if message.id and not translated(message)]
        missing += len(absent)
        change = "" if after == before else ", changed"
        print(f"{code:8} {len(catalogue)} sentences, {len(absent)} not translated{change}")
        for message in absent[:5]:
            print(f"         {message.id!r}")
    return 1 if missing else 0


sys.exit(main())
