"""Run the benchmarks: one by its name with its options, or all of them into one file. Started by bench/run.

bench/run [--small] [--results FILE]     all; --small: tiny numbers, to see that everything works
bench/run NAME [--OPTION NUMBER]...      one of them
bench/run compare ENVIRONMENT            this version beside the one that is installed in a virtual environment
"""

import argparse
import resource
import signal
import sys
import time
from pathlib import Path

import backlog
import compare
import database
import days
import expiry
import journal
import latency
import one
import recipients
import report
import rows
import rules
import shards
import sizes
import through
import worker
from setting import setting

PARTS = {
    each.__name__: each
    for each in (
        one,
        worker,
        through,
        sizes,
        recipients,
        rows,
        backlog,
        database,
        journal,
        expiry,
        days,
        rules,
        shards,
        latency,
    )
}


def main() -> None:
    """Measure, print, and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true")
    parser.add_argument(
        "--results", type=Path, help="where all tables are kept; results.md beside this file, unless small"
    )
    names = parser.add_subparsers(dest="name", metavar="NAME")
    for name, part in PARTS.items():
        about = names.add_parser(name, help=(part.__doc__ or "").partition("\n")[0])
        for option, default in report.options(part.measure).items():
            about.add_argument(f"--{option.replace('_', '-')}", type=int, default=default, help=f"default: {default}")
    other = names.add_parser("compare", help=(compare.__doc__ or "").partition("\n")[0])
    other.add_argument("environment", type=Path)
    other.add_argument(
        "--rounds", type=int, default=20, help="default: 20; a worker is replaced after 1,000 messages, so at most 23"
    )
    given = parser.parse_args()
    if given.name == "compare":
        with setting() as shared:
            print(f"{report.machine(shared.server)}\n")
            found = compare.measure(shared, given.environment, rounds=given.rounds)
            print("\n".join([*(table.markdown() for table in found.tables), report.aims(found.aims).markdown()]))
        return

    wanted: dict[str, dict[str, int]] = {name: part.SMALL if given.small else {} for name, part in PARTS.items()}
    results: Path | None = given.results
    if given.name:
        if given.small:
            parser.error("--small is for all of them")
        wanted = {given.name: {option: getattr(given, option) for option in report.options(PARTS[given.name].measure)}}
    elif not results and not given.small:
        results = Path(__file__).with_name("results.md")
    pages, aims, last = [], [], ""
    with setting() as shared:
        pages.append(f"# What was measured\n\n{report.machine(shared.server)}\n")
        print(pages[0])
        for name, options in wanted.items():
            started = time.monotonic()
            print(f"==> {name}", file=sys.stderr, flush=True)
            processes = resource.getrlimit(resource.RLIMIT_NPROC)
            found = PARTS[name].measure(shared, **options)
            if signal.getitimer(signal.ITIMER_REAL)[0] or resource.getrlimit(resource.RLIMIT_NPROC) != processes:
                raise RuntimeError(f"{name} leaves a timer or a limit on processes to the next part")
            used = {**report.options(PARTS[name].measure), **options}
            command = " ".join([name, *(f"--{option.replace('_', '-')} {value}" for option, value in used.items())])
            pages.append(f"## {name}\n\n`bench/run {command}`, {time.monotonic() - started:.0f} s\n")
            pages += [table.markdown() for table in found.tables]
            aims += found.aims
            print("\n".join(pages[-1 - len(found.tables) :]), flush=True)
            last = report.aims(aims).markdown()
            if results:  # now, so that a later failure does not lose the results so far
                results.write_text("\n".join([*pages, last]), "utf-8")
    print(last)


if __name__ == "__main__":
    main()
