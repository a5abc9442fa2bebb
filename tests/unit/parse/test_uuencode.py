"""uuencode: files in the text of a message, and prose that only looks like it."""

import base64
import binascii
import time

import pytest

from pipehandler.parse.uuencode import File, split


def encoded(content: bytes, name: bytes = b"x.txt", zero: bytes = b"`") -> bytes:
    """As uuencode(1) writes it; `zero` stands for six zero bits."""
    lines = [binascii.b2a_uu(content[at : at + 45], backtick=zero == b"`") for at in range(0, len(content), 45)]
    return b"begin 644 " + name + b"\n" + b"".join(lines) + zero + b"\nend\n"


CONTENT = bytes(range(256)) * 3


@pytest.mark.parametrize("zero", [b"`", b" "])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_file_between_two_lines(zero: bytes, newline: bytes) -> None:
    """Both ways to write a zero, both line ends; the text around it is kept."""
    text = (b"before\n" + encoded(CONTENT, zero=zero) + b"after\n").replace(b"\n", newline)
    assert split(text, 10) == (b"before" + newline + b"after" + newline, [File(b"x.txt", CONTENT, True)])


def test_several_files_with_any_name() -> None:
    """Each block is a file; a name may have spaces; those beyond the limit remain text."""
    text = encoded(b"1", b"a b.txt") + b"--\n" + encoded(b"", b"empty") + encoded(b"3", b"c")
    assert split(text, 10) == (
        b"--\n",
        [File(b"a b.txt", b"1", True), File(b"empty", b"", True), File(b"c", b"3", True)],
    )
    assert split(text, 1) == (b"--\n" + encoded(b"", b"empty") + encoded(b"3", b"c"), [File(b"a b.txt", b"1", True)])


def test_blanks_lost_at_line_ends_and_check_characters() -> None:
    """Changes that transport and other encoders make to lines."""
    content = b"abc" + b"\0" * 42 + b"d" * 45
    lines = encoded(b"d" * 45 + content, zero=b" ").split(b"\n")
    stripped = b"\n".join(line.rstrip() for line in lines)
    assert split(stripped, 1)[1] == [File(b"x.txt", b"d" * 45 + content, True)]
    for zeros in (45, 100):  # of whole lines only the length is left
        content = b"\0" * zeros + b"d" * 45
        stripped = b"\n".join(line.rstrip() for line in encoded(content, zero=b" ").split(b"\n"))
        assert split(stripped, 1)[1] == [File(b"x.txt", content, True)]
    checked = encoded(b"d" * 90).replace(b"\nM", b"\n*M").replace(b"*M", b"M")
    checked = b"\n".join(line + b"#" if line.startswith(b"M") else line for line in checked.split(b"\n"))
    assert split(checked, 1)[1] == [File(b"x.txt", b"d" * 90, True)]


def test_base64_form() -> None:
    """POSIX: begin-base64 and four equal signs."""
    text = b"a\nbegin-base64 644 x.bin\n" + base64.encodebytes(CONTENT) + b"====\nb\n"
    assert split(text, 1) == (b"a\nb\n", [File(b"x.bin", CONTENT, True)])


@pytest.mark.parametrize(
    "text",
    [
        b"We\nbegin 644 things and\nend none.\n",
        b"begin 644 things\nM\nend\n",
        b"begin 644 things\nNOW AND THEN\n\nmore\n\nend\n",
        b"begin 644 things\n",
        b"begin 644 things\nend\n",
        b"begin 644 things\n\nThen we rest.\n",
        b"begin 644 x.txt\nI am no line of it\n",
        b"> begin 644 x.txt\n> #0V%T\n> `\n> end\n",
        b"begin 999 x.txt\n#0V%T\n`\nend\n",
        b"begin-base64 644 x\nno base64!\n",
    ],
)
def test_prose_stays(text: bytes) -> None:
    """A file starts with a begin line and a line that can only be encoded data."""
    assert split(text, 10) == (text, [])


def test_a_cut_file_is_a_file_as_far_as_it_goes() -> None:
    """After the first line a truncation loses only the end."""
    whole = encoded(CONTENT)
    first_line = whole.index(b"\n", 20) + 1
    for end in range(first_line + 1, whole.index(b"`\nend")):
        text, (file,) = split(whole[:end], 10)
        assert not text
        assert not file.complete
        assert CONTENT.startswith(file.content[:-3])
        assert len(file.content) >= (end - first_line) // 62 * 45


def test_text_behind_broken_lines_stays() -> None:
    """A line that is not part of the file is text."""
    assert split(encoded(b"1").replace(b"`\nend\n", b"Regards\nend\n"), 1) == (
        b"Regards\nend\n",
        [File(b"x.txt", b"1", False)],
    )


@pytest.mark.parametrize(
    "piece", [b"begin 644 x\n", b"begin 644 x\n\n", b"begin 644 x\n#0V%T\n", b"begin-base64 644 x\nQUJD\n", b"\n"]
)
def test_rubbish_is_cheap(piece: bytes) -> None:
    """A megabyte of begin lines costs less than a second."""
    begin = time.process_time()
    split(piece * (1_000_000 // len(piece)), 1_000)
    assert time.process_time() - begin < 1
