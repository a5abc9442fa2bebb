"""The upgrade from the previous release, the way back, and the restore of its backup, as the pages have them, on a host of that
release whose workers serve mail all the time."""

import re
import tempfile
from pathlib import Path

import pytest
from harness import previous_release

from .host import new_host
from .pages import Block, blocks, blocks_of
from .test_commands import done_well

_LOAD = r"""
sql() { runuser -u postgres -- psql -q -d mail -Atc "$1"; }
feed() {
    number=0
    while [ ! -e /var/stop ]; do
        number=$((number + 1))
        # With all that Postfix would add, so that the archive has what is delivered.
        printf 'From: me@example.org\nDate: Mon, 02 Nov 2026 10:00:00 +0000\nMessage-ID: <%s@load>\nSubject: load\n\nbody %s\n' \
            $number $number > /var/archive/$number.eml
        sendmail -f me@example.org user@example.com < /var/archive/$number.eml
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
mkdir /var/archive
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


_DELIVERED = """
numbers() { sql "SELECT substring(message_id FROM '[0-9]+') FROM pipehandler.message WHERE subject = 'load'" | sort; }
handed_over() {  # what Postfix says it has delivered
    grep -F status=sent /var/log/postfix.log | grep -o '[[:space:]][0-9A-Za-z]*: to=' | tr -d ' ' | cut -d: -f1 | sort > /var/sent-ids
    grep -o '[0-9A-Za-z]*: message-id=<[0-9]*@load>' /var/log/postfix.log | sed 's/: message-id=</ /;s/@load>//' | sort |
        join - /var/sent-ids | cut -d' ' -f2 | sort
}
"""


@pytest.mark.long
@pytest.mark.usefixtures("_postfix")
def test_backup_of_the_previous_release() -> None:
    """A dump that the previous release made while it served is restored by this one. What Postfix handed over after the dump is
    missing, and nothing else: what waited in the queue is stored, and what an archive has comes back with `import`, once."""
    link, make, exchange, migrate = blocks("docs/upgrade.md", "sh")
    back_up, restore = blocks("docs/backup.md", "sh")
    with new_host() as host, tempfile.TemporaryDirectory() as folder:
        output = done_well(
            host.run(
                *former_host(Path(folder)),
                _LOAD + _DELIVERED,
                back_up,
                "stored 'after the dump'",
                link,
                make,
                exchange,
                "systemctl restart pipehandler.service; served",
                migrate,
                "fixed; stored 'by this release'",
                # The rest of the load waits in the queue until Postfix runs again.
                restore.text.replace("postfix stop\n", "postfix stop\nhanded_over > /var/handed-over\n").replace(
                    "/var/tmp/mail.dump",
                    "/var/tmp/mail.dump 2> /var/errors || grep -q 'role .* does not exist' /var/errors",
                ),
                "served; stored 'after the restore'",
                'touch /var/stop; wait; until [ -z "$(postqueue -j)" ]; do sleep 0.2; done',
                'ls /var/archive | sed s/.eml// | sort > /var/all; numbers > /var/there; echo "missing: $(comm -23 /var/all /var/there | wc -l)"',
                'echo "not handed over: $(comm -23 /var/all /var/there | comm -23 - /var/handed-over | wc -l)"',
                "pipehandler import --sender me@example.org --recipient user@example.com /var/archive/*.eml > /var/imported",
                "numbers | diff /var/all -",
                _END,
                seconds=900,
            )
        )
    counts = {name: int(value) for name, value in re.findall(r"^([a-z ]+): (\d+)$", output, re.MULTILINE)}
    assert counts["missing"] > 0
    assert counts["not handed over"] == 0
    assert counts["rows"] == counts["messages"] == counts["sent"], output


def former_host(folder: Path) -> list[Block | str]:
    """The commands that set up a host of the previous release, whose source they unpack in `folder`."""
    source = previous_release.source(folder)
    readme = (source / "README.md").read_text("utf-8").partition("## Set-up on a real host")[2].partition("\n## ")[0]
    return [f"cd {source}", *blocks_of("README.md of the previous release", readme, "sh"), "cd -"]


@pytest.mark.long
@pytest.mark.usefixtures("_postfix")
def test_there_and_back() -> None:
    """From the previous release to this one, back, and forward again: every message is stored once, none bounces, `check` is
    content after the fixes that it prints, and the old program works with the new schema."""
    link, make, exchange, migrate = blocks("docs/upgrade.md", "sh")
    configuration, back = blocks("docs/rollback.md", "sh")
    restart = "systemctl restart pipehandler.service"
    with new_host() as host, tempfile.TemporaryDirectory() as folder:
        output = done_well(
            host.run(
                *former_host(Path(folder)),
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
