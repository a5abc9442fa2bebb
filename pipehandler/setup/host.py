"""The host to set up: the paths, accounts and names that the steps use."""

import os
import re
import shlex
from dataclasses import dataclass, replace

from pipehandler.postfix.postconf import DEFAULT_DIRECTORY, Postfix, PostfixError, find_program
from pipehandler.postfix.templates import PROGRAM, lines
from pipehandler.settings.config import Config
from pipehandler.settings.config_file import DEFAULT_PATH, ConfigError, load
from pipehandler.store.conninfo import located, parameters, uri
from pipehandler.store.errors import StoreError

from .server import DEBIAN_SERVER, EMBEDDED_FOLDER, Server, embedded_server
from .step import SetupError

_LABEL = re.compile(r"(?!-)[\w-]{1,63}(?<!-)")
_DEVIATIONS = frozenset("ßς\u200c\u200d")
"""The letters that IDNA2003 replaces or removes, and IDNA2008 keeps (UTS 46, deviation characters)."""

_NAME = re.compile(r"[a-z_][a-z0-9_-]*")

DATABASE = "mail"
"""The database, unless another is named."""


@dataclass(frozen=True, slots=True)
class Host:
    """One host, with the paths of Debian as defaults.

    domains: those whose mail is stored, as A-labels and U-labels. config: the path of pipehandler.toml. settings: its
    contents, or the defaults if the file does not exist yet. config_directory: Postfix's. account: the one that pipe(8)
    runs the handler as. folder: /etc, for systemd's files. systemd: whether systemd runs. embedded: the folder of the
    server of `--embedded`, "" for another server. catch_all: whether every address of the domains accepts mail.
    receive_only: whether the host has no other mail, and is closed to strangers as far as it can be.
    """

    domains: tuple[str, ...] = ()
    config: str = DEFAULT_PATH
    settings: Config | None = None
    config_directory: str = DEFAULT_DIRECTORY
    account: str = "pipehandler"
    server: Server = DEBIAN_SERVER
    database: str = DATABASE
    folder: str = "/etc"
    systemd: bool = False
    embedded: str = ""
    catch_all: bool = False
    receive_only: bool = False

    @property
    def record(self) -> str:
        """The path of the record of setup's changes."""
        return os.path.join(os.path.dirname(self.config), "setup.json")

    @property
    def configuration(self) -> Config:
        """The current settings, or those that setup will write."""
        return self.settings or Config()

    def file(self, name: str) -> str:
        """Return the path of a file beside main.cf."""
        return os.path.join(self.config_directory, name)

    def program(self, *arguments: str) -> str:
        """Return a command line of this program with this host's configuration."""
        config = [] if self.config == DEFAULT_PATH else ["--config", self.config]
        return shlex.join([PROGRAM, *config, *arguments])

    def postfix_files(self, *arguments: str) -> str:
        """Return the command `pipehandler postfix` for this host."""
        options = [] if self.config_directory == DEFAULT_DIRECTORY else ["--config-directory", self.config_directory]
        options += [] if self.account == "pipehandler" else ["--user", self.account]
        socket = self.configuration.serve.socket
        options += [] if socket == Config().serve.socket else ["--socket", socket]
        return self.program("postfix", *arguments, *options)

    def postfix_text(self, name: str) -> str:
        """Return the output of that command for one file."""
        text = lines(
            name,
            user=self.account,
            config=self.config,
            socket=self.configuration.serve.socket,
            config_directory=self.config_directory,
            domain="",
            maxproc=0,
            database=uri(self.configuration.database.conninfo or located(self.server.conninfo, self.database)),
            delimiter=self.configuration.recipients.delimiter,
        )
        return text + "\n"

    def postfix_program(self, name: str, *arguments: str) -> str:
        """Return the command line of a Postfix program for this instance. sendmail(1) has its own option for that."""
        option = "-C" if name == "sendmail" else "-c"
        directory = [] if self.config_directory == DEFAULT_DIRECTORY else [option, self.config_directory]
        return shlex.join([name, *directory, *arguments])

    def postfix(self) -> Postfix | None:
        """Return Postfix's configuration as it is now; None if it is not installed. Raises SetupError if it is broken."""
        if find_program("postconf") is None:
            return None
        if not os.path.exists(self.file("main.cf")):
            raise SetupError(
                f"{self.file('main.cf')} does not exist; `dpkg-reconfigure postfix` writes that of Debian's Postfix, and"
                " --config-directory names the folder of another one"
            )
        try:
            return Postfix(self.config_directory)
        except PostfixError as error:
            raise SetupError(f"the configuration of Postfix in {self.config_directory} is broken: {error}") from error

    def with_settings(self) -> "Host":
        """Return the same host with the current configuration file, and the database and accounts that this names.

        Raises SetupError, also if the options name another database.
        """
        if not os.path.exists(self.config):
            return self
        try:
            settings = load(self.config)
            where = parameters(settings.database.conninfo)
        except (ConfigError, StoreError) as error:
            raise SetupError(str(error)) from error
        if not settings.database.conninfo:
            raise SetupError(
                f"{self.config} has no database.conninfo; add it, or move the file away and run setup again"
            )
        host = replace(self, settings=settings, database=str(where.get("dbname") or self.database))
        conninfo = located(settings.database.conninfo)
        is_same = conninfo == located(self.server.conninfo)
        if self.server != DEBIAN_SERVER and not is_same:
            raise self._other_database(conninfo, located(self.server.conninfo))
        if self.database not in (DATABASE, host.database):
            raise self._other_database(host.database, self.database)
        if is_same:
            return host
        if where.get("host") == f"{EMBEDDED_FOLDER}/socket":
            return replace(host, server=embedded_server(), embedded=EMBEDDED_FOLDER)
        return replace(host, server=replace(self.server, conninfo=conninfo))

    def _other_database(self, found: str, wanted: str) -> SetupError:
        return SetupError(
            f"the database of {self.config} is another one ({found}) than that of the options ({wanted}); leave out --conninfo,"
            " --database and --embedded, or change the file first"
        )


def normalized(domain: str) -> tuple[str, ...]:
    """Return a domain in the forms that Postfix needs, in lower case: its A-label, and its U-label if it has one.

    Raises SetupError if it is not a domain, or may be two of them.
    """
    name = domain.strip().removesuffix(".").lower()
    try:
        ascii_name = name if name.isascii() else _former_a_label(name)
        readable = ".".join(map(_readable, ascii_name.split(".")))
    except UnicodeError:
        ascii_name = readable = ""
    if (
        "." not in ascii_name
        or len(ascii_name) > 253
        or not all(map(_LABEL.fullmatch, ascii_name.split(".")))
        or ascii_name.rpartition(".")[2].isdigit()  # an IP address
    ):
        raise SetupError(f"{domain!r} is not a domain; give --domain once for each, such as --domain example.com")
    if not _DEVIATIONS.isdisjoint(name):
        other = ".".join(_a_label(label) for label in name.split("."))
        raise SetupError(
            f"{domain!r} is {other} by the present standard and {ascii_name} by the former one (RFC 5891, RFC 3490); name the one"
            " that is yours with --domain"
        )
    # Where the two standards differ, Postfix takes the U-label for that of another domain.
    return (
        (ascii_name, readable) if readable != ascii_name and _former_a_label(readable) == ascii_name else (ascii_name,)
    )


def _readable(label: str) -> str:
    """Return a label, in ASCII, as people read it. Raises UnicodeError."""
    return label[4:].encode("ascii").decode("punycode") if label.startswith("xn--") else label


def _former_a_label(name: str) -> str:
    """Return a domain as A-labels of RFC 3490; "" if it has none."""
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError:
        return ""


def _a_label(label: str) -> str:
    return label if label.isascii() else f"xn--{label.encode('punycode').decode('ascii')}"


def checked_name(name: str, what: str) -> str:
    """Return a name of a database or an account. Raises SetupError if it would have to be quoted."""
    if not _NAME.fullmatch(name) or len(name) > 31:
        raise SetupError(f"{name!r} is not a name for {what}: use lower-case letters, digits and _")
    return name
