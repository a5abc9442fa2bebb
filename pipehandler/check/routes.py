"""Check how mail gets to the transport: the parameters and tables of main.cf that choose it, and for which domains."""

import os
import shlex
from collections.abc import Iterator

from pipehandler.postfix.postconf import Postfix, Service, words
from pipehandler.settings.config import Config

from .finding import Finding
from .recipients import check_recipients
from .tables import check_tables

_CHOOSERS = (
    *("virtual_transport", "mailbox_transport", "local_transport", "relay_transport", "default_transport"),
    "fallback_transport",
)
"""The parameters that name a transport."""

_TABLES = (
    *("transport_maps", "mailbox_transport_maps", "fallback_transport_maps"),
    "sender_dependent_default_transport_maps",
)
"""The parameters whose tables may name it; the contents of a table cannot be listed."""


_PRECEDING = {"mydestination": "local accounts", "virtual_alias_domains": "other addresses"}
"""The parameters whose domains are looked for before those of virtual_mailbox_domains, and where their mail goes."""


def check_routes(postfix: Postfix, services: list[Service], path: str, config: Config | None) -> Iterator[Finding]:
    """Check whether mail is routed to one of the transports."""
    parameters = postfix.parameters
    names = {service.name for service in services}
    using = [name for name in _CHOOSERS if parameters[name].partition(":")[0] in names]
    tables = any(parameters[name] for name in _TABLES)
    filters = [*_filters(postfix, services[0].name, names, bool(using or tables))]
    yield from filters
    if not using and not tables:
        name = services[0].name
        if not filters and not (config and config.watch.maildirs):  # check/maildirs.py
            yield Finding(
                "transport-unused",
                f"nothing in main.cf names the transport {name}",
                "No mail reaches the handler.",
                _route_command(postfix, name),
            )
        return
    if "virtual_transport" not in using:
        return
    if config:
        yield from check_recipients(postfix, path, config)
    if os.geteuid() == 0:
        yield from check_tables(postfix, path)
    domains = words(parameters["virtual_mailbox_domains"])
    if not domains and using == ["virtual_transport"] and not tables:
        yield Finding(
            "domains-missing",
            "virtual_mailbox_domains is empty",
            "virtual_transport applies to these domains only: no mail reaches the handler.",
            postfix.command("-e", "virtual_mailbox_domains=example.com") + " # your domains",
        )
    served = {domain.lower() for domain in domains}
    for name in ("mydestination", "virtual_alias_domains"):
        other = words(parameters[name])
        twice = [domain for domain in other if domain.lower() in served]
        if twice:
            rest = ", ".join(domain for domain in other if domain not in twice)
            yield Finding(
                "domain-twice",
                f"both in virtual_mailbox_domains and in {name}: {', '.join(twice)}",
                f"{name} takes precedence: their mail goes to {_PRECEDING[name]}, or is refused.",
                postfix.command("-e", f"{name}={rest}"),
            )


def _route_command(postfix: Postfix, name: str) -> str:
    """Return the command that routes mail to the transport, without taking over what virtual_transport has already."""
    explicit = postfix.explicit()
    if not any(parameter in explicit for parameter in ("virtual_transport", "virtual_mailbox_maps")):
        return postfix.command("-e", f"virtual_transport={name}")
    file = os.path.join(postfix.directory, "pipehandler_transport")
    tables = ", ".join(filter(None, [explicit.get("transport_maps"), f"texthash:{file}"]))
    route = f"echo 'example.com {name}:' >> {shlex.quote(file)}"
    return f"{route} && {postfix.command('-e', f'transport_maps={tables}')} # your domain"


def _filters(postfix: Postfix, name: str, names: set[str], routed: bool) -> Iterator[Finding]:
    """Find the transport as a content_filter, of all mail or of a service. routed: main.cf names it elsewhere."""
    everywhere = {"main.cf": (postfix.parameters["content_filter"], ("-X", "content_filter"))}
    of_services = {
        f"{each.pattern} in master.cf": (
            each.options.get("content_filter", ""),
            ("-PX", f"{each.pattern}/content_filter"),
        )
        for each in postfix.services
    }
    for place, (value, arguments) in (everywhere | of_services).items():
        if value.partition(":")[0] in names:
            command = postfix.command(*arguments)
            yield Finding(
                "content-filter",
                f"{place} has content_filter={value}",
                "All mail that passes there is stored and goes nowhere else, mail to other hosts included: the handler"
                " gives nothing back to Postfix.",
                command if routed else f"{command} && {_route_command(postfix, name)}",
            )
