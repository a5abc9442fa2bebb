"""A private Postfix, independent of any other: its own configuration, queue and data directories, one loopback port.

It delivers to pipehandler with the files in postfix/, as `pipehandler postfix` fills them in.
"""

import json
import os
import re
import shutil
import smtplib
import subprocess
import time
from pathlib import Path

from . import account

_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/maillog
maillog_file_prefixes = {folder}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.example.net
mydestination =
local_recipient_maps =
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
smtpd_peername_lookup = no
smtpd_recipient_restrictions = permit_mynetworks, reject
smtputf8_enable = yes
# Addresses that begin with a dash are refused by default; the handler must not rely on that.
allow_min_user = yes
# A test does not wait for minutes.
queue_run_delay = 2s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
transport_retry_time = 2s
"""

# Debian's master.cf without chroot, without the services that send mail elsewhere, and with one smtpd on the private
# port. The queue manager scans the incoming queue every 2 s, not 300, because mail left there by a crash waits for the
# scan.
_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       2       1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""


class Postfix:
    """One Postfix instance in one folder, which every account must be able to enter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = account.free_port()
        self.config = folder / "etc"
        self.maillog = folder / "maillog"
        for name in ("etc", "queue", "data"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        shutil.chown(folder / "data", "postfix")
        # While postlogd is down, programs write to the log themselves, some of them as postfix.
        self.maillog.touch()
        self.maillog.chmod(0o666)
        (self.config / "main.cf").write_text(_MAIN.format(folder=folder))
        (self.config / "master.cf").write_text(_MASTER.format(port=self.port))

    def add(self, name: str, text: str) -> None:
        """Append to main.cf or master.cf, or create another file next to them."""
        with (self.config / name).open("a") as file:
            file.write(text)

    def settle(self) -> None:
        """Make the configuration look old: Postfix waits up to two seconds before it reads a file that was just
        changed."""
        for file in self.config.iterdir():
            os.utime(file, (1, 1))

    def postconf(self, *arguments: str) -> str:
        """The output of postconf, including stderr, where it complains."""
        self.settle()
        done = subprocess.run(["postconf", "-c", self.config, *arguments], capture_output=True, text=True)
        return done.stdout + done.stderr

    def _postfix(self, command: str) -> None:
        self.settle()
        done = subprocess.run(["postfix", "-c", self.config, command], capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise RuntimeError(f"postfix {command} failed: {done.stdout}{done.stderr}{self.log()[-2000:]}")

    def start(self) -> "Postfix":
        """Start it, and wait for its SMTP greeting."""
        self._postfix("start")
        until = time.monotonic() + 20
        while True:
            try:
                smtplib.SMTP("127.0.0.1", self.port, timeout=5).quit()
            except (OSError, smtplib.SMTPException):
                if time.monotonic() > until:
                    raise RuntimeError(f"Postfix did not greet:\n{self.log()[-2000:]}") from None
                time.sleep(0.1)
            else:
                return self

    def stop(self) -> None:
        """Stop it; running deliveries end by themselves."""
        self._postfix("stop")

    def abort(self) -> None:
        """Stop it at once, even during deliveries."""
        self._postfix("abort")

    def reload(self) -> None:
        """Read main.cf and master.cf again."""
        self._postfix("reload")

    def flush(self) -> None:
        """Try to deliver all deferred mail now."""
        subprocess.run(["postqueue", "-c", self.config, "-f"], check=True)

    def send(self, message: bytes, sender: str, *recipients: str, options: tuple[str, ...] = ()) -> None:
        """Send a message with LF line ends over SMTP, byte for byte."""
        assert b"\r" not in message
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
            client.sendmail(sender, recipients, message.replace(b"\n", b"\r\n"), mail_options=options)

    def queue(self) -> list[dict[str, object]]:
        """The queue, one dict for each message (postqueue -j)."""
        done = subprocess.run(["postqueue", "-c", self.config, "-j"], capture_output=True, text=True, check=True)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def drain(self, seconds: float = 120) -> None:
        """Wait until the queue is empty. It is listed twice: a message that moves between queues during a listing may
        be in neither."""
        until = time.monotonic() + seconds
        while queue := self.queue() or self.queue():
            if time.monotonic() > until:
                raise TimeoutError(f"{len(queue)} messages are still queued: {queue[:2]}\n{self.log()[-3000:]}")
            time.sleep(0.1)

    def log(self) -> str:
        """The whole mail log."""
        return self.maillog.read_text("utf-8", "replace") if self.maillog.exists() else ""

    def deliveries(self, recipient: str = "") -> list[dict[str, str]]:
        """Each delivery attempt in the log: queue_id, to, dsn, status and text, oldest first."""
        pattern = re.compile(
            r"postfix/(?:pipe|lmtp|virtual)\[\d+\]: (?P<queue_id>\w+): to=<(?P<to>[^>]*)>.*? dsn=(?P<dsn>[\d.]+), status=(?P<status>\w+) \((?P<text>.*)\)$",
            re.MULTILINE,
        )
        found = [match.groupdict() for match in pattern.finditer(self.log())]
        return [each for each in found if each["to"] == recipient] if recipient else found

    def wait_for(self, pattern: str, seconds: float = 30) -> str:
        """Wait until the log has a line in which `pattern` is found; returns that line."""
        until = time.monotonic() + seconds
        while True:
            for line in self.log().splitlines():
                if re.search(pattern, line):
                    return line
            if time.monotonic() > until:
                raise TimeoutError(f"no line with {pattern!r} in:\n{self.log()[-3000:]}")
            time.sleep(0.1)
