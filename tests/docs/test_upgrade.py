"""The upgrade from the previous release and the way back, as the pages have them, on a host of that release whose workers serve
mail all the time."""

import re
import tempfile
from pathlib import Path

import pytest
from harness import previous_release

from .host import new_host
from .pages import blocks, blocks_of
from .test_commands import done_well

_LOAD = r"""
sql() { runuser -u postgres -- psql -q -d mail -Atc "$1"; }
feed() {
    number=0
    while [ ! -e /var/stop ]; do
        number=$((number + 1))
        printf 'Message-ID: <%s@load>\nSubject: load\n\nbody %s\n' $number $number | sendmail -f me@example.org user@example.com
        echo $number > /var/sent
        sleep 0.3
    done
}
# Wait until what was sent so far is stored, and three more.
stored() {
    wanted=$(($(cat /var/sent) + 3))
    until [ "$(sql 'SELECT count(*) FROM pipehandler.delivery')" -ge $wanted ]; do sleep 0.2; done
    echo "stored: $1"
}
# Wait until the workers of the service have delivered a message since they were started.
served() { until pipehandler serve --status | grep -E '^delivered +[1-9]'; do sleep 0.2; done; }
# Run the fixes that `check` prints, until there are none.
fixed() {
    for _ in 1 2 3; do
        pipehandler check --json > /var/findings || true
        python3 - <<'END'
import json, subprocess
for finding in json.load(open("/var/findings")):
    print("fix:", finding["code"])
    sql = finding["fix"].endswith(";")
    psql = ["runuser", "-u", "postgres", "--", "psql", "-q", "-d", "mail", "-c"]
    subprocess.run([*psql, finding["fix"]] if sql else ["bash", "-c", finding["fix"]], check=True)
END
    done
    pipehandler check
}
postconf -e minimal_backoff_time=1s maximal_backoff_time=2s queue_run_delay=1s
ln -s /opt/pipehandler/bin/pipehandler /usr/local/bin/pipehandler
for unit in pipehandler.socket pipehandler.service; do pipehandler postfix $unit > /etc/systemd/system/$unit; done
systemctl enable --now pipehandler.socket pipehandler.service
postfix reload
feed &
until [ -e /var/sent ]; do sleep 0.1; done
stored 'by the previous release'
served
"""

_NEW_NAMES = """
cat >> /etc/pipehandler/pipehandler.toml <<'END'
[serve]
queue_timeout = 25
max_messages = 900
[expire]
max_change_percent = 30
END
"""

_END = """
touch /var/stop
wait
until [ -z "$(postqueue -j)" ]; do sleep 0.2; done
echo "sent: $(cat /var/sent)"
echo "rows: $(sql "SELECT count(*) FROM pipehandler.delivery JOIN pipehandler.message m ON m.id = message WHERE subject = 'load'")"
echo "messages: $(sql "SELECT count(DISTINCT message_id) FROM pipehandler.message WHERE subject = 'load'")"
sql "SELECT 'parser ' || parser FROM pipehandler.message GROUP BY parser ORDER BY min(received_at)"
! grep status=bounced /var/log/postfix.log
"""


@pytest.mark.long
@pytest.mark.usefixtures("_postfix")
def test_there_and_back() -> None:
    """From the previous release to this one, back, and forward again: every message is stored once, none bounces, `check` is
    content after the fixes that it prints, and the old program works with the new schema."""
    link, make, exchange, migrate = blocks("docs/upgrade.md", "sh")
    configuration, back = blocks("docs/rollback.md", "sh")
    restart = "systemctl restart pipehandler.service"
    with new_host() as host, tempfile.TemporaryDirectory() as folder:
        source = previous_release.source(Path(folder))
        readme = (
            (source / "README.md").read_text("utf-8").partition("## Set-up on a real host")[2].partition("\n## ")[0]
        )
        former = blocks_of("README.md of the previous release", readme, "sh")
        output = done_well(
            host.run(
                f"cd {source}",
                *former,
                "cd -",
                _LOAD,
                link,
                make,
                exchange,
                f"{restart}; served; stored 'in the former schema'",
                migrate,
                "fixed; served; stored 'by this release'",
                _NEW_NAMES,
                "served",
                configuration,
                back,
                "served; pipehandler list; stored 'by the previous release, in the new schema'",
                exchange.text,
                f"{restart}; served; fixed; stored 'by this release again'",
                _END,
                seconds=900,
            )
        )
    counts = dict(re.findall(r"^(sent|rows|messages): (\d+)$", output, re.MULTILINE))
    assert counts["rows"] == counts["messages"] == counts["sent"], output
    assert len(re.findall(r"^stored: ", output, re.MULTILINE)) == 5
    assert len(re.findall(r"^parser ", output, re.MULTILINE)) == 2
    assert output.count("everything is as it should be") >= 3
