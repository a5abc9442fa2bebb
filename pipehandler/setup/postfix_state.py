"""The current mail routing of Postfix on this host, and whether setup may add a domain. It takes over no mail."""

from dataclasses import dataclass

from pipehandler.check.transport import transports
from pipehandler.postfix.destination import parents, replacement, route, wildcard
from pipehandler.postfix.postconf import Postfix, PostfixError, words

from .host import Host
from .step import SetupError, output

TRANSPORT = "pipehandler"
"""The name of the transport in master.cf, unless another one runs the handler already."""

RECIPIENTS = "pgsql-recipients.cf"
"""The table of recipients, beside main.cf."""

ROUTES = "pipehandler_transport"
"""The table for transport_maps, needed if virtual_transport serves other mail."""

_VIRTUAL = ("virtual_transport", "virtual_mailbox_domains", "virtual_mailbox_maps")
_OTHER_CLASSES = {
    "mydestination": "its mail goes to the accounts of this host",
    "relay_domains": "its mail is relayed",
    "virtual_alias_domains": "its mail is forwarded",
}


@dataclass(frozen=True, slots=True)
class PostfixState:
    """The configuration of Postfix as setup sees it.

    postfix: None if it is not installed. explicit: the parameters set in main.cf. transport: the name of our transport.
    has_transport: whether master.cf has it. beside: whether virtual_transport, or a parameter that belongs to it,
    serves other mail.
    """

    host: Host
    postfix: Postfix | None
    explicit: dict[str, str]
    transport: str
    has_transport: bool
    beside: bool

    @classmethod
    def read(cls, host: Host) -> "PostfixState":
        """Read Postfix's configuration. Raises SetupError."""
        postfix = host.postfix()
        if postfix is None:
            return cls(host, None, {}, TRANSPORT, False, False)
        services = transports(postfix)
        name = services[0].name if services else TRANSPORT
        if not services and any(service.name == TRANSPORT for service in postfix.services):
            raise SetupError(
                f"{host.file('master.cf')} has a service {TRANSPORT} that does not run the handler; give it another name"
            )
        explicit = postfix.explicit()
        ours = explicit.get("virtual_transport", "").partition(":")[0] == name
        beside = not ours and any(parameter in explicit for parameter in _VIRTUAL)
        return cls(host, postfix, explicit, name, bool(services), beside)

    def value(self, name: str) -> str:
        """Return a parameter with its references expanded; "" if Postfix is not installed."""
        return self.postfix.parameters.get(name, "") if self.postfix else ""

    def has(self, name: str, domain: str) -> bool:
        """Return whether the parameter `name`, a list of domains, contains this one, directly or in a table or file.

        The first word that matches decides, and after a "!" it excludes the domain. Raises SetupError if a table or file cannot
        be read.
        """
        keys = [domain]
        if name in words(self.value("parent_domain_matches_subdomains")):
            keys += parents(domain)
        elif name == "relay_domains":  # only there
            keys += [f".{parent}" for parent in parents(domain)]
        for word in words(self.value(name)):
            if any(self._matches(word.lstrip("!"), key) for key in keys):
                return not word.startswith("!")
        return False

    def is_ours(self, domain: str) -> bool:
        """Return whether mail for this domain already goes to the handler. Raises SetupError if it goes elsewhere."""
        for name, effect in _OTHER_CLASSES.items():
            if self.has(name, domain):
                raise SetupError(
                    f"{domain} is in {name}: {effect}, and setup takes over nothing;"
                    f" remove it there first ({self.host.postfix_program('postconf', name)}), if its mail is to be stored"
                )
        self._refuse_replaced(domain)
        routed = route(self._parameters, domain, self._find)
        if routed and routed.partition(":")[0] != self.transport:
            raise SetupError(
                f"{domain} goes to {routed} by transport_maps, and setup takes over nothing; remove it there first"
            )
        listed = self.has("virtual_mailbox_domains", domain)
        if listed and not routed and (self.beside or self.wildcard()):
            raise SetupError(
                f"{domain} is in virtual_mailbox_domains, and its mail goes to"
                f" {self.wildcard() or self.value('virtual_transport')};"
                f" setup takes over nothing. If its mail is to be stored, add it to transport_maps: {domain} {self.transport}:"
            )
        return listed

    def _refuse_replaced(self, domain: str) -> None:
        """Raise SetupError if cleanup(8) replaces every address of this domain by one of another domain."""
        name, found = replacement(self._parameters, domain, self._find)
        if name:
            raise SetupError(
                f"every address of {domain} is replaced by {found} (parameter {name}), so that its mail goes there, and setup"
                " takes over nothing; remove it there first"
            )

    @property
    def _parameters(self) -> dict[str, str]:
        return self.postfix.parameters if self.postfix else {}

    def is_running(self) -> bool:
        """Return whether Postfix runs."""
        return output([*self.host.postfix_program("postfix").split(), "status"]) is not None

    def reload(self) -> tuple[str, ...]:
        """Return the command to run after a change of main.cf or master.cf; none if Postfix is not running."""
        return (self.host.postfix_program("postfix", "reload"),) if self.is_running() else ()

    def routes(self) -> list[str]:
        """Return the domains in our table of routes."""
        try:
            with open(self.host.file(ROUTES), encoding="utf-8") as file:
                lines = [line.split() for line in file]
        except FileNotFoundError:
            return []
        return [line[0] for line in lines if len(line) == 2 and line[1] == f"{self.transport}:"]

    def to_route(self) -> list[str]:
        """Return the domains that need a line in our table of routes, because virtual_transport does not serve them.

        Raises SetupError as is_ours does.
        """
        if not self.beside and not self.wildcard():
            return []
        routed = self.routes()
        return [domain for domain in self.host.domains if domain in routed or not self.is_ours(domain)]

    def wildcard(self) -> str:
        """Return the catch-all route of transport_maps, which overrides virtual_transport; "" if none, or ours."""
        found = wildcard(self._parameters, self._find)
        return "" if found.partition(":")[0] == self.transport else found

    def _matches(self, word: str, domain: str) -> bool:
        if not word.startswith("/"):
            return word.lower() == domain or bool(self._find(word, domain))
        try:
            with open(word, encoding="utf-8") as file:
                lines = [line for line in file if not line.startswith("#")]
        except OSError as error:
            raise SetupError(f"it is unknown whether {domain} is in {word}: {error.strerror}") from error
        return any(self._matches(inner, domain) for line in lines for inner in words(line))

    def _find(self, table: str, key: str) -> str:
        if ":" not in table or RECIPIENTS in table or self.postfix is None:
            return ""
        try:
            return self.postfix.lookup(table, key)
        except PostfixError as error:
            raise SetupError(f"it is unknown whether {key} is in {table}: {error}") from error
