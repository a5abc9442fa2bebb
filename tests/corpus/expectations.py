"""What other projects' test suites expect for the messages in the corpus: (file, field, value), in our terms.

Fields: subject, from, to, cc, reply-to (lists of (name, address)), date (ISO 8601, UTC), text, html, message_id, and
attachments: a list of names, and contents as `content NUMBER`. Text is compared without the blanks at line ends and
around it, since the projects differ in them (see `trimmed`).
"""

import ast
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpus.messages import FOLDER

Expectation = tuple[str, str, Any]


def trimmed(text: str | None) -> str | None:
    """Text with LF, without blanks at the ends of lines and of all; None for nothing."""
    lines = (line.rstrip() for line in (text or "").replace("\r\n", "\n").split("\n"))
    return "\n".join(lines).strip() or None


def stalwart() -> Iterator[Expectation]:
    """stalwart mail-parser: JSON of its message structure."""
    for expected in sorted((FOLDER / "stalwart-mail-parser/_expected").rglob("*.json")):
        source = Path(str(expected).replace("/_expected/", "/")).with_suffix(".eml")
        if source.is_file():
            file = str(source.relative_to(FOLDER))
            yield from ((file, field, value) for field, value in _stalwart(json.loads(expected.read_text())))


def _stalwart(message: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    parts = message["parts"]
    fields = {field["name"]: field["value"] for field in parts[0]["headers"] if isinstance(field["name"], str)}
    subject = fields.get("subject")
    yield "subject", subject.get("Text") or None if isinstance(subject, dict) else None
    for name in ("from", "to"):
        yield name, _stalwart_addresses(fields.get(name))
    if isinstance(fields.get("date"), dict):
        yield "date", _stalwart_date(fields["date"]["DateTime"])
    for name, kind in (("text", "Text"), ("html", "Html")):
        bodies = [parts[index]["body"].get(kind) for index in message[f"{name}_body"]]
        yield name, trimmed("\n".join(body for body in bodies if body is not None))
    names = []
    for number, index in enumerate(message["attachments"], 1):
        ((kind, body),) = parts[index]["body"].items()
        names.append(_stalwart_name(parts[index]["headers"]))
        if kind in ("Binary", "InlineBinary"):
            yield f"content {number}", bytes(body)
        elif kind in ("Text", "Html"):
            yield f"content {number}", trimmed(body)
    yield "attachments", names


def _stalwart_addresses(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, dict):
        return []
    listed = value["Address"]
    entries = listed.get("List") or [one for group in listed.get("Group", []) for one in group["addresses"]]
    return [(entry.get("name") or "", entry.get("address") or "") for entry in entries]


def _stalwart_date(date: dict[str, Any]) -> str:
    sign = "-" if date["tz_before_gmt"] else "+"
    day = f"{date['year']:04}-{date['month']:02}-{date['day']:02}"
    clock = f"{date['hour']:02}:{date['minute']:02}:{date['second']:02}"
    return f"{day}T{clock}{sign}{date['tz_hour']:02}:{date['tz_minute']:02}".replace("-00:00", "+00:00")


def _stalwart_name(fields: list[dict[str, Any]]) -> str | None:
    for name, attribute in (("content_disposition", "filename"), ("content_type", "name")):
        for field in fields:
            if field["name"] == name and isinstance(field["value"], dict):
                for pair in field["value"]["ContentType"].get("attributes") or []:
                    if pair["name"] == attribute:
                        return str(pair["value"])
    return None


def mime4j() -> Iterator[Expectation]:
    """Apache James Mime4j: the decoded content of each leaf, in a file that its part number names."""
    for expected in sorted((FOLDER / "james-mime4j/_expected").rglob("*_decoded_*")):
        match = re.fullmatch(r"(.*)_decoded_1((?:_\d+)*)\.\w+", str(expected).replace("/_expected/", "/"))
        source = match and next(
            (path for path in (f"{match[1]}.msg.eml", f"{match[1]}.eml") if Path(path).is_file()), None
        )
        if match and source:
            number = match[2].replace("_", ".").strip(".") or "1"
            yield str(Path(source).relative_to(FOLDER)), f"leaf {number}", expected.read_bytes()


def email2dict() -> Iterator[Expectation]:
    """email2dict: Python literals; they are read, not run."""
    for expected in sorted((FOLDER / "email2dict/_expected/test/data/emails").glob("*.py")):
        source = FOLDER / "email2dict/test/data/emails" / f"{expected.stem}.eml"
        if not source.is_file():
            continue
        tree = ast.parse(expected.read_text())
        for statement in tree.body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "data":
                file = str(source.relative_to(FOLDER))
                yield from ((file, field, value) for field, value in _email2dict(_literal(statement.value)))


def _literal(node: ast.expr) -> Any:
    """The value of a literal; None for anything else, such as a call."""
    if isinstance(node, ast.Dict):
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.List):
        return [_literal(element) for element in node.elts]
    return node.value if isinstance(node, ast.Constant) else None


def _email2dict(message: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    fields = message["headers"]
    if "subject" in fields:
        yield "subject", fields["subject"]
    for name in ("from", "to", "cc", "reply-to", "sender"):
        if name in fields:
            entries = fields[name] if isinstance(fields[name], list) else [fields[name]]
            members = [one for entry in entries for one in entry.get("addresses", [entry])]
            yield name, [(one["display_name"], one["address"]) for one in members]
    content = message["content"]
    if isinstance(content, str):
        yield "text", trimmed(content)
    elif isinstance(content, list) and all(isinstance(part["content"], (str, bytes)) for part in content):
        named = [part for part in content if part["headers"].get("content-disposition", {}).get("params") or isinstance(
            part["content"], bytes)]  # fmt: skip
        for number, part in enumerate(named, 1):
            value = part["content"]
            yield f"content {number}", value if isinstance(value, bytes) else trimmed(value)


_PHP_STRING = r'"((?:[^"\\]|\\.)*)"'
_PHP_ASSERT = re.compile(
    rf"self::assert(?:Equals|Same)\({_PHP_STRING}, (.+)\);|self::assertFalse\((.+)\);|(\$attachment = )"
)
_PHP_FIELDS = {
    "$message->subject": "subject",
    "$message->getSubject()": "subject",
    "$message->message_id": "message_id",
    "$message->getTextBody()": "text",
    "$message->getHTMLBody()": "html",
    "$message->from->first()->mail": "from address",
    "$message->to->first()->mail": "to address",
    "$message->date->first()->setTimezone('UTC')->format(\"Y-m-d H:i:s\")": "date",
    "$message->hasTextBody()": "text",
    "$message->hasHTMLBody()": "html",
    "$attachment->name": "name",
    "$attachment->content_type": "type",
    "$attachment->content": "content",
    'hash("sha256", $attachment->content)': "sha256",
}


def webklex() -> Iterator[Expectation]:
    """Webklex php-imap: the plain assertions of its fixture tests, in the order of their lines."""
    for expected in sorted((FOLDER / "webklex-php-imap/_expected/tests/fixtures").glob("*Test.php")):
        program = expected.read_text(encoding="utf-8")
        fixture = re.findall(r'getFixture\("([^"]+)"', program)
        if len(fixture) == 1:
            file = f"webklex-php-imap/tests/messages/{fixture[0]}"
            if (FOLDER / file).is_file():
                yield from ((file, field, value) for field, value in _webklex(program))


def _webklex(program: str) -> Iterator[tuple[str, Any]]:
    number = 0
    for value, what, absent, attachment in _PHP_ASSERT.findall(program):
        number += bool(attachment)
        field = _PHP_FIELDS.get(what or absent)
        if field is None:
            continue
        text = re.sub(r"\\(.)", lambda pair: {"n": "\n", "r": "\r", "t": "\t"}.get(pair[1], pair[1]), value)
        if "$attachment" in what:
            yield f"{field} {number}", trimmed(text) if field == "content" else text
        elif field == "date":
            yield field, text.replace(" ", "T") + "+00:00"
        else:
            yield field, trimmed(text)


def digest(content: bytes) -> str:
    """SHA-256 as the projects write it."""
    return hashlib.sha256(content).hexdigest()
