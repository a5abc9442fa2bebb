"""The tables of the pages equal the code and the measurements, and their sums are right."""

import re
from collections import Counter

import pytest
from fault.campaign import KINDS, runs

from .pages import REPOSITORY, marked, read, table
from .tables import TABLES, markdown


@pytest.mark.parametrize("name", TABLES)
def test_table_equals_the_code(name: str) -> None:
    """Outcomes, keys, rules and metrics match the code; script/tables writes them."""
    page, make = TABLES[name]
    assert marked(page, name).splitlines() == markdown(make()).splitlines()


def test_kinds_of_faults() -> None:
    """docs/fault-campaign.md explains each kind of fault."""
    explained = re.findall(r"^\| `(\w+)` \|", read("docs/fault-campaign.md"), re.MULTILINE)
    assert sorted(explained) == sorted(KINDS)


def test_campaign() -> None:
    """The campaign's results have a row for each of its runs; the last one is the sum of the others, and nothing was lost,
    duplicated or bounced."""
    *rows, total = table("docs/fault-campaign.md", "campaign")
    for column in range(1, 6):
        assert int(total[column]) == sum(int(row[column]) for row in rows)
    assert total[0] == "all"
    assert total[3:6] == ["0", "0", "0"]
    assert sorted(row[0] for row in rows) == sorted(mode.row(kind).kind for kind, mode in runs())
    statuses: Counter[str] = Counter()
    for row in rows:
        statuses.update({status: int(count) for status, count in re.findall(r"(-?\d+): (\d+)", row[6])})
    assert dict(re.findall(r"(-?\d+): (\d+)", total[6])) == {status: str(count) for status, count in statuses.items()}


@pytest.mark.parametrize("name", ["bench one", "bench through", "bench compare", "bench shards", "bench targets"])
def test_benchmarks(name: str) -> None:
    """Each row of docs/performance.md is a row of the recorded results of bench/run."""
    measured = (REPOSITORY / "bench" / "results.md").read_text("utf-8").splitlines()
    kept = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in measured]
    rows = table("docs/performance.md", name)
    assert rows
    assert [row for row in rows if row not in kept] == []
