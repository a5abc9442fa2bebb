"""Try one mutant: in a copy of the virtual environment, with the tests of this checkout."""

import ctypes
import os
import py_compile
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from harness import account
from harness.postgresql import KEPT, VERSION

from .kept_server import KeptServer
from .mutant import Mutant

KILLED, SURVIVED, NOT_COVERED, UNSOUND, INVALID = "killed", "survived", "not covered", "unsound", "invalid"
"""A test failed; none did; none executes it; one failed that also fails without the mutant; PostgreSQL does not accept
it."""

_PATIENCE = 90  # seconds that one test may take; mostly spent waiting for something that does not happen
_LONGEST = 1800  # seconds that all tests of one stage may take
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)


class Verdict(NamedTuple):
    """The result of a mutant: one of the words above; the test that failed, its error, and the seconds of the trial."""

    word: str
    test: str = ""
    error: str = ""
    seconds: float = 0.0


class Copy:
    """A copy of the virtual environment `original` in `folder`; the copy of an earlier run is reused.

    folders: where the tests create theirs. server: the server that they share.
    """

    def __init__(self, original: Path, folder: Path, folders: Path, repository: Path, server: KeptServer) -> None:
        self._original = package_of(original)
        self._pytest = folder / "bin" / "pytest"
        self._folders = folders
        self._repository = repository
        self._server = server
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run(["cp", "-al", str(original), str(folder)], check=True)  # links: no file is changed in place
            for script in (folder / "bin").iterdir():
                _move(script, original, folder)
        self._package = package_of(folder)
        shutil.rmtree(self._package)  # left by an interrupted run
        subprocess.run(["cp", "-al", str(self._original), str(self._package)], check=True)
        # Orphans become children of this process, so that all of them can be ended.
        ctypes.CDLL(None).prctl(_SUBREAPER, 1)

    def try_(self, mutant: Mutant, stages: list[list[str]]) -> Verdict:
        """Run the tests of each stage until one of them fails."""
        started = time.monotonic()
        self._write(mutant.path, mutant.mutated)
        try:
            if mutant.path.startswith("sql/"):
                with self._server.with_code(Path(mutant.path).name, mutant.mutated) as accepted:
                    verdict = self._judged(stages) if accepted else Verdict(INVALID)
            else:
                verdict = self._judged(stages)
        finally:
            self._write(mutant.path, None)
        return verdict._replace(seconds=round(time.monotonic() - started, 1))

    def _judged(self, stages: list[list[str]]) -> Verdict:
        for tests in filter(None, stages):
            test, error = self.failure(tests)
            if error:
                return Verdict(KILLED, test, error)
        return Verdict(SURVIVED if any(stages) else NOT_COVERED)

    def failure(self, tests: list[str]) -> tuple[str, str]:
        """The first test that fails, and its error; both are empty if all pass."""
        self._server.renew()
        self._own = _children()
        shutil.rmtree(self._folders, ignore_errors=True)
        self._folders.mkdir(mode=0o755)
        settings = {
            account.FOLDERS: str(self._folders),
            KEPT: str(self._server.folder),
            "PIPEHANDLER_POSTGRESQL": str(VERSION),
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONSAFEPATH": "1",  # no process of a test finds the package of the checkout in its working directory
        }
        running = subprocess.Popen(
            [
                *(str(self._pytest), "-x", "-q", "-p", "no:cacheprovider", "--tb=line", "-rfE"),
                *(f"--timeout={_PATIENCE}", *tests),
            ],
            cwd=self._repository,
            env={**os.environ, **settings},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            output = self._output(running)
        except TimeoutError:
            return tests[0], "the tests did not end"
        finally:
            self._end_children()
        if running.returncode == 0:
            return "", ""
        if "\nERROR: not found: " in f"\n{output}" and any("::" in test for test in tests):
            return self.failure(sorted({test.partition("::")[0] for test in tests}))  # other values have other names
        failed = re.search(r"^(?:FAILED|ERROR) (\S.*?)(?: - (.*))?$", output, re.MULTILINE)
        if failed:
            return failed[1], (failed[2] or "an error")[:300]
        return tests[0], f"status {running.returncode}: {output[-300:]}"

    def _output(self, running: "subprocess.Popen[str]") -> str:
        """Return what the tests print. Meanwhile reap the orphans that end, as init does: a test may wait for that."""
        until = time.monotonic() + _LONGEST
        while time.monotonic() < until:
            with suppress(subprocess.TimeoutExpired):
                return running.communicate(timeout=0.5)[0]
            _reap(_children() - self._own - {running.pid})
        raise TimeoutError

    def _end_children(self) -> None:
        """End processes that the tests have left behind, such as the servers of a run that was killed."""
        for number in (signal.SIGQUIT, signal.SIGKILL):
            for pid in _children() - self._own:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            until = time.monotonic() + 5
            while _children() - self._own and time.monotonic() < until:
                _reap(_children() - self._own)
                time.sleep(0.02)

    def _write(self, path: str, text: str | None) -> None:
        """Replace a file of the package with another text, or (None) restore the original; compiled, if it is
        Python."""
        name = f"share/{path}" if path.startswith("sql/") else path.removeprefix("pipehandler/")
        file, original = self._package / name, self._original / name
        for each in [file, *(file.parent / "__pycache__").glob(f"{file.stem}.*.pyc")]:
            each.unlink()
        if text is None:
            os.link(original, file)
            for each in (original.parent / "__pycache__").glob(f"{file.stem}.*.pyc"):
                os.link(each, file.parent / "__pycache__" / each.name)
        else:
            file.write_text(text, "utf-8")
            file.chmod(0o644)
            if file.suffix == ".py":
                py_compile.compile(str(file))


def package_of(environment: Path) -> Path:
    """The folder of the package in a virtual environment."""
    return next((environment / "lib").glob("python3*")) / "site-packages" / "pipehandler"


def _move(script: Path, original: Path, folder: Path) -> None:
    """Make a script start with the interpreter of its own environment."""
    if script.is_symlink() or not script.read_bytes().startswith(b"#!" + os.fsencode(original)):
        return
    text, mode = script.read_text("utf-8"), script.stat().st_mode
    script.unlink()
    script.write_text(text.replace(str(original), str(folder)), "utf-8")
    script.chmod(mode)


def _children() -> set[int]:
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def _reap(pids: set[int]) -> None:
    for pid in pids:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
