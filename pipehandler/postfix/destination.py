"""Where mail for a domain goes before virtual_transport is asked: replaced addresses, and routes of transport_maps."""

from collections.abc import Callable, Mapping

from .postconf import words

Find = Callable[[str, str], str]
"""A function that returns what a table has for a key, or ""."""

_REWRITING = ("canonical_maps", "recipient_canonical_maps", "virtual_alias_maps")
"""The tables that replace recipients before they are routed."""

_PATTERNS = ("regexp", "pcre", "cidr")
"""The types of table whose keys are patterns."""

_ANY = "any-address-of-the-domain@"
"""The beginning of an address that stands for all those of a domain that have no line of their own."""


def replacement(parameters: Mapping[str, str], domain: str, find: Find) -> tuple[str, str]:
    """Return the parameter whose tables replace every address of the domain by one of another, and that one; or ""s."""
    for name in _REWRITING:
        for key in (_ANY + domain, f"@{domain}"):
            found = _look_up(parameters.get(name, ""), key, find)
            if found and not found.lower().endswith(f"@{domain}"):
                return name, found
    return "", ""


def route(parameters: Mapping[str, str], domain: str, find: Find) -> str:
    """Return the route of this domain in transport_maps, by a pattern, its own line or a parent's, or "".

    See transport(5).
    """
    keys = [_ANY + domain, f"postmaster@{domain}", domain, *(f".{parent}" for parent in parents(domain))]
    value = parameters.get("transport_maps", "")
    return next((found for key in keys if (found := _look_up(value, key, find))), "")


def wildcard(parameters: Mapping[str, str], find: Find) -> str:
    """Return the catch-all route of transport_maps, which overrides virtual_transport; "" if there is none."""
    return _look_up(parameters.get("transport_maps", ""), "*", find)


def parents(domain: str) -> list[str]:
    """Return the domains above this one, the nearest first."""
    labels = domain.split(".")
    return [".".join(labels[number:]) for number in range(1, len(labels))]


def _look_up(value: str, key: str, find: Find) -> str:
    """Look up an address, or a key that stands for several: with that, Postfix does not ask tables of patterns."""
    whole = key.find("@") > 0
    tables = (word for word in words(value) if whole or word.partition(":")[0] not in _PATTERNS)
    return next((found for table in tables if (found := find(table, key))), "")
