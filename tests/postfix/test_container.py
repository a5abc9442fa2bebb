"""The example of a container, without an engine: its image is made and run in a folder."""

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import account
from harness.containerfile import Image
from harness.database import Database
from harness.missing import missing
from harness.service import wait_until

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("_postfix")]

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "pipehandler/examples/container/Containerfile"

_SEND = "printf 'Subject: {0}\\n\\nhello\\n' | sendmail -f me@example.org {0}@example.com"


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image of the example."""
    if shutil.which("debootstrap") is None:
        missing("debootstrap")
    with account.folder("pipehandler-image-") as folder:
        yield Image(folder, EXAMPLE, REPOSITORY)


def delivered(text: str, subject: str) -> str:
    """The queue id of the message to this recipient, once Postfix has logged its delivery, else ""."""
    found = re.search(rf"postfix/pipe\[\d+\]: (\w+): to=<{subject}@example\.com>.* status=sent", text)
    return found[1] if found else ""


def run_once(command: list[str], env: dict[str, str], out: Path, subject: str) -> str:
    """Run the container, send it a message, list it, and end it with SIGTERM; returns what it has printed."""
    with out.open("wb") as stdout, subprocess.Popen(command, stdout=stdout, stderr=stdout, env=env) as running:
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
        wait_until(children.read_text, "process 1")
        init = children.read_text().strip()
        inside = ["nsenter", "--target", init, "--all", "chroot", f"/proc/{init}/root", "sh", "-euc"]
        try:
            wait_until(lambda: "daemon started" in out.read_text(), "Postfix")
            wait_until(lambda: "listening on" in out.read_text(), "the workers")
            subprocess.run([*inside, _SEND.format(subject)], check=True, env=env)
            wait_until(lambda: delivered(out.read_text(), subject), "its delivery")
            wait_until(
                lambda: f"queue_id={delivered(out.read_text(), subject)} " in out.read_text(), "the handler's line"
            )
            listed = subprocess.run([*inside, "pipehandler list"], check=True, capture_output=True, text=True, env=env)
            assert f"{subject}@example.com" in listed.stdout
        finally:
            os.kill(int(init), signal.SIGTERM)
        assert running.wait(60) == 0
    return out.read_text()


def test_mail_is_stored(image: Image, database: Database, folder: Path) -> None:
    """The container stores mail of its domains through the resident workers, writes the lines of Postfix and of the handler to
    stdout, each with its time and queue id, and ends at SIGTERM. It can be started again."""
    sockets = database.server.folder
    conninfo = f"host=/run/database port={database.server.port} dbname={database.name} user="
    database.execute("CREATE ROLE operator LOGIN IN ROLE pipehandler_reader, pipehandler_maintenance")
    command = image.start(
        f"""
        mkdir "$ROOT/run/database"
        mount --bind {sockets} "$ROOT/run/database"
        hostname mx.example.com
        ip link set lo up
        exec chroot "$ROOT" "$@"
        """,
        *image.entrypoint,
    )
    # The namespaces that an engine makes as well.
    command[1:1] = ["--net", "--uts", "--ipc"]
    env = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "PIPEHANDLER_DOMAINS": "example.com example.net",
        "PIPEHANDLER_CONNINFO": conninfo + "pipehandler",
        "PIPEHANDLER_ADMIN_CONNINFO": conninfo + "operator",
    }
    for subject in ("first", "second"):
        text = run_once(command, env, folder / subject, subject)
        queue_id = delivered(text, subject)
        line = (
            rf"^\d{{4}}-\d\d-\d\dT\S+Z mx\.example\.com pipehandler\[\d+\]: outcome=delivered .* queue_id={queue_id} "
        )
        (of_handler,) = [each for each in text.splitlines() if re.match(line, each)]
        assert " mode=resident " in of_handler
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 2
    database.execute("DROP ROLE operator")


def test_what_must_outlive_it(image: Image) -> None:
    """The queue and the journal are volumes."""
    assert image.volumes == ["/var/spool/postfix", "/var/lib/pipehandler"]


def test_arguments_run_instead(image: Image, database: Database) -> None:
    """With arguments the entrypoint runs them: `migrate` before a new image is started."""
    script = f'mkdir "$ROOT/run/database"; mount --bind {database.server.folder} "$ROOT/run/database"; exec chroot "$ROOT" "$@"'
    conninfo = f"host=/run/database port={database.server.port} dbname={database.name} user=postgres"
    words = [*image.entrypoint, "pipehandler", "--conninfo", conninfo, "migrate"]
    done = subprocess.run(image.start(script, *words), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "nothing to do: the schema is up to date\n"), done
