"""A host that only receives mail: Postfix on port 25 of its own network, with the lines that `pipehandler postfix` prints."""

import re
import smtplib
import socket
import subprocess
from pathlib import Path

from .mailhost import MailHost
from .network import CLIENTS, Network

_OF_THE_HARNESS = ("smtpd_recipient_restrictions", "smtpd_peername_lookup", "mynetworks")


class ReceiveOnlyHost(MailHost):
    """The host mx.example.net, not yet started. Only its clients are in the network; PostgreSQL is reached by its socket.

    milters: whether the commented lines of one kind of Milter are set as well: "opendkim", "rspamd" or none.
    """

    def __init__(
        self, folder: Path, network: Network, conninfo: str, milters: str = "", **sections: dict[str, object]
    ) -> None:
        super().__init__(folder, conninfo, **sections)
        self.network = network
        self.port = 25
        self.postconf("-X", *_OF_THE_HARNESS)
        self.warnings = self.postconf("-e", *settings(self.lines("receive-only.main.cf"), milters))
        master = self.config / "master.cf"
        lines = master.read_text().splitlines()
        master.write_text("\n".join(line for line in lines if " inet " not in line) + "\n")
        self.add("master.cf", self.lines("receive-only.master.cf"))
        self.add("master.cf", "\ntlsmgr unix - - y 1000? 1 tlsmgr\n")
        key, chain = folder / "privkey.pem", folder / "fullchain.pem"
        names = ("-subj", "/CN=mx.example.net", "-addext", "subjectAltName=DNS:mx.example.net")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *names, "-keyout", key, "-out", chain],
            check=True,
            capture_output=True,
        )
        # A test does not wait for six seconds, nor after each error.
        changes = (f"smtpd_tls_cert_file={chain}", f"smtpd_tls_key_file={key}", "postscreen_greet_wait=1s")
        self.postconf("-e", *changes, "smtpd_error_sleep_time=0")

    def start(self) -> "ReceiveOnlyHost":
        """Start it, and wait for its SMTP greeting."""
        with self.network.inside():
            super().start()
        return self

    def connect(self, client: str = CLIENTS[0], port: int = 25, helo: str = "client.example.org") -> smtplib.SMTP:
        """A session from one of the addresses of the network, before EHLO."""
        with self.network.inside():
            return smtplib.SMTP("127.0.0.1", port, local_hostname=helo, timeout=60, source_address=(client, 0))

    def dial(self, client: str, port: int = 25) -> socket.socket:
        """A connection without a protocol."""
        with self.network.inside():
            return socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(client, 0))


def settings(text: str, milters: str = "") -> list[str]:
    """The settings in the lines of main.cf, and the commented ones for Milters."""
    lines = re.findall(r"^\w.*$", text, re.MULTILINE)
    if milters:
        port = {"opendkim": "8891", "rspamd": "11332"}[milters]
        optional = re.findall(r"^#((?:milter_default_action|\w*header_checks|smtpd_milters) =.*)$", text, re.MULTILINE)
        lines += [line for line in optional if not line.startswith("smtpd_milters") or port in line]
    return lines
