"""The configuration, one typed value that cannot be changed: every key with its default, its meaning and its bounds.

config_file.py reads it. The docs list every key; a test compares.
"""

import os
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

if TYPE_CHECKING:
    from .retention import Rule

DEFAULT_SOCKET = "/run/pipehandler/socket"

RENAMED = {
    "limits.parse_seconds": "limits.parse_timeout",
    "serve.wait": "serve.queue_timeout",
    "serve.messages": "serve.max_messages",
    "serve.growth": "serve.max_growth",
    "sentry.every": "sentry.min_interval",
}
"""Keys of the previous release and their new names. An old name still works, so that one file suits both releases during an
upgrade or a rollback; `pipehandler check` reports it."""


class Key(NamedTuple):
    """What is said of a key beside its type and default: its meaning, the bounds of a number (both included), the choices of
    a string."""

    meaning: str
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()


class Database(NamedTuple):
    """Where messages are stored."""

    conninfo: Annotated[str, Key("libpq connection string of the handler; secrets belong in a passfile")] = ""
    admin_conninfo: Annotated[str, Key("the same for the commands that migrate, read and repair; empty: conninfo")] = ""
    connect_timeout: Annotated[
        int, Key("seconds to wait for a connection, for each host named in conninfo", 2, 300)
    ] = 5
    statement_timeout: Annotated[int, Key("seconds that the server may spend on one message", 1, 300)] = 20
    mail_hosts: Annotated[
        int,
        Key(
            "mail hosts like this one that log in with the same role: its connection limit is for all of them", 1, 1000
        ),
    ] = 1
    servers: Annotated[
        int,
        Key(
            "servers that should have a message when it is acknowledged; `check` and monitoring report fewer; 0: 2 where"
            " conninfo names several hosts or the server has a standby, otherwise 1",
            0,
            8,
        ),
    ] = 0


class Limits(NamedTuple):
    """What one delivery may cost."""

    deadline: Annotated[int, Key("seconds for one delivery in all; below the transport's time limit", 5, 900)] = 60
    message_size: Annotated[int, Key("octets of the largest message that is accepted", 1024, 1_000_000_000)] = (
        52_428_800
    )
    parse_timeout: Annotated[int, Key("seconds after which a message is stored without being parsed", 1, 300)] = 10
    memory: Annotated[int, Key("octets of address space for one delivery", 268_435_456, 1 << 40)] = 1_073_741_824


class Store(NamedTuple):
    """What is stored, and under which name."""

    attachments: Annotated[bool, Key("false: attachments are described only; their bytes stay in the raw message")] = (
        True
    )
    mail_host: Annotated[str, Key("the name of this mail host in delivery.mail_host; empty: the host name")] = ""
    notify: Annotated[bool, Key("true: send NOTIFY when mail is stored; false: readers poll")] = True


class Recipients(NamedTuple):
    """Which recipients mail is stored for, decided on delivery; at RCPT TO Postfix decides with its own lookup."""

    policy: Annotated[str, Key("known: a recipient without a lease is rejected (67)", choices=("any", "known"))] = "any"
    expired: Annotated[
        str,
        Key(
            "mail for a recipient whose lease has expired since RCPT TO: stored but hidden, or rejected (67)",
            choices=("store", "reject"),
        ),
    ] = "store"
    delimiter: Annotated[
        str, Key("the characters that may begin an extension, as in Postfix's recipient_delimiter; empty: none")
    ] = "+"
    domain: Annotated[str, Key("the domain of `pipehandler address new` without --domain")] = ""


class Authentication(NamedTuple):
    """Which hosts' verdicts about a message are trusted."""

    trusted_authserv_ids: Annotated[
        tuple[str, ...],
        Key("host names (RFC 8601 2.5) whose Authentication-Results, Received-SPF and spam fields are read"),
    ] = ()


class State(NamedTuple):
    """State that deliveries on one mail host share."""

    directory: Annotated[str, Key("a directory that only the handler's account may write to")] = "/var/lib/pipehandler"


class Log(NamedTuple):
    """Where the log line of each delivery is written."""

    syslog: Annotated[bool, Key("true: log to syslog, facility mail")] = True
    file: Annotated[str, Key("also append to this file; empty: no file")] = ""


class Serve(NamedTuple):
    """The resident workers of `pipehandler serve`."""

    socket: Annotated[
        str, Key("the socket where the entrypoint hands messages over; the same as --socket in master.cf")
    ] = DEFAULT_SOCKET
    workers: Annotated[
        int, Key("messages that are delivered at the same time, each over a separate connection", 1, 256)
    ] = 4
    queue_timeout: Annotated[
        int,
        Key(
            "seconds that a message may wait for a free worker before it is deferred; at most half of limits.deadline",
            1,
            300,
        ),
    ] = 10
    max_messages: Annotated[int, Key("messages after which a worker is replaced", 1, 1_000_000)] = 1000
    max_growth: Annotated[int, Key("octets by which a worker may grow before it is replaced", 1_048_576, 1 << 40)] = (
        67_108_864
    )


class Lmtp(NamedTuple):
    """The LMTP receiver of `pipehandler serve`; without a socket and an address there is none."""

    socket: Annotated[
        str, Key("the Unix socket for lmtp(8) of Postfix, such as /run/pipehandler/lmtp; empty: none")
    ] = ""
    address: Annotated[
        str, Key("a loopback address and a TCP port, such as 127.0.0.1:2424; any local user may connect; empty: none")
    ] = ""
    accounts: Annotated[
        tuple[str, ...], Key("the accounts, besides root, whose processes may connect to the Unix socket")
    ] = ("postfix",)
    max_connections: Annotated[
        int, Key("connections at the same time; a silent one makes room for a new one", 1, 300)
    ] = 100
    trust_orcpt: Annotated[
        bool,
        Key(
            "true: store ORCPT as original_recipient; only where Postfix takes no ORCPT from senders, see docs/lmtp.md"
        ),
    ] = False


class Watch(NamedTuple):
    """The Maildirs of `pipehandler watch`."""

    maildirs: Annotated[
        tuple[str, ...], Key("the Maildirs that are watched; `check` and `metrics` look at them as well")
    ] = ()
    stored: Annotated[str, Key("what happens to the file of a message that is stored", choices=("keep", "remove"))] = (
        "keep"
    )
    workers: Annotated[int, Key("messages that are delivered at the same time, over a connection each", 1, 64)] = 2
    scan_interval: Annotated[int, Key("seconds between two scans, which find what inotify did not report", 1, 3600)] = 5


class Expire(NamedTuple):
    """What `pipehandler expire` may do without a person."""

    max_change_percent: Annotated[
        int,
        Key(
            "changed rules of retention that would remove something of more than so many percent of the stored deliveries"
            " within a day wait for `pipehandler expire --confirm`; 0: each that would remove anything; 100: none",
            0,
            100,
        ),
    ] = 20


class Sentry(NamedTuple):
    """Error reporting."""

    dsn: Annotated[
        str, Key("the Sentry DSN for internal faults: kind, stack, sizes and versions, never mail; empty: no reports")
    ] = ""
    quarantined: Annotated[bool, Key("true: also report messages that could not be parsed")] = False
    min_interval: Annotated[int, Key("minimum seconds between reports of the same fault, per host", 1, 31_536_000)] = (
        3600
    )


class Web(NamedTuple):
    """The inbox page of `pipehandler web`."""

    listen: Annotated[
        str, Key("the address and the TCP port of the page, or the path of a Unix socket; a proxy with TLS is in front")
    ] = "127.0.0.1:8025"
    hosts: Annotated[
        tuple[str, ...],
        Key(
            "the names by which browsers may call the page, the first one for its links; others get 421; loopback always may"
        ),
    ] = ()
    public: Annotated[
        bool,
        Key(
            "true: visitors open inboxes of web.domains, over HTTPS; false: only the keys of `pipehandler web key` open anything"
        ),
    ] = False
    domains: Annotated[
        tuple[str, ...], Key("the domains whose addresses visitors get, the first one unless they choose; no catch-all")
    ] = ()
    conninfo: Annotated[
        str, Key("libpq connection string of the page, whose role is in pipehandler_web; empty: database.conninfo")
    ] = ""
    connections: Annotated[
        int, Key("connections to the database, or to each shard, beside the one that listens", 1, 64)
    ] = 4
    trusted_proxies: Annotated[
        tuple[str, ...],
        Key(
            "the networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed, such as 127.0.0.1; unix: any"
        ),
    ] = ()
    ttl: Annotated[int, Key("seconds that a new inbox lasts", 60, 31_536_000)] = 600
    extension: Annotated[int, Key("seconds that one extension adds", 60, 31_536_000)] = 600
    max_life: Annotated[int, Key("seconds that an inbox lasts with all extensions", 60, 315_360_000)] = 86_400
    grace: Annotated[
        int, Key("seconds after its end in which an inbox and its mail can be brought back", 0, 31_536_000)
    ] = 86_400
    held_days: Annotated[
        int, Key("days in which the address of an inbox that ended goes to no other visitor", 0, 3650)
    ] = 30
    reserved_names: Annotated[
        tuple[str, ...], Key("names that no visitor may choose, beside those of RFC 2142 and of other roles")
    ] = ()
    max_messages: Annotated[int, Key("messages that one inbox takes", 1, 1_000_000)] = 1000
    max_octets: Annotated[int, Key("octets that one inbox takes", 1_048_576, 1 << 40)] = 104_857_600
    opened_per_hour: Annotated[
        int,
        Key("inboxes that one client network (IPv4 /32, IPv6 /64) may open in an hour; as many at once", 1, 100_000),
    ] = 30
    domain_opened_per_hour: Annotated[
        int, Key("inboxes of one domain that all visitors together may open in an hour", 1, 100_000_000)
    ] = 10_000
    max_inboxes: Annotated[
        int, Key("inboxes at the same time, those included that can be brought back", 1, 100_000_000)
    ] = 100_000
    streams: Annotated[int, Key("streams and waiting requests at the same time", 1, 100_000)] = 20_000
    streams_per_owner: Annotated[int, Key("the same with one owner's key", 1, 1000)] = 4
    streams_per_viewer: Annotated[int, Key("the same with one read-only key", 1, 10_000)] = 50
    streams_per_network: Annotated[int, Key("the same from one client network", 1, 100_000)] = 100
    operator: Annotated[str, Key("who runs the page, for its contact page and its terms")] = ""
    contact: Annotated[str, Key("the operator's email address, on the contact page")] = ""
    postal_address: Annotated[str, Key("the operator's postal address, on the contact page")] = ""
    abuse: Annotated[str, Key("the email address for reports of abuse; empty: web.contact")] = ""
    design: Annotated[
        str, Key("a folder whose templates/ and static/ replace or add files of the page; empty: none")
    ] = ""
    articles: Annotated[str, Key("a folder with articles, LANG/SLUG.md; empty: those of the package")] = ""
    status_socket: Annotated[
        str, Key("the Unix socket where `pipehandler metrics` and `check` ask the page for its counts")
    ] = "/run/pipehandler-web/status"


class Config(NamedTuple):
    """The whole configuration; an instance without arguments has the defaults.

    old_keys: the keys of RENAMED that the file spells with their old name.
    """

    database: Database = Database()
    limits: Limits = Limits()
    store: Store = Store()
    recipients: Recipients = Recipients()
    authentication: Authentication = Authentication()
    state: State = State()
    log: Log = Log()
    serve: Serve = Serve()
    lmtp: Lmtp = Lmtp()
    watch: Watch = Watch()
    expire: Expire = Expire()
    sentry: Sentry = Sentry()
    web: Web = Web()
    retention: "tuple[Rule, ...]" = ()
    old_keys: tuple[str, ...] = ()

    @property
    def mail_host(self) -> str:
        """The name of this mail host: store.mail_host, or the host name."""
        return self.store.mail_host or os.uname().nodename


SECTIONS = {name: type(value) for name, value in Config._field_defaults.items() if hasattr(value, "_fields")}
"""The sections by their names."""


def keys(section: Any) -> dict[str, Key]:
    """The keys of a section by their names."""
    return {name: annotation.__metadata__[0] for name, annotation in section.__annotations__.items()}


def memory_needed(message_size: int) -> int:
    """Return the octets of address space that a message of `message_size` octets may need.

    The interpreter with its libraries maps up to 250 MB; the message, its attachments, libpq's send buffer (which doubles
    as it grows) and the parser's scratch come to less than six times the message (measured).
    """
    return 262_144_000 + 6 * message_size
