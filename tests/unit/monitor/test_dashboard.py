"""The Grafana dashboard among the examples: it shows every metric, and Prometheus can evaluate each query."""

import json
import re
import shutil
import subprocess
from pathlib import Path

from harness.missing import missing

from pipehandler.monitor.metrics import METRICS
from pipehandler.postfix.templates import FILES

NAME = "pipehandler.dashboard.json"
DASHBOARD = json.loads((Path(__file__).parents[3] / "pipehandler" / "examples" / FILES[NAME] / NAME).read_text("utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def _metrics(query: str) -> set[str]:
    """Return the names of the metrics in a query."""
    return {re.sub("_bucket$", "", name) for name in re.findall(r"\bpipehandler_\w+", query)}


def test_every_metric_is_shown() -> None:
    """The queries use the metrics that are exported: all of them, and no others."""
    assert set().union(*map(_metrics, QUERIES)) == METRICS.keys()


def test_labels_exist() -> None:
    """A query groups by labels that its metrics have, and a legend shows labels that remain in its query."""
    added = {"instance", "le"}  # by Prometheus, and by the buckets of a histogram
    for panel in PANELS:
        for target in panel["targets"]:
            known = added.union(*(METRICS[name].labels for name in _metrics(target["expr"])))
            grouped = {
                label for labels in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in labels.split(", ")
            }
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            assert grouped <= known, panel["title"]
            assert shown <= (grouped or known), panel["title"]


def test_every_query_selects_the_host() -> None:
    """The variable for the mail host applies to every metric, and comes from a metric that each host exports."""
    for query in QUERIES:
        assert len(re.findall(r"\bpipehandler_\w+{instance=~\"\$instance\"}", query)) == len(
            re.findall(r"\bpipehandler_\w+", query)
        )
    hosts = DASHBOARD["templating"]["list"][1]
    assert (hosts["name"], hosts["query"]["query"]) == ("instance", "label_values(pipehandler_build_info, instance)")


def test_prometheus_can_evaluate_it(tmp_path: Path) -> None:
    """promtool parses each query, with Grafana's variables replaced by values."""
    if shutil.which("promtool") is None:
        missing("promtool")
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m").replace("$instance", ".*")}
        for number, query in enumerate(QUERIES)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"SUCCESS: {len(QUERIES)} rules found" in done.stdout


def test_panels_are_explained_and_do_not_overlap() -> None:
    """Each panel has a title, a description and a unit, a unique number, and a place that no other covers."""
    assert all(panel["title"] and panel["description"].endswith(".") for panel in PANELS)
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in PANELS)
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(numbers) == len(set(numbers))
    cells = [
        (column, line)
        for place in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for column in range(place["x"], place["x"] + place["w"])
        for line in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(column for column, _ in cells) < 24
