"""main.cf: the handler's domains, recipients and transport. Values that exist are extended, never replaced."""

from pipehandler.postfix.postconf import words

from ..files import keep
from ..host import Host
from ..postfix_state import RECIPIENTS, ROUTES, PostfixState
from ..record import Record
from ..step import Change, Step
from .tables import accepts_any


def routing(host: Host, record: Record) -> Step:
    """Return the step that sets what is missing in main.cf. Raises SetupError."""
    state = PostfixState.read(host)
    added = _added(state)
    values = {**_missing(state), **{name: value for name, (value, _) in added.items()}}
    if not values:
        return Step("main.cf", f"mail for {', '.join(host.domains)} goes to {state.transport}")
    settings = [f"{name} = {value}" for name, value in values.items()]
    copying, copies = keep(record, host.file("main.cf"))
    changes = [Change("parameter", name, state.explicit.get(name), value) for name, value in _missing(state).items()]
    changes += [
        Change("list", name, state.explicit.get(name), ", ".join([*_recorded(record, name), *new]))
        for name, (_, new) in added.items()
    ]
    return Step(
        "main.cf",
        f"mail for {', '.join(host.domains)} does not go to {state.transport} yet",
        (*copying, host.postfix_program("postconf", "-e", *settings), *state.reload()),
        (*copies, *changes),
        tuple(_differences(state, values)),
    )


def _missing(state: PostfixState) -> dict[str, str]:
    """Return the single-valued parameters to set, because main.cf does not set them."""
    values = {
        f"{state.transport}_destination_recipient_limit": "1",
        f"{state.transport}_time_limit": "300s",
        "enable_long_queue_ids": "yes",
    }
    if not state.beside:  # these affect all mail of the host
        # local(8) and virtual(8) do not start if their limit is below message_size_limit.
        limits = [int(state.value(name) or 0) for name in ("mailbox_size_limit", "virtual_mailbox_limit")]
        size = min([state.host.configuration.limits.message_size, *filter(None, limits)])
        values |= {"virtual_transport": state.transport, "message_size_limit": str(size)}
    return {name: value for name, value in values.items() if name not in state.explicit}


def _added(state: PostfixState) -> dict[str, tuple[str, list[str]]]:
    """Return the lists to extend: for each the new value, and the added words."""
    host = state.host
    table = f"proxy:pgsql:{host.file(RECIPIENTS)}"
    new = {"virtual_mailbox_domains": [domain for domain in host.domains if not state.is_ours(domain)]}
    if not accepts_any(state):
        new["virtual_mailbox_maps"] = [table]
        readable = state.explicit.get("proxy_read_maps")
        if readable is not None and "$virtual_mailbox_maps" not in words(readable):
            new["proxy_read_maps"] = [table]
    if state.to_route():
        new["transport_maps"] = [f"texthash:{host.file(ROUTES)}"]
    lists = {}
    for name, candidates in new.items():
        # virtual_mailbox_domains defaults to $virtual_mailbox_maps, which may contain other domains.
        default = "$virtual_mailbox_maps" if name == "virtual_mailbox_domains" and state.beside else ""
        current = state.explicit.get(name, default)
        lacking = [word for word in candidates if word not in words(current)]
        if lacking:
            lists[name] = (", ".join([*([current.rstrip(", ")] if current else []), *lacking]), lacking)
    return lists


def _recorded(record: Record, name: str) -> list[str]:
    change = record.find("list", name)
    return words(change.after or "") if change else []


def _differences(state: PostfixState, values: dict[str, str]) -> list[str]:
    """Return a diff of main.cf, if other mail depends on it."""
    lines = []
    for name, value in values.items() if state.beside else ():
        lines += [f"-{name} = {state.explicit[name]}"] if name in state.explicit else []
        lines += [f"+{name} = {value}"]
    return lines
