"""The modules that a delivery loads, and the layers of the package.

Which module may import which is a contract in pyproject.toml, which lint-imports checks.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from harness import account
from harness.handler import ENVIRONMENT, Handler
from harness.service import Service

REPOSITORY = Path(__file__).parents[2]

LIBRARIES = "import site; site.main(); import psycopg"
"""The base of a cold delivery. The modules that these load themselves differ between versions of Python."""

COLD = frozenset({"pipehandler", "psycopg", "gc", "hashlib", "pwd", "resource", "sqlite3", "syslog", "tomllib"})
"""Further packages from which a cold delivery may load modules, by top-level name; each costs every message."""


def test_architecture_quotes_the_layers() -> None:
    """ARCHITECTURE.md shows the layers of the contract, in their order, and no others."""
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    text = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    table = text.partition("<!-- layers -->")[2].partition("<!-- /layers -->")[0]
    assert [row.split(" | ")[0].strip("| `").replace("`, `", " | ") for row in table.strip().splitlines()[2:]] == layers


# Runs the entrypoint unchanged, and writes at its very end what was loaded; posix._exit is the only exit.
WATCHED = """
import posix, sys
listed, leave = posix.dup(2), posix._exit
def tell(status):
    posix.write(listed, " ".join(sys.modules).encode())
    leave(status)
posix._exit = tell
exec(sys.argv.pop(1))
"""

HTML = (
    b"From: a@example.org\nDate: Mon, 7 Sep 2026 10:00:00 +0900\nMIME-Version: 1.0\n"
    b"Content-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n<p>Gr=C3=BC=C3=9Fe\n"
)
MESSAGE = b"Content-Type: multipart/alternative; boundary=b\n\n--b\n\nGruesse\n--b\n%b\n--b--\n" % HTML


def loaded(handler: Handler, message: bytes = MESSAGE) -> set[str]:
    """The modules that one delivery has loaded at its end, without those that every interpreter starts with."""
    command = handler.command()
    command.insert(command.index("-c") + 1, WATCHED)
    done = subprocess.run(account.command(command), input=message, capture_output=True, env=ENVIRONMENT)
    assert done.stdout.startswith(b"2.0.0 stored ")
    return set(done.stderr.decode().split()) - loaded_by("pass")


def loaded_by(program: str) -> set[str]:
    """The modules that an isolated interpreter has loaded after a program."""
    command = [sys.executable, "-I", "-S", "-X", "utf8", "-c", f"{program}\nimport sys; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_cold_delivery_loads_only_what_it_needs(handler: Handler) -> None:
    """Importing is the cost of a cold start: besides its libraries a delivery loads no module that is not listed here;
    not click, not a charset detector for a message that needs none, no metrics and no tracing."""
    names = {name.partition(".")[0] for name in loaded(handler) - loaded_by(LIBRARIES)}
    assert "pipehandler" in names
    assert {name for name in names if not name.startswith("_")} <= COLD


def test_only_mail_without_text_loads_lxml(handler: Handler) -> None:
    """Mail that has only HTML costs the extraction of its text: 20 ms for a cold delivery; nothing else is loaded."""
    names = {name.partition(".")[0] for name in loaded(handler, HTML) - loaded_by(LIBRARIES)}
    assert "lxml" in names
    assert {name for name in names if not name.startswith("_")} <= COLD | {"lxml", "gzip"}


# Prints what the messages in the folder of its argument load that the service has not loaded before it forks.
RESIDENT = """
import sys
from pathlib import Path
from pipehandler.parse.message import parse
from pipehandler.parse.loading import load_all
load_all()
before = set(sys.modules)
for each in sorted(Path(sys.argv[1]).glob("*.eml")):
    parse(each.read_bytes(), trusted_authserv_ids=("mx.example.org",))
print(*sorted(sys.modules.keys() - before))
"""


def test_service_has_loaded_what_messages_need() -> None:
    """Parsing imports much only where a message needs it. Workers have all of it from the start, except codecs, which
    are small, and the reader of RTF for the few messages that have no other text."""
    command = [sys.executable, "-I", "-c", RESIDENT, str(REPOSITORY / "tests" / "golden")]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    codecs = {name for name in names if name.startswith(("encodings.", "_codecs_", "_multibytecodec"))}
    assert len(codecs) > 5  # the messages were parsed
    assert {name.partition(".")[0] for name in names} - {"encodings", *codecs} <= {"compressed_rtf", "striprtf"}


@pytest.mark.unmeasured
def test_handing_over_loads_next_to_nothing(handler: Handler) -> None:
    """An entrypoint that hands its message over loads two of our modules, and otherwise only built-in ones."""
    with Service(handler):
        names = loaded(handler)
    files = {name for name in names if name not in sys.builtin_module_names}
    assert files - {"_socket"} == {"pipehandler", "pipehandler.fence", "pipehandler.handover"}
