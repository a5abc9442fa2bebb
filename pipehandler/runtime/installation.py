"""Digests of the installed code and of the configuration. Two processes have the same if their digests are equal."""

import hashlib
import sys
from importlib.metadata import PackageNotFoundError, distribution

from ..handover import INSTALLATION
from ..settings.config import Config, Web

PACKAGES = (
    "pipehandler",
    "psycopg",
    "psycopg-binary",
    "psycopg-c",
    "mail-parser",
    "chardet",
    "lxml",
    "compressed-rtf",
    "striprtf",
    "click",
)
"""The distributions that deliveries run; those that are not installed are skipped."""


def digest(*parts: bytes) -> int:
    """Return a digest of `parts`: a number of 48 bits, which every JSON parser represents exactly."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(b"%d:" % len(part) + part)
    return int.from_bytes(hashed.digest()[:6])


def code_digest() -> int:
    """Return the digest of the installed code: the interpreter, and the packages' lists of files with their hashes.

    It is that of the running code only in a process that has just started: the lists are read now, the code was loaded
    at the start.
    """
    return digest(sys.version.encode(), INSTALLATION, *(_record(name) for name in PACKAGES))


def configuration_digest(config: Config) -> int:
    """Return the digest of a configuration: of its values, not of its text; without [web], which no delivery uses."""
    return digest(repr(config._replace(web=Web())).encode("utf-8", "surrogatepass"))


def _record(name: str) -> bytes:
    try:
        return (distribution(name).read_text("RECORD") or "").encode()
    except PackageNotFoundError:
        return b""
