"""The sockets on which the service listens: for the entrypoints, and for LMTP."""

import errno
import ipaddress
import os
import pwd
import re
import socket
import stat
import time
from collections.abc import Iterable

from ..settings.config import Lmtp

BACKLOG = 512
"""listen(2): connections that the kernel keeps until they are accepted."""

_CONNECT_SECONDS = 2.0


class ServeError(Exception):
    """The service cannot start, or does not answer; the message gives the cause and the fix."""


def listen(name: str) -> socket.socket:
    """Return a listening socket at the path `name`, mode 0600: only this account and root can connect.

    Replaces a socket left behind by a killed service. Raises ServeError if the socket cannot be created, or if another
    service or another kind of file is there.
    """
    return _listen(name, socket.SOCK_SEQPACKET, 0o177, "serve.socket")


def listen_for_lmtp(settings: Lmtp) -> list[socket.socket]:
    """Return the listening sockets for LMTP, none if there are none in the configuration. Raises ServeError.

    Every process can connect to the Unix socket; the receiver asks the kernel for the account of each.
    """
    listeners = []
    if settings.socket:
        listeners.append(_listen(settings.socket, socket.SOCK_STREAM, 0o111, "lmtp.socket"))
    if settings.address:
        host, port = loopback(settings.address)
        listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            for each in (listener, *listeners):
                each.close()
            raise ServeError(f"lmtp.address = {settings.address!r}: {error.strerror}; choose another port") from error
        listeners.append(listener)
    return listeners


def loopback(address: str) -> tuple[str, int]:
    """Return the host and the port of an address like 127.0.0.1:2424 or [::1]:2424. Raises ServeError for any other.

    Whoever can connect can store mail as from any client, so it must not be reached from another host.
    """
    found = re.fullmatch(r"(?:\[([0-9a-fA-F:]+)\]|([0-9.]+)):([0-9]{1,5})", address)
    try:
        if found and ipaddress.ip_address(found[1] or found[2]).is_loopback and 0 < int(found[3]) < 65536:
            return found[1] or found[2], int(found[3])
    except ValueError:
        pass
    raise ServeError(f"lmtp.address = {address!r}; allowed: a loopback address and a port, like 127.0.0.1:2424")


def user_ids(accounts: Iterable[str]) -> frozenset[int]:
    """Return the user ids of accounts, given by name or by number, and those of root and this process.

    Raises ServeError for an account that does not exist.
    """
    found = {0, os.geteuid()}
    for account in accounts:
        try:
            found.add(int(account) if account.isascii() and account.isdigit() else pwd.getpwnam(account).pw_uid)
        except KeyError:
            raise ServeError(
                f"lmtp.accounts: there is no account {account!r}; name the one that lmtp(8) runs as"
            ) from None
    return frozenset(found)


def _listen(name: str, kind: int, mask: int, key: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, kind)
    try:
        if os.path.exists(name):
            _clear(name, kind, key)
        before = os.umask(mask)
        try:
            listener.bind(name)
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
    except (OSError, ServeError) as error:
        listener.close()
        if isinstance(error, ServeError):
            raise
        raise ServeError(
            f"{name}: {error.strerror}; {key} must be in a directory that this account can write"
        ) from error
    return listener


def _clear(name: str, kind: int, key: str) -> None:
    """Remove the socket of a service that was killed."""
    if not stat.S_ISSOCK(os.stat(name).st_mode):
        raise ServeError(f"{name}: this file is not a socket; set {key} to another path")
    # The receiver of a supervisor that was killed closes its socket when it notices.
    until = time.monotonic() + (_CONNECT_SECONDS if kind == socket.SOCK_STREAM else 0)
    while _is_listening(name, kind):
        if time.monotonic() >= until:
            raise ServeError(f"{name}: another service is listening there")
        time.sleep(0.05)
    os.unlink(name)


def _is_listening(name: str, kind: int) -> bool:
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(name)
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise
            return False
    return True
