"""The wheel as released: built, installed into a new environment, and used from there."""

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from socket import create_server

import pytest
from harness import account
from harness.database import Database
from harness.handler import ENVIRONMENT, Handler
from harness.missing import missing
from harness.service import ended

from pipehandler.mail.sysexits import EX_UNAVAILABLE
from pipehandler.postfix.templates import PACKAGES

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
HAS_LOWEST = sys.version_info < (3, 13)
"""Whether the lowest versions have wheels for this Python: lxml 5.0 and psycopg 3.2.1 were built for 3.12 and older ones."""

MESSAGE = b"From: a@example.org\nMessage-ID: <1@example.org>\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\n\nbody\n"


class Environment:
    """A new virtual environment with the wheel in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        venv.create(folder, with_pip=True, symlinks=True)

    def install(self, *arguments: str) -> None:
        """Install with the environment's own pip."""
        command = [str(self.python), "-m", "pip", "-q", "--disable-pip-version-check", "install", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the program `pipehandler`."""
        command = [str(self.folder / "bin" / "pipehandler"), *arguments]
        env = {**ENVIRONMENT, **environment}
        return subprocess.run(command, capture_output=True, text=True, cwd="/", env=env, timeout=120)

    def packages(self) -> dict[str, str]:
        """The installed packages: name -> version."""
        listed = subprocess.run([self.python, "-m", "pip", "list", "--format=json"], capture_output=True, check=True)
        return {each["name"].lower().replace("_", "-"): each["version"] for each in json.loads(listed.stdout)}

    def site(self) -> Path:
        """The package, as installed."""
        (package,) = self.folder.glob("lib/python3*/site-packages/pipehandler")
        return package

    def command(self, handler: Handler) -> list[str]:
        """The command of master.cf, with the interpreter and the program of this environment."""
        own = {sys.executable: str(self.python), PACKAGES: str(self.site().parent)}
        return [own.get(word, word) for word in handler.command()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    (built,) = folder.glob("pipehandler-*.whl")
    return built


@pytest.fixture(scope="module")
def alone(wheel: Path) -> Iterator[Environment]:
    """The wheel with libpq, and without the extras for single features."""
    with account.folder("pipehandler-wheel-") as folder:
        environment = Environment(folder)
        environment.install("-c", str(REPOSITORY / "script" / "constraints.txt"), f"{wheel}[binary]")
        yield environment


@pytest.fixture(scope="module")
def lowest(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """The wheel with all extras, each package in the lowest version that pyproject.toml admits.

    A Python that is newer than those versions gets the pinned ones, because there are no wheels of the lowest for it.
    """
    constraints = REPOSITORY / "script" / "constraints.txt"
    if HAS_LOWEST:
        constraints = tmp_path_factory.mktemp("lowest") / "constraints.txt"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in floors().items()))
    with account.folder("pipehandler-wheel-") as folder:
        environment = Environment(folder)
        extras = sorted(PROJECT["optional-dependencies"].keys() - {"c"})  # which needs a compiler
        environment.install("-c", str(constraints), f"{wheel}[{','.join(extras)}]")
        yield environment


@pytest.fixture(params=["alone", "lowest"])
def environment(request: pytest.FixtureRequest) -> Environment:
    """Each of the two."""
    found: Environment = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def empty(database: Database) -> Iterator[Database]:
    """A database without the schema, on a server that has the login roles."""
    name = f"{database.name}_empty"
    database.execute(f"CREATE DATABASE {name}")
    yield Database(database.server, name)
    database.execute(f"DROP DATABASE {name} WITH (FORCE)")


def floors() -> dict[str, str]:
    """The lower bound of each requirement, extras included."""
    requirements = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    found = [re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)(?:,<\d+)?", each) for each in requirements]
    assert None not in found, "a requirement without a lower bound"
    return {each[1]: each[2] for each in found if each}


@pytest.mark.unmeasured
def test_delivers(environment: Environment, empty: Database) -> None:
    """From an empty database to a stored message, using only what the wheel contains."""
    migrated = environment.run("--conninfo", empty.admin, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert "applied 0001" in migrated.stdout
    with account.folder("pipehandler-") as folder:
        handler = Handler(folder, empty.conninfo)
        command = environment.command(handler)
        first, second = handler.run(command, MESSAGE), handler.run(command, MESSAGE)
    assert (first.status, first.output[:13]) == (0, "2.0.0 stored ")
    assert (second.status, second.output[:20]) == (0, "2.0.0 stored before ")
    (row,) = empty.rows(
        "SELECT m.subject, m.state, r.raw FROM pipehandler.message m"
        " JOIN pipehandler.raw_message r ON r.day = m.day AND r.message = m.id"
    )
    assert (row.subject, row.state, bytes(row.raw)) == ("Grüße", "parsed", MESSAGE)


def test_commands(environment: Environment) -> None:
    """Every command can be loaded, and the examples are installed."""
    listed = environment.run("--help")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert environment.run("check", "--help").stdout.startswith("Usage: pipehandler check ")
    printed = environment.run("postfix")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert f"  {environment.site().parent} deliver\n" in printed.stdout


def test_damaged_files(alone: Environment, handler: Handler) -> None:
    """`check` compares the files with the wheel's RECORD, and reports those that differ or are missing; bytecode may differ."""
    check = ("--config", str(handler.config), "check", "--part", "handler", "--json")

    def damaged() -> list[str]:
        found = json.loads(alone.run(*check).stdout)
        return [each["what"] for each in found if each["code"] == "files-damaged"]

    assert damaged() == []
    library = alone.site().parent / "lxml" / "__init__.py"
    for file in (alone.site() / "store" / "stream.py", shipped_client(alone), library):
        content = file.read_bytes()
        try:
            file.write_bytes(content[:-1])
            (what,) = damaged()
            assert f"{file} differs" in what
            file.unlink()
            (what,) = damaged()
            assert f"{file} is missing" in what
        finally:
            file.write_bytes(content)
    (record,) = alone.site().parent.glob("pipehandler-*.dist-info/RECORD")
    content = record.read_bytes()
    record.write_bytes(content[: content.rindex(b",,")])
    (what,) = damaged()
    record.write_bytes(content)
    assert "RECORD of pipehandler is truncated" in what
    (compiled, *_) = (alone.site() / "__pycache__").glob("fence.*.pyc")
    compiled.write_bytes(b"")
    assert damaged() == []


def shipped_client(environment: Environment) -> Path:
    """The hand-over client in the wheel."""
    file = environment.site() / "share" / "bin" / "pipehandler-client"
    if not file.exists():
        missing("a C compiler, which makes the hand-over client,")
    return file


@pytest.mark.unmeasured
def test_client(alone: Environment, handler: Handler, database: Database) -> None:
    """The client of the wheel is installed by its command, delivers with the lines that are printed, and needs less than 100 KB."""
    assert shipped_client(alone).stat().st_size < 100_000
    path = handler.folder / "client"
    installed = alone.run("client", str(path))
    assert (installed.returncode, installed.stderr) == (0, "")
    printed = alone.run("postfix", "master.cf", "--client", str(path)).stdout
    (words,) = re.findall(r"^  argv=(.*)$", printed, re.MULTILINE)
    assert words.split()[1] == str(path)
    assert handler.run([*words.split(), *alone.command(handler)], MESSAGE).status == 0
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 1


def test_replaced_by_a_link(alone: Environment) -> None:
    """Called through a link, the examples name the link, so that they stay right when it is switched to another
    environment."""
    link = alone.folder.with_name(f"{alone.folder.name}-link")
    link.symlink_to(alone.folder)
    try:
        printed = subprocess.run([link / "bin" / "pipehandler", "postfix"], capture_output=True, text=True, check=True)
    finally:
        link.unlink()
    assert f"argv={link}/bin/python" in printed.stdout
    assert f"  {link / alone.site().parent.relative_to(alone.folder)} deliver\n" in printed.stdout
    assert f"{alone.folder}/" not in printed.stdout


def test_follow(environment: Environment, handler: Handler, database: Database) -> None:
    """An application imports what the package offers, with types, and reads a delivery."""
    assert (environment.site() / "py.typed").exists()
    assert handler.deliver(MESSAGE).status == 0
    program = "import sys, pipehandler; print(next(pipehandler.follow(sys.argv[1])).subject)"
    command = [str(environment.python), "-c", program, database.server.conninfo(database.name, user="reader")]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", timeout=60)
    assert (done.returncode, done.stdout) == (0, "Grüße\n"), done.stderr


def test_manual(environment: Environment) -> None:
    """man(1) finds the manual pages installed with the program."""
    for section in ("8", "5"):
        (page,) = (environment.folder / "share" / "man" / f"man{section}").iterdir()
        assert page.read_text("utf-8") == (REPOSITORY / "docs" / "man" / page.name).read_text("utf-8")


@pytest.mark.skipif(not HAS_LOWEST, reason="the lowest versions have no wheels for this Python")
def test_lowest_versions(lowest: Environment) -> None:
    """The lowest environment really has the lower bounds."""
    installed = lowest.packages()
    for name, floor in floors().items():
        found = installed[name].split(".")
        assert found[: floor.count(".") + 1] == floor.split("."), name
        assert set(found[floor.count(".") + 1 :]) <= {"0"}, name


def test_only_what_is_needed(alone: Environment) -> None:
    """Without extras nothing of Sentry, Prometheus or the tests is installed."""
    assert {"psycopg", "psycopg-binary", "mail-parser"} <= alone.packages().keys()
    assert not {"sentry-sdk", "prometheus-client", "pytest", "hypothesis", "hatchling"} & alone.packages().keys()


def test_metrics(alone: Environment, lowest: Environment, handler: Handler) -> None:
    """`metrics` works with its extra, and without it names the extra and the command that installs it."""
    options = ["--config", str(handler.config), "metrics"]
    assert "\npipehandler_build_info{" in lowest.run(*options).stdout
    refused = alone.run(*options)
    assert (refused.returncode, refused.stdout) == (EX_UNAVAILABLE, "")
    assert "pipehandler[metrics]" in refused.stderr
    assert f"{alone.python} -m pip install 'prometheus-client" in refused.stderr


@pytest.mark.unmeasured
def test_sentry_is_missing(alone: Environment, handler: Handler, database: Database) -> None:
    """`sentry.dsn` without sentry-sdk changes no status; `check` reports it, and its fix is complete."""
    handler.configure(database.conninfo, sentry={"dsn": "http://key@127.0.0.1:1/1", "quarantined": True})
    command = alone.command(handler)
    assert handler.run(command, MESSAGE).status == 0
    assert fault(handler, command) == (75, "4.3.0 internal fault\n")
    assert handler.log_lines()[-1].startswith("outcome=fault status=75 code=4.3.0 ")
    (finding,) = [found for found in findings(alone, handler) if found["code"] == "sentry-sdk"]
    assert "pipehandler[sentry]" in finding["what"]
    assert finding["fix"] == f"{alone.python} -m pip install 'sentry-sdk>=2,<3'"


@pytest.mark.unmeasured
def test_sentry(lowest: Environment, handler: Handler, database: Database) -> None:
    """The lowest sentry-sdk sends an event for an internal fault, and `check` has nothing to report about it."""
    with create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        dsn = f"http://key@127.0.0.1:{server.getsockname()[1]}/1"
        handler.configure(database.conninfo, sentry={"dsn": dsn})
        assert fault(handler, lowest.command(handler)) == (75, "4.3.0 internal fault\n")
        with server.accept()[0] as visitor:
            visitor.settimeout(30)
            assert visitor.recv(100).startswith(b"POST /api/1/envelope/ ")
    assert "sentry-sdk" not in [found["code"] for found in findings(lowest, handler)]


def test_without_libpq(alone: Environment, database: Database) -> None:
    """If psycopg finds no libpq, a command names the extra that provides it; there is no traceback."""
    done = alone.run("--conninfo", database.admin, "list", PSYCOPG_IMPL="c")  # which is not installed
    assert (done.returncode, done.stdout) == (EX_UNAVAILABLE, "")
    assert done.stderr.startswith("Error: PostgreSQL's library libpq cannot be loaded: ")
    assert "pipehandler[binary]" in done.stderr


def fault(handler: Handler, command: list[str]) -> tuple[int, str]:
    """A delivery with an internal fault: its stdin cannot be read (EBADF)."""
    with open(os.devnull, "wb") as only_writable:
        return ended(handler.start(command, stdin=only_writable))


def findings(environment: Environment, handler: Handler) -> list[dict[str, str]]:
    """The findings of `check` for the handler."""
    done = environment.run("--config", str(handler.config), "check", "--part", "handler", "--json")
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found
