"""A mail host: a private Postfix that delivers to pipehandler, with exactly the lines that `pipehandler postfix`
prints."""

from pathlib import Path

from pipehandler.postfix import templates
from pipehandler.store.conninfo import uri

from . import account, preloaded
from .handler import Handler
from .postfix import Postfix

DOMAIN = "example.com"
MAXPROC = 8
"""Of the transport."""


def pipehandler(*arguments: object) -> str:
    """Run the console script of this environment; returns what it prints."""
    done = preloaded.run_text(*arguments)
    if done.returncode:
        raise RuntimeError(f"pipehandler {arguments} left with status {done.returncode}: {done.stderr}")
    return done.stdout


class MailHost(Postfix):
    """Postfix in `folder`, its pipe transport, and `handler`: the entrypoint's configuration."""

    def __init__(self, folder: Path, conninfo: str, **sections: dict[str, object]) -> None:
        super().__init__(folder)
        self._database = uri(conninfo)
        handler_folder = folder / "handler"
        handler_folder.mkdir()
        self.handler = Handler(handler_folder, conninfo, **sections)
        for name in ("master.cf", "main.cf", "pipehandler_status_filter"):
            self.add(name, self.lines(name))

    def use_client(self, path: Path | None = None) -> None:
        """Let the entry in master.cf start the hand-over client: that of this environment, or the one at `path`."""
        former = self.lines("master.cf")
        self.handler.with_client(path)
        file = self.config / "master.cf"
        file.write_text(file.read_text().replace(former, self.lines("master.cf")))

    def lines(self, name: str) -> str:
        """One of the example files, filled in for this host as the command does it."""
        return templates.lines(
            name,
            user=account.NAME,
            config=str(self.handler.config),
            socket=str(self.handler.socket),
            config_directory=str(self.config),
            domain=DOMAIN,
            maxproc=MAXPROC,
            database=self._database,
            client=self.handler.before,
            lmtp=str(self.handler.folder / "lmtp"),
        )

    def use_lmtp(self) -> None:
        """Deliver by LMTP, as docs/lmtp.md sets it up: the same lines, and the keys of the handler."""
        text = self.handler.config.read_text()
        self.handler.config.write_text(f'{text}[lmtp]\nsocket = "{self.handler.folder}/lmtp"\n')
        self.add("master.cf", self.lines("lmtp.master.cf"))
        settings = [line for line in self.lines("lmtp.main.cf").splitlines() if line and not line.startswith("#")]
        self.postconf("-e", *settings)

    def ask_the_pool(self) -> None:
        """Reject recipients that are not issued addresses at RCPT TO."""
        self.add("pgsql-recipients.cf", self.lines("pgsql-recipients.cf"))
        self.postconf("-e", f"virtual_mailbox_maps=proxy:pgsql:{self.config}/pgsql-recipients.cf")
