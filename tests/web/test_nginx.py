"""The page behind Debian's nginx, with the lines that `pipehandler postfix pipehandler.nginx` prints: HTTP/1.1 and HTTP/2."""

import http.client
import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import account
from harness.database import Database
from harness.inboxes import send
from harness.missing import missing
from harness.service import wait_until
from harness.stream import announce
from harness.web import WebServer

from pipehandler.postfix.templates import lines
from pipehandler.settings.config import Web


class Nginx:
    """A running nginx before the page. https, http: its ports."""

    def __init__(self, folder: Path, listen: str) -> None:
        self.folder = folder
        self.https, self.http = account.free_port(), account.free_port()
        site = lines(
            "pipehandler.nginx",
            user="pipehandler",
            config="/etc/pipehandler/pipehandler.toml",
            socket="/run/pipehandler/socket",
            config_directory="/etc/postfix",
            domain="example.com",
            maxproc=4,
            web=Web(listen=listen, hosts=("inbox.example",)),
        )
        site = site.replace("listen 80;", f"listen 127.0.0.1:{self.http};")
        site = site.replace("listen 443 ssl http2;", f"listen 127.0.0.1:{self.https} ssl http2;")
        site = re.sub(r"    listen \[::\].*\n", "", site)
        site = re.sub(r"/etc/letsencrypt/live/[^/]+/(fullchain|privkey).pem", rf"{folder}/\1.pem", site)
        self.config = folder / "nginx.conf"
        self.config.write_text(
            f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n"
            + "".join(
                f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            + f"{site}\n}}\n"
        )
        self._running: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make a certificate, and start it."""
        subprocess.run(
            [
                *(
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                    "-days",
                    "2",
                ),
                *(
                    "-subj",
                    "/CN=inbox.example",
                    "-keyout",
                    self.folder / "privkey.pem",
                    "-out",
                    self.folder / "fullchain.pem",
                ),
            ],
            check=True,
            capture_output=True,
        )
        with (self.folder / "nginx.log").open("wb") as log:
            self._running = subprocess.Popen(["nginx", "-c", self.config, "-p", self.folder], stderr=log)
        wait_until(self._answers, "the start of nginx")

    def _answers(self) -> bool:
        assert self._running
        assert self._running.poll() is None, (self.folder / "nginx.log").read_text()
        return self.curl("/healthz").startswith("{")

    def curl(self, path: str, *options: str) -> str:
        """What curl(1) prints."""
        done = subprocess.run(
            [
                *("curl", "-sk", "--max-time", "60", "--resolve", f"inbox.example:{self.https}:127.0.0.1", *options),
                f"https://inbox.example:{self.https}{path}",
            ],
            capture_output=True,
        )
        return done.stdout.decode()

    def stop(self) -> None:
        """Stop it."""
        assert self._running
        self._running.terminate()
        self._running.wait(60)


@pytest.fixture(scope="module", params=["tcp", "unix"])
def nginx(request: pytest.FixtureRequest, web_database: Database) -> Iterator[tuple[Nginx, WebServer]]:
    """nginx before a page on TCP, and before one on a Unix socket."""
    if shutil.which("nginx") is None:
        missing("nginx")
    with account.folder("pipehandler-nginx-") as folder:
        conninfo = web_database.server.conninfo(web_database.name, user="page")
        page = WebServer(folder, conninfo)
        listen = f"127.0.0.1:{page.port}" if request.param == "tcp" else f"{folder}/page"
        if request.param == "unix":
            page.configure(listen=listen, trusted_proxies=["unix"])
            page.port = 0
        before = Nginx(folder, listen)
        page.start(waits=False)
        before.start()
        yield before, page
        before.stop()
        page.stop()


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_whole(nginx: tuple[Nginx, WebServer], web_database: Database, version: str) -> None:
    """A visitor opens an inbox, and a stream of it shows mail while it is open, unbuffered; the cookie is the secure one."""
    before, _ = nginx
    opened = before.curl(
        "/en/inbox", version, "-i", "-H", "Sec-Fetch-Site: same-origin", "-H", "X-Forwarded-For: 9.9.9.9", "-d", ""
    )
    assert opened.startswith("HTTP/2 303" if version == "--http2" else "HTTP/1.1 303")
    (key,) = re.findall(r"__Host-inbox=([^;]+); Path=/; Max-Age=\d+; HttpOnly; SameSite=Lax; Secure", opened)
    cookie = ("-H", f"Cookie: __Host-inbox={key}")
    address = (
        before.curl("/en/inbox", version, *cookie, "-H", "Accept: application/json")
        .partition('"address": "')[2]
        .partition('"')[0]
    )
    stream = subprocess.Popen(
        [
            *(
                "curl",
                "-skN",
                version,
                "--max-time",
                "60",
                "--resolve",
                f"inbox.example:{before.https}:127.0.0.1",
                *cookie,
            ),
            f"https://inbox.example:{before.https}/en/events",
        ],
        stdout=subprocess.PIPE,
    )
    assert stream.stdout
    with stream.stdout as output:
        for line in iter(output.readline, b""):
            if line.startswith(b"event: inbox"):
                send(web_database, address)
                announce(web_database)
            if line.startswith(b"event: news"):
                break
        else:
            pytest.fail("the stream ended")
        stream.kill()
    stream.wait(60)
    network = web_database.value(
        "SELECT host(network) FROM pipehandler.web_inbox JOIN pipehandler.address USING (lease) WHERE address = %s",
        address,
    )
    assert network == "127.0.0.1"  # what the visitor claims to be is dropped


def test_plain_http_leads_to_https(nginx: tuple[Nginx, WebServer]) -> None:
    """Port 80 sends browsers to HTTPS."""
    before, _ = nginx
    connection = http.client.HTTPConnection("127.0.0.1", before.http, timeout=60)
    connection.request("GET", "/de/inbox?q=a", headers={"Host": "inbox.example"})
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Location"]) == (301, "https://inbox.example/de/inbox?q=a")
    connection.close()


def test_another_name(nginx: tuple[Nginx, WebServer]) -> None:
    """nginx passes the Host field on, and the page refuses other names."""
    before, _ = nginx
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", before.https, timeout=60, context=context)
    connection.request("GET", "/en/", headers={"Host": "evil.example"})
    assert connection.getresponse().status == 421
    connection.close()
