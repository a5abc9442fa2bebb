"""Digests of the installed code and of the configuration."""

import hashlib
import os
import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution, requires

from pipehandler.handover import INSTALLATION
from pipehandler.handover import __file__ as identifying
from pipehandler.runtime.installation import PACKAGES, code_digest, configuration_digest, digest
from pipehandler.settings.config import Config, Limits, Store, Web


def test_digest() -> None:
    """The first 48 bits of a SHA-256, of the parts and of where each of them ends."""
    assert digest(b"ab", b"c") == int(hashlib.sha256(b"2:ab1:c").hexdigest()[:12], 16)
    assert digest(b"ab", b"c") != digest(b"a", b"bc")
    assert 0 < digest() < 2**48


def test_code_digest() -> None:
    """It covers the interpreter, the installation, and the files of each package; missing packages are skipped."""
    records = []
    for name in PACKAGES:
        records.append(b"")
        with suppress(PackageNotFoundError):
            records[-1] = (distribution(name).read_text("RECORD") or "").encode()
    assert code_digest() == digest(sys.version.encode(), INSTALLATION, *records)
    assert b"pipehandler/fence.py,sha256=" in records[0]
    assert b"psycopg/connection.py,sha256=" in records[1]


def test_installation() -> None:
    """The file that every entrypoint loads identifies it: a replaced one is another."""
    status = os.stat(identifying)
    assert f"{status.st_dev:x}.{status.st_ino:x}.{status.st_mtime_ns:x}".encode() == INSTALLATION
    assert re.fullmatch(rb"[0-9a-f]+\.[0-9a-f]+\.[0-9a-f]+", INSTALLATION)


def test_configuration_digest() -> None:
    """Every value counts, but those of the page; and one that is not Unicode does not raise."""
    before = configuration_digest(Config())
    assert configuration_digest(Config()) == before
    assert configuration_digest(Config(limits=Limits(deadline=61))) != before
    assert configuration_digest(Config(web=Web(listen="x"))) == before
    assert configuration_digest(Config(store=Store(mail_host="\udcff"))) != before


def test_packages() -> None:
    """A new version of any library that deliveries may load is noticed, and a damaged file of it is reported."""
    needed = {re.split(r"[^\w-]", each)[0] for each in requires("pipehandler") or [] if "extra ==" not in each}
    assert "lxml" in needed
    assert {"pipehandler", "psycopg-binary", "psycopg-c", *needed} == set(PACKAGES)
