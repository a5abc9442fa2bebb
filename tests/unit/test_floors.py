"""The floors of the house: a module imports only from floors below its own, and each library has one door."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import account
from harness.handler import ENVIRONMENT, Handler
from harness.service import Service

FLOORS = (
    # Numbers, tables and shapes.
    ("parse", "check"),
    (
        "sysexits",
        "parsed",
        "parse.limits",
        "share",
        "check.finding",
        "postconf",
        "handover",
        "systemd",
        "stopwatch",
        "duration",
        "child",
        "notification",
        "pattern",
    ),
    ("outcome", "listening", "postqueue", "retention"),
    # No I/O but reading the configuration and writing the log, no clock.
    ("config", "journal", "fingerprint", "parse.charset", "parse.transfer_encoding", "parse.authentication"),
    ("envelope", "prepended", "log", "parse.decoding", "parse.defect"),
    ("parse.encoded_word",),
    ("parse.address", "parse.parameter"),
    ("parse.part",),
    ("parse.mime",),
    ("parse.header",),
    ("parse.message",),
    # What deliveries on one host tell each other, and the operator.
    ("deadline", "outage", "survival", "cut", "sentry", "tally"),
    ("parsing", "rlimit", "attempt"),
    ("bounded",),
    # PostgreSQL.
    ("submission",),
    ("store",),
    # The story of a message; what operators ask for.
    ("deliver", "reparse", "health", "mailbox", "migrate", "pool", "postfix", "stream", "table", "expiry"),
    ("quarantine",),
    # How it goes.
    ("observation",),
    ("metrics", "scrape", "status"),
    # Being sure before the first mail.
    ("check.argv", "check.role"),
    ("check.server", "check.transport", "check.recipients"),
    ("check.database",),
    ("check.handler", "check.postfix"),
    ("check.account",),
    # The ways in.
    ("pipe", "importing"),
    # The resident workers.
    ("worker",),
    ("crew",),
    ("supervisor",),
    ("serve",),
    # The commands.
    ("admin.command",),
    (
        "admin.upkeep",
        "admin.checking",
        "admin.overview",
        "admin.reading",
        "admin.setup",
        "admin.watching",
    ),
    ("admin.quarantine", "admin.reparsing", "admin.importing", "admin.following", "admin.addressing", "admin.expiring"),
    ("admin",),
    # The fence.
    ("fence",),
    ("__main__",),
)
UPWARD = {("admin.setup", "fence")}
"""The exception: `deliver` among the commands goes through the fence, like every delivery."""

INGRESSES = {"importing", "pipe"}

# fmt: off
COLD = frozenset({
    # Ours, and what it stands on.
    "cython_runtime", "mailparser", "pipehandler", "psycopg", "psycopg_binary", "typing_extensions",
    # The standard library.
    "__future__", "abc", "array", "ast", "asyncio", "atexit", "base64", "binascii", "bisect", "bz2", "calendar",
    "collections", "concurrent", "contextlib", "contextvars", "copy", "copyreg", "csv", "ctypes", "dataclasses",
    "datetime", "decimal", "dis", "email", "enum", "errno", "fcntl", "fnmatch", "functools", "gc", "hashlib", "heapq",
    "importlib", "inspect", "ipaddress", "itertools", "json", "keyword", "linecache", "locale", "logging", "lzma",
    "math", "ntpath", "numbers", "opcode", "operator", "os", "pathlib", "pwd", "queue", "quopri", "random", "re",
    "reprlib", "resource", "select", "selectors", "shutil", "signal", "socket", "sqlite3", "ssl", "string", "struct",
    "subprocess", "sysconfig", "syslog", "tempfile", "textwrap", "threading", "token", "tokenize", "tomllib",
    "traceback", "types", "typing", "unicodedata", "urllib", "warnings", "weakref", "zipfile", "zlib", "zoneinfo",
    # What -S left out at the start.
    "codecs", "genericpath", "io", "posixpath", "site", "sitecustomize", "stat", "usercustomize",
})
# fmt: on
"""What a cold delivery may load, by top-level name, beside the interpreter's private modules; each costs every message."""

PACKAGE = Path(next(iter(importlib.util.find_spec("pipehandler").submodule_search_locations)))  # type: ignore[union-attr,arg-type]
FOLDERS = {"admin", "check", "parse"}
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        path.read_text("utf-8")
    )
    for path in PACKAGE.rglob("*.py")
    if path != PACKAGE / "__init__.py"
}


DOORS = {
    "psycopg": {"store"},
    "sqlite3": {"journal", "tally"},
    "sentry_sdk": {"sentry"},
    "prometheus_client": {"metrics"},
    "mailparser": {"parse.header"},
    "click": {name for name in MODULES if name.partition(".")[0] == "admin"},
    "chardet": {"parse.decoding"},
}


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Each import of a module, wherever in it: (package, module of the package or "")."""
    folder = module if module in FOLDERS else module.rpartition(".")[0]
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                package, _, inner = alias.name.partition(".")
                yield package, inner
        elif isinstance(node, ast.ImportFrom):
            above = f"pipehandler.{folder}." if node.level else ""
            package, _, inner = f"{above}{node.module or ''}".replace("..", ".").strip(".").partition(".")
            for alias in node.names:
                below = f"{inner}.{alias.name}".strip(".")
                yield package, below if package == "pipehandler" and below in MODULES else inner


def test_every_module_has_a_floor() -> None:
    """A new module is put on a floor before anything else."""
    assert sorted(name for floor in FLOORS for name in floor) == sorted(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_only_from_below(module: str) -> None:
    """A module imports only from lower floors, so none has to be read to understand one below it."""
    level = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    ours = {inner for package, inner in imports(module) if package == "pipehandler" and inner}
    assert not {name for name in ours if level[name] >= level[module] and (module, name) not in UPWARD}


@pytest.mark.parametrize("library", DOORS)
def test_one_door_for_each_library(library: str) -> None:
    """Only one module knows each library, so that another version or another library is a change of one file."""
    assert {module for module in MODULES if library in dict(imports(module))} == DOORS[library]


@pytest.mark.parametrize("ingress", sorted(INGRESSES))
def test_an_ingress_never_imports_another(ingress: str) -> None:
    """Each way in stands alone."""
    assert not {inner for _, inner in imports(ingress)} & (INGRESSES - {ingress})


# Runs the entrypoint as it is, and writes at its very end what was loaded; posix._exit is the only way out.
WATCHED = """
import posix, sys
listed, leave = posix.dup(2), posix._exit
def tell(status):
    posix.write(listed, " ".join(sys.modules).encode())
    leave(status)
posix._exit = tell
path, sys.argv = sys.argv[1], sys.argv[1:]
exec(compile(open(path).read(), path, "exec"), {"__name__": "__main__", "__file__": path})
"""

MESSAGE = (
    b"From: a@example.org\nDate: Mon, 7 Sep 2026 10:00:00 +0900\nMIME-Version: 1.0\n"
    b"Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n<p>Gr=C3=BC=C3=9Fe\n"
)


def loaded(handler: Handler) -> set[str]:
    """The modules that one delivery has loaded in the end, without those that every interpreter starts with."""
    python, isolated, without_site, *arguments = handler.command()
    command = [python, isolated, without_site, "-c", WATCHED, *arguments]
    done = subprocess.run(command, input=MESSAGE, capture_output=True, env=ENVIRONMENT, **account.identity())
    assert done.stdout.startswith(b"2.0.0 stored ")
    bare = subprocess.run(
        [python, isolated, without_site, "-c", "import sys; print(*sys.modules)"], capture_output=True
    )
    return set(done.stderr.decode().split()) - set(bare.stdout.decode().split())


def test_cold_delivery_loads_only_what_it_needs(handler: Handler) -> None:
    """Importing is the cost of a cold start: a delivery loads no module that is not listed here; not click, not a
    charset detector for a message that needs none, no metrics and no tracing."""
    names = {name.partition(".")[0] for name in loaded(handler)}
    assert {"pipehandler", "psycopg", "mailparser"} <= names
    assert not {name for name in names if not name.startswith("_")} - COLD


def test_handing_over_loads_next_to_nothing(handler: Handler) -> None:
    """An entrypoint that hands its message over loads two modules of ours, and beside them what is built in."""
    with Service(handler):
        names = loaded(handler)
    files = {name for name in names if name not in sys.builtin_module_names}
    assert files - {"_socket"} == {"pipehandler", "pipehandler.fence", "pipehandler.handover"}
