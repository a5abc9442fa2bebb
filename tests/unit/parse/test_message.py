"""message: parsing as a whole, and the cost of a hostile message."""

import base64
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness.cpu import yardstick
from harness.hostile import HEADER, HOSTILE, MIXED, SIGNED, cost

import pipehandler
from pipehandler.mail.parsed import ParsedMessage
from pipehandler.parse import message
from pipehandler.parse.defect import Notebook
from pipehandler.parse.limits import Limits


def test_defects_are_complete() -> None:
    """Each code used in the package is explained, and each explanation is used."""
    package = Path(pipehandler.__file__).parent
    source = "".join(path.read_text() for path in package.rglob("*.py") if path.name != "defect.py")
    used = set(re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+)+)"', source)) & set(message.DEFECTS)
    assert used | {"defects-left-out", "nul-replaced"} == set(message.DEFECTS)
    assert all(sentence.endswith(".") and len(sentence) > 20 for sentence in message.DEFECTS.values())


def test_unknown_defects_are_a_mistake() -> None:
    """A code without explanation cannot be noted."""
    with pytest.raises(KeyError):
        Notebook().note("no-such-code")


def test_defects_are_bounded() -> None:
    """A message cannot have more defects than are useful; the rest are counted."""
    notebook = Notebook(size=3)
    for number in range(10):
        notebook.note("base64-broken", str(number), "x" * 1_000)
    defects = notebook.close()
    assert [defect.code for defect in defects] == ["base64-broken"] * 3 + ["defects-left-out"]
    assert (defects[3].detail, len(defects[0].detail)) == ("7", 200)


def test_parser_version_names_both() -> None:
    """The version stored with a parsed message: that of our rules, and the library's."""
    assert re.fullmatch(r"\d+ mail-parser/\d+\.\d+\.\d+", message.PARSER_VERSION)


def test_nothing_at_all() -> None:
    """An empty message is an empty parsed without defects."""
    assert message.parse(b"") == ParsedMessage(preview="")


def test_other_exceptions_pass_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A BaseException, such as the end of the time budget, is not swallowed."""

    class Deadline(BaseException):
        pass

    def late(*_: object, **_options: object) -> None:
        raise Deadline

    monkeypatch.setattr("pipehandler.parse.strict_address.get_addresses", late)
    with pytest.raises(Deadline):
        message.parse(b"Cc: A. B. <c@example.org>\n" + HEADER)


def test_failing_library_costs_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """If mail-parser fails, the lenient reading takes over, and a defect records it."""

    def broken(*_: object, **_options: object) -> None:
        raise AttributeError

    monkeypatch.setattr("pipehandler.parse.strict_address.get_addresses", broken)
    parsed = message.parse(b"Cc: A. B. <c@example.org>\n" + HEADER + b"\nbody")
    assert (parsed.from_[0].address, parsed.cc[0].address, parsed.text) == ("a@example.org", "c@example.org", "body")
    assert parsed.date is not None
    assert "decoder-failed" in [defect.code for defect in parsed.defects]


def test_limits_leave_the_rest() -> None:
    """Beyond a limit only the decoded content of the rest is lost."""
    parts = b"".join(b"--b\nContent-Type: application/x\n\n%d\n" % number for number in range(100))
    parsed = message.parse(MIXED + parts + b"--b--\n", Limits(parts=11, fields=2))
    assert len(parsed.header) == 2
    parsed = message.parse(MIXED + parts + b"--b--\n", Limits(parts=11))
    assert [attachment.content for attachment in parsed.attachments] == [b"%d" % number for number in range(10)]
    assert parsed.subject == "x"


def signed(entity: bytes) -> bytes:
    """An opaque signature around an entity, in BER with ends."""
    octets = bytes((0x04, 0x84)) + len(entity).to_bytes(4, "big") + entity
    return b"Content-Type: application/pkcs7-mime; name=smime.p7m\n\n" + SIGNED[:-6] + octets + b"\0\0" * 6


def test_signatures_in_one_another_are_opened_up_to_a_limit() -> None:
    """Four are opened, the fifth is kept unopened; inner parts are numbered below their container."""
    entity = b"Content-Type: text/plain\n\ntext"
    for _ in range(4):
        entity = signed(entity)
    assert message.parse(HEADER + b"X: " + b"x" * 2_000 + b"\n" + entity).text == "text"
    parsed = message.parse(HEADER + b"X: " + b"x" * 2_000 + b"\n" + signed(entity))
    assert parsed.text is None
    assert [attachment.part for attachment in parsed.attachments] == ["1", "1.1", "1.1.1", "1.1.1.1", "1.1.1.1.1"]
    assert [(defect.code, defect.where) for defect in parsed.defects] == [("container-left-out", "1.1.1.1.1")]


def test_containers_may_hold_twice_the_message() -> None:
    """Anything beyond is not opened, so that memory is bounded by the size of the message."""
    entity = b"Content-Type: text/plain\n\n" + b"text\n" * 20_000
    for _ in range(3):
        entity = signed(entity)
    parsed = message.parse(HEADER + entity)
    assert parsed.text is None
    assert ("container-left-out", "1.1.1") in [(defect.code, defect.where) for defect in parsed.defects]


def test_what_is_opened_counts_as_parts() -> None:
    """The limit on parts includes those inside opened containers."""
    inner = (
        b"Content-Type: multipart/mixed; boundary=n\n\n" + b"--n\nContent-Type: application/x\n\nx\n" * 50 + b"--n--\n"
    )
    parsed = message.parse(HEADER + signed(inner), Limits(parts=20))
    assert len(parsed.attachments) <= 20
    assert "parts-left-out" in [defect.code for defect in parsed.defects]


@pytest.mark.unmeasured
def test_ordinary_messages_load_no_reader_of_containers() -> None:
    """Libraries for RTF and HTML are loaded on demand, never by a delivery of mail that has text."""
    program = r"""
import sys
from pipehandler.parse.message import parse
parse(b"Content-Type: multipart/alternative; boundary=b\n\n--b\n\nx\n--b\nContent-Type: text/html\n\n<p>x\n--b--\n")
parse(b"Content-Type: application/ms-tnef\n\nx")
assert not {"lxml", "striprtf", "compressed_rtf", "html"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_messages_are_cheap(kind: str) -> None:
    """10 MB of anything are parsed at the cost of some ten million steps of Python, in 300 MB."""
    seconds, megabytes = cost(HOSTILE[kind]())
    assert seconds < 80 * yardstick()
    assert megabytes < 300


def test_large_attachment_is_copied_once() -> None:
    """50 MB in base64 cost the content in addition to the raw message, and little more."""
    raw = HEADER + b"Content-Type: application/x\nContent-Transfer-Encoding: base64\n\n"
    _, megabytes = cost(raw + base64.encodebytes(b"\x5a" * 50_000_000))
    assert megabytes < 50 + 60
