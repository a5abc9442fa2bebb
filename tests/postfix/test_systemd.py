"""`pipehandler setup` and the units under a real systemd: process 1 of this machine's copy in namespaces."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import account
from harness.booted import Booted, booted, is_possible
from harness.missing import missing

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("_postfix")]

_HEAD = f"""
export PATH={Path(sys.executable).parent}:$PATH
snapshot() {{  # what setup may change, and the units
    (
        cd /
        find etc/passwd etc/group etc/postfix etc/pipehandler etc/systemd/system etc/sysusers.d etc/tmpfiles.d \\
            ! -name prng_exch -printf '%p %M %U:%G %l\\n' -type f -exec sha256sum {{}} + 2>/dev/null
        systemctl list-units --all --plain --no-legend 'pipehandler*'
    ) | sort
}}
send() {{ printf "Subject: $1\\n\\nhello\\n" | sendmail -f me@example.org postmaster@example.com; }}
stored() {{ until pipehandler list | grep -F "$1"; do sleep 0.2; done; }}
"""


@pytest.fixture(scope="module")
def system() -> Iterator[Booted]:
    """A booted system."""
    if not is_possible():
        missing("systemd, or a cgroup that may be changed,")
    with account.folder("pipehandler-boot-") as folder:
        (folder / "system").mkdir()
        with booted(folder / "system") as system:
            yield system


def test_units(system: Booted) -> None:
    """setup starts the workers and the timer; the sandboxes of the units let them work; a reload and a restart defer no message;
    systemd's journal has each delivery; the endpoint answers; the removal leaves no unit."""
    done = system.run(
        _HEAD
        + """
        snapshot > /var/before
        postconf -h inet_interfaces
        pipehandler setup --domain example.com
        echo ===
        systemctl is-active pipehandler.socket pipehandler.service pipehandler-expire.timer
        systemctl show -p Result --value pipehandler-expire.service
        systemctl start pipehandler-expire.service
        systemctl status --no-pager pipehandler.service | grep Status:
        pipehandler setup --domain example.com | grep -A1 ^units
        for number in 1 2 3 4 5 6; do
            send load-$number
            case $number in
            2) systemctl reload pipehandler.service ;;
            4) systemctl restart pipehandler.service ;;
            esac
        done
        for number in 1 2 3 4 5 6; do stored load-$number; done
        until [ -z "$(postqueue -j)" ]; do sleep 0.2; done
        journalctl --no-pager -t pipehandler | grep 'outcome='
        ! journalctl --no-pager -t postfix/pipe | grep status=deferred
        pipehandler check
        pipehandler postfix pipehandler-metrics.service > /etc/systemd/system/pipehandler-metrics.service
        systemctl daemon-reload
        systemctl start pipehandler-metrics.service
        python3 -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:9797/metrics").read().decode())' | grep _up
        systemctl stop pipehandler-metrics.service
        rm /etc/systemd/system/pipehandler-metrics.service
        systemctl daemon-reload
        echo ===
        pipehandler setup --remove
        systemctl daemon-reload
        systemctl reset-failed
        snapshot | diff /var/before -
        """
    )
    assert done.returncode == 0, done.stdout
    first, used, _ = done.stdout.split("===\n")
    assert first.startswith("all\n")  # then postqueue needs more than a socket
    assert re.search(r"^ *1  .*  postmaster@example\.com .* pipehandler setup .* parsed ", first, re.MULTILINE)
    assert used.startswith("active\nactive\nactive\nsuccess\n")
    assert "units: pipehandler.socket, pipehandler.service, pipehandler-expire.timer are active" in used
    assert used.count(" outcome=delivered ") == 7  # the message of setup, and six
    assert " mode=resident " in used
    assert used.count(" event=reloaded ") == 1
    assert "everything is as it should be" in used
    up = dict(re.findall(r"^pipehandler_(\w+_up) ([01])\.0$", used, re.MULTILINE))
    assert set(up.values()) == {"1"}, used
    assert {"database_up", "service_up", "queue_up", "journal_up"} <= set(up)
