"""Host names of a connection string, resolved within a time limit.

libpq resolves them itself, with getaddrinfo(3), and waits for a name server that does not answer as long as resolv.conf(5)
says: ten seconds and more, whatever connect_timeout is. So each name is looked up by a thread that is given up on, and
libpq gets the addresses as hostaddr, beside the names, which TLS and passfiles still need.
"""

import os
import socket
import threading
import time
from typing import Any

from ..mail.outcome import EXHAUSTED, STORE_UNAVAILABLE
from ..runtime.child import processes_allowed
from .errors import NotConnected

_DEFAULT_PORT = "5432"


def resolved(parameters: dict[str, Any], seconds: float) -> dict[str, Any]:
    """`parameters` of libpq with hostaddr for each name in host, in their order; unchanged where there is no name.

    A name with several addresses becomes as many hosts. A name that does not resolve within `seconds` is left out; if none
    does, NotConnected is raised.
    """
    hosts = str(parameters.get("host") or os.environ.get("PGHOST") or "").split(",")
    if parameters.get("hostaddr") or not any(map(_is_name, hosts)):
        return parameters
    ports = str(parameters.get("port") or os.environ.get("PGPORT") or _DEFAULT_PORT).split(",")
    if len(ports) == 1:
        ports = ports * len(hosts)
    if len(ports) != len(hosts):
        return parameters  # libpq reports that
    found = _addresses({host for host in hosts if _is_name(host)}, seconds)
    targets = [
        (host, address, port)
        for host, port in zip(hosts, ports, strict=True)
        for address in (found[host] if _is_name(host) else ["" if _is_socket(host) else host])
    ]
    if not targets:
        names = ", ".join(sorted(found))
        raise NotConnected(STORE_UNAVAILABLE, f"name does not resolve: {names}")
    host, address, port = (",".join(column) for column in zip(*targets, strict=True))
    return {**parameters, "host": host, "hostaddr": address, "port": port}


def _addresses(names: set[str], seconds: float) -> dict[str, list[str]]:
    """The addresses of each name; none for one that is not known in time."""
    found: dict[str, list[str]] = {name: [] for name in names}

    def look_up(name: str) -> None:
        try:
            answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        except OSError:
            return
        found[name] = list(dict.fromkeys(str(address[0]) for *_, address in answers))

    # Daemons: a process that ends does not wait for them.
    threads = [threading.Thread(target=look_up, args=[name], daemon=True) for name in names]
    with processes_allowed():
        for thread in threads:
            try:
                thread.start()
            except RuntimeError as error:  # the host, or the parent's limit, allows no thread
                raise NotConnected(EXHAUSTED, f"no thread to resolve {', '.join(sorted(names))}") from error
    ends = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    return dict(found)


def _is_socket(host: str) -> bool:
    """Whether libpq takes this for the folder of a Unix socket, or one in the abstract namespace."""
    return not host or host[0] in "/@"


def _is_name(host: str) -> bool:
    if _is_socket(host):
        return False
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return False
    return True
