"""Sample single mutations of the code, and report which of them the tests detect. Run by script/mutation.

Neither mutmut nor cosmic-ray fits: mutmut chooses a mutant by an environment variable, which pipe(8)'s scrubbed
environment does not pass on; cosmic-ray has one command for all mutants; and neither knows SQL.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from harness import account
from harness.postgresql import VERSION

from . import python_mutants, recording, sql_mutants
from .kept_server import KeptServer
from .mutant import Mutant
from .selection import LEVELS, Record
from .trial import INVALID, KILLED, NOT_COVERED, SURVIVED, UNSOUND, Copy, Verdict, package_of

REPOSITORY = Path(__file__).parents[2]
EQUIVALENT = Path(__file__).with_name("equivalent.tsv")

PYTHON = (
    *("fence.py", "handover.py", "ingress/pipe.py", "ingress/single.py", "ingress/truncation.py"),
    *("delivery/*.py", "mail/*.py", "record/*.py", "runtime/*.py", "workers/*.py"),
    *(
        "store/connection.py",
        "store/message_store.py",
        "store/conninfo.py",
        "store/errors.py",
        "store/ingest.py",
        "store/notify.py",
    ),
    *("store/resolve.py", "store/session.py", "store/standby.py", "store/view.py"),
)
"""The modules on the path of a delivery, cold or resident, below pipehandler/."""

SQL = ("[1-7]?_*.sql", "90_*.sql")
"""Functions, views and grants, below sql/code/; the other file has comments."""

_ENOUGH = 0.95

_Job = tuple[Mutant, list[list[str]]]


def all_mutants() -> tuple[list[Mutant], list[Mutant]]:
    """Every mutant of the Python, and of the SQL."""
    return (
        _of(python_mutants.of, "pipehandler", PYTHON),
        _of(sql_mutants.of, "sql/code", SQL),
    )


def equivalent() -> dict[str, str]:
    """The mutants without an observable change: their key, and the reason."""
    lines = EQUIVALENT.read_text("utf-8").splitlines()[1:]
    return {key: reason for reason, _, key in (line.partition("\t") for line in lines)}


def main() -> None:
    """Sample, try, report. The results are kept in a folder, so an interrupted run continues there."""
    options = _options()
    os.environ.setdefault(account.FOLDERS, "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp")
    record, results = options.folder / "record", options.folder / "results.jsonl"
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.record or not (record / "data").exists():
        _execute(record, options.record or [f"tests/{level}" for level in LEVELS], options.workers)
    known = Record(record, package_of(Path(sys.prefix)))
    python, sql = all_mutants()
    print(
        f"seed {options.seed}: {options.python} of {len(python)} mutants in Python, {options.sql} of {len(sql)} in SQL"
    )

    listed = equivalent()
    again = {SURVIVED, NOT_COVERED, UNSOUND} if options.survivors else set()
    while True:
        verdicts = _verdicts(results)
        chosen = [
            mutant
            for mutants, number in ((python, options.python), (sql, options.sql))
            for mutant in _sample(mutants, options.seed, number, verdicts)
            if options.only in f"{mutant.path}:{mutant.line}:"
        ]
        jobs = [
            (mutant, [options.tests] if options.tests else list(known.stages(mutant))[: 1 if options.first else None])
            for mutant in chosen
            if mutant.key not in listed and (mutant.key not in verdicts or verdicts[mutant.key].word in again)
        ]
        if not jobs:
            break
        _try_all(jobs, options.folder, options.workers)
        again = set()  # except SQL that PostgreSQL does not accept, which is replaced by other mutants
    verdicts = _checked(chosen, verdicts)
    sys.exit(_report(chosen, verdicts, listed))


def _checked(chosen: list[Mutant], verdicts: dict[str, Verdict]) -> dict[str, Verdict]:
    """The same, after all tests that killed a mutant were run without one: a test that then fails proves nothing."""
    tests = {verdicts[mutant.key].test for mutant in chosen if mutant.key in verdicts} - {""}
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=line",
        "-rfE",
        *sorted(tests),
    ]
    environment = {**os.environ, "PIPEHANDLER_POSTGRESQL": str(VERSION)}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True) if tests else None
    output = done.stdout if done else ""
    failed = {test for test in tests if re.search(rf"^(FAILED|ERROR) {re.escape(test)}( - |$)", output, re.MULTILINE)}
    return {
        key: verdict._replace(word=UNSOUND) if verdict.test in failed else verdict for key, verdict in verdicts.items()
    }


def _sample(mutants: list[Mutant], seed: int, number: int, verdicts: dict[str, Verdict]) -> list[Mutant]:
    shuffled = random.Random(seed).sample(mutants, len(mutants))
    valid = [each for each in shuffled if each.key not in verdicts or verdicts[each.key].word != INVALID]
    return valid[:number]


def _of(mutants: Callable[[Path, str], list[Mutant]], folder: str, patterns: tuple[str, ...]) -> list[Mutant]:
    files = [path for pattern in patterns for path in sorted((REPOSITORY / folder).glob(pattern))]
    return [mutant for path in files for mutant in mutants(REPOSITORY, str(path.relative_to(REPOSITORY)))]


def _verdicts(results: Path) -> dict[str, Verdict]:
    """The known result of each mutant by its key; of several results the last one counts."""
    lines = results.read_text("utf-8").splitlines() if results.exists() else []
    return {key: Verdict(*verdict) for key, *verdict in map(json.loads, lines)}


def _execute(record: Path, tests: list[str], workers: int) -> None:
    """Run tests once, and record what they execute."""
    record.mkdir(exist_ok=True)
    record.chmod(0o1777)  # the handler's account also writes there
    shutil.copy(REPOSITORY / "pyproject.toml", record)
    coverage = [sys.executable, "-P", "-m", "coverage"]
    settings = f"--rcfile={record / 'pyproject.toml'}"
    environment = {
        "COVERAGE_PROCESS_START": str(record / "pyproject.toml"),
        "COVERAGE_FILE": str(record / "data"),
        "COVERAGE_PACKAGE": str(package_of(Path(sys.prefix))),
        "PIPEHANDLER_POSTGRESQL": str(VERSION),
        "PYTHONPATH": "tests",
        recording.FOLDER: str(record),
    }
    options = ["-p", "mutation.recording", "-p", "no:cacheprovider", "-m", "not unmeasured", "-q", "-n", str(workers)]
    subprocess.run(
        [*coverage, "run", settings, "-m", "pytest", *options, *tests],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    )
    combine = [*coverage, "combine", "--append", "--quiet", settings, str(record)]
    subprocess.run(combine, env={**os.environ, **environment, "COVERAGE_PROCESS_START": ""}, check=True)


def _try_all(jobs: list[_Job], folder: Path, workers: int) -> None:
    """Try mutants, each worker its share of them."""
    started = [
        multiprocessing.Process(target=_work, args=(jobs[number::workers], folder, number)) for number in range(workers)
    ]
    for each in started:
        each.start()
    for each in started:
        each.join()
        if each.exitcode:
            sys.exit(f"a worker ended with {each.exitcode}; start again to continue")


def _work(jobs: list[_Job], folder: Path, number: int) -> None:
    original = Path(sys.prefix)
    own_copy = original.with_name(f"{original.name}-mutation-{number}")
    with account.folder("pipehandler-mutation-") as own:
        server = KeptServer(own)
        copy = Copy(original, own_copy, own / "tests", REPOSITORY, server)
        for mutant, stages in jobs:
            verdict = copy.try_(mutant, stages)
            with (folder / "results.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps([mutant.key, *verdict]) + "\n")
            print(f"{verdict.seconds:6.1f} s  {verdict.word:11} {_place(mutant)}  {verdict.test}", flush=True)
        server.stop()


def _report(chosen: list[Mutant], verdicts: dict[str, Verdict], listed: dict[str, str]) -> int:
    """Print the result of each mutant, and the change of those not detected; returns 1 below 95 %."""
    words = {mutant.key: "equivalent" if mutant.key in listed else verdicts[mutant.key].word for mutant in chosen}
    for mutant in chosen:
        word = words[mutant.key]
        if word == KILLED:
            print(f"{word}: {_place(mutant)} by {verdicts[mutant.key].test}")
        else:
            print(f"\n{word}: {_place(mutant)}\n{mutant.diff}\n{listed.get(mutant.key, '')}")
    status = 0
    for name, suffix in (("Python", ".py"), ("SQL", ".sql")):
        counts = Counter(words[mutant.key] for mutant in chosen if mutant.path.endswith(suffix))
        judged = counts.total() - counts["equivalent"]
        if judged:
            print(f"{name}: {dict(counts)}: {100 * counts[KILLED] / judged:.1f} % killed")
            status |= counts[KILLED] / judged < _ENOUGH
    return int(status)


def _place(mutant: Mutant) -> str:
    return f"{mutant.path}:{mutant.line} {mutant.function} ({mutant.kind})"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="script/mutation", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp/pipehandler-mutation"), help="results, and what the tests execute"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="of the sample (default: any)")
    parser.add_argument("--python", type=int, default=200, metavar="N", help="how many mutants in Python")
    parser.add_argument("--sql", type=int, default=30, metavar="N", help="how many mutants in SQL")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="how many are tried at once")
    parser.add_argument("--record", nargs="+", default=[], metavar="PATH", help="record first what these tests execute")
    parser.add_argument("--first", action="store_true", help="only with the few tests that are tried first")
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutants whose file and line contain this")
    parser.add_argument("--survivors", action="store_true", help="try again those that survived")
    parser.add_argument(
        "--tests", nargs="+", default=[], metavar="PATH", help="with these tests, whatever they execute"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
