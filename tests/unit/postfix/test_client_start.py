"""How the hand-over client is started: the loader that a program names, and what counts as a successful trial."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from pipehandler.postfix import client
from pipehandler.postfix.client import ClientError


def elf(order: str, bits: int, loader: bytes, kind: int = 3) -> bytes:
    """A program that names `loader`, in the format of another processor (elf(5))."""
    head = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2]) + bytes(10)
    if bits == 64:
        head += struct.pack(f"{order}HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        entries = [struct.pack(f"{order}IIQQQQQQ", type_, 4, 200, 0, 0, len(loader), 0, 1) for type_ in (1, kind)]
    else:
        head += struct.pack(f"{order}HHIIIIIHHHHHH", 2, 3, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
        entries = [struct.pack(f"{order}IIIIIIII", type_, 200, 0, 0, len(loader), 0, 4, 1) for type_ in (1, kind)]
    return (head + b"".join(entries)).ljust(200, b"\0") + loader


def test_loader_of_this_python() -> None:
    """It is the one with which this interpreter runs."""
    maps = Path("/proc/self/maps").read_text()
    assert re.search(rf" {re.escape(str(Path(client.loader(sys.executable)).resolve()))}$", maps, re.MULTILINE)
    done = subprocess.run([client.loader(sys.executable), sys.executable, "-c", "print(1)"], capture_output=True)
    assert done.stdout == b"1\n"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [32, 64])
def test_loader_of_any_processor(tmp_path: Path, order: str, bits: int) -> None:
    """The loader is found in all formats; a static program has none."""
    program = tmp_path / "program"
    program.write_bytes(elf(order, bits, b"/lib/ld-any.so.1\0"))
    assert client.loader(str(program)) == "/lib/ld-any.so.1"
    program.write_bytes(elf(order, bits, b"/lib/ld-any.so.1\0", kind=4))
    with pytest.raises(ClientError, match="names no dynamic loader"):
        client.loader(str(program))


@pytest.mark.parametrize("content", [None, b"", b"#!/bin/sh\n", b"\x7fELF\2\1", bytes(200)])
def test_not_a_program(tmp_path: Path, content: bytes | None) -> None:
    """A file that is not a program is named in the error."""
    program = tmp_path / "program"
    if content is not None:
        program.write_bytes(content)
    with pytest.raises(ClientError, match=re.escape(str(program))):
        client.loader(str(program))


@pytest.mark.parametrize(
    ("ended", "version"),
    [
        ((75, "True 3.11"), "3.11"),
        ((75, "False 3.11"), None),
        ((0, "True 3.11"), None),
        ((0, ""), None),
        ((127, "client: file too short"), None),
        ((75, "4.3.5 mail system incorrectly configured\n"), None),
        ((75, "True"), None),
    ],
)
def test_trial(ended: tuple[int, str], version: str | None) -> None:
    """Only a client that has become Python is one that works; sh, which runs an empty file, leaves with 0."""
    words = ["/ld", "/client", "--packages=/packages"]
    commands = []

    def start(command: list[str]) -> tuple[int, str]:
        commands.append(command)
        return ended

    if version:
        assert client.try_out(words, "/python", start) == version
    else:
        with pytest.raises(ClientError, match=f"/ld /client --packages=/packages left with status {ended[0]}"):
            client.try_out(words, "/python", start)
    assert commands[0][:4] == [*words, "/python"]
