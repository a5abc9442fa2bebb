"""Write the parser's output for golden messages: `python tests/golden/write.py NAME...` (from the repository's root).

The .json is the promise, not the parser's output: read each one that this writes, line by line, before you keep it.
"""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipehandler.mail.parsed import ParsedMessage
from pipehandler.parse.message import parse

FOLDER = Path(__file__).parent
TRUSTED_AUTHSERV_IDS = ("mx.example.org",)


def view(parsed: ParsedMessage) -> dict[str, Any]:
    """A ParsedMessage as JSON: empty fields left out, addresses as [name, address, group], content as size and SHA-256.

    Without `preview` and `text_from_html`, which come from the bodies; tests/unit/parse/test_html_text.py is about them.
    """
    shown: dict[str, Any] = {}
    for key, value in asdict(parsed).items():
        if key in ("from_", "sender", "reply_to", "to", "cc", "bcc", "header", "defects"):
            value = [list(entry) for entry in value]
        elif key == "date" and value is not None:
            value = value.isoformat()
        elif key == "attachments":
            for entry in value:
                content = entry.pop("content")
                for name in ("content_location", "content_description", "parameters"):
                    if not entry[name]:
                        del entry[name]  # hardly any part has one
                entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if value not in (None, [], {}) and value is not False and key not in ("preview", "text_from_html"):
            shown[key.rstrip("_")] = value
    return shown


def read(name: str) -> dict[str, Any]:
    """The view of the golden message `name`."""
    return view(parse((FOLDER / f"{name}.eml").read_bytes(), trusted_authserv_ids=TRUSTED_AUTHSERV_IDS))


def text(shown: dict[str, Any]) -> str:
    """The view as the text of a .json: one line for each entry, so that differences are readable."""
    lines = []
    for key, value in shown.items():
        entry = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list):
            entry = "[\n" + ",\n".join(f"    {json.dumps(one, ensure_ascii=False)}" for one in value) + "\n  ]"
        lines.append(f"  {json.dumps(key)}: {entry}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main(names: list[str]) -> None:
    """Write the .json of each of `names`."""
    for name in names:
        (FOLDER / f"{name}.json").write_text(text(read(name)), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
