"""Networks of their own: loopback with more addresses, on which every port is free, and a name server for it; and two hosts with a
cable between them."""

import ctypes
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from .missing import missing

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)

CLIENTS = tuple(f"198.51.100.{number}" for number in range(1, 31))
"""Addresses from which a test may connect (RFC 5737), each one a client that Postfix does not know."""


class Network:
    """A network namespace, and the processes that `run` starts in it. resolver: the resolv.conf of those."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.resolver = folder / "resolv.conf"
        self.resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self._running: list[subprocess.Popen[bytes]] = []
        if shutil.which("ip") is None:
            missing("ip (iproute2)")
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        if _LIBC.unshare(_CLONE_NEWNET):
            os.close(outside)
            missing("the right to make a network namespace")
        self._inside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            commands = ["link set lo up", *(f"addr add {address}/32 dev lo" for address in CLIENTS)]
            subprocess.run(["ip", "-batch", "-"], input="\n".join(commands), text=True, check=True)
        finally:
            enter(outside)
            os.close(outside)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What this thread opens and starts meanwhile belongs to this network."""
        outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        enter(self._inside)
        try:
            yield
        finally:
            enter(outside)
            os.close(outside)

    def run(self, *command: str) -> None:
        """Start a daemon in the foreground, for which /etc/resolv.conf names the server of this network."""
        script = 'mount --bind "$0" /etc/resolv.conf; "$@"; exit'  # the shell stays: the kernel ends all with it
        with self.inside(), (self.folder / "daemons.log").open("ab") as log:
            self._running.append(
                subprocess.Popen(
                    ["unshare", "--mount", "--pid", "--kill-child", "sh", "-euc", script, self.resolver, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def serve_names(self, texts: Mapping[str, str], addresses: Mapping[str, str]) -> None:
        """Answer for these TXT and A records, and for nothing else (NXDOMAIN)."""
        records = [f"--host-record={name},{address}" for name, address in addresses.items()]
        for name, text in texts.items():  # a string of a TXT record has at most 255 octets
            strings = [text[start : start + 250] for start in range(0, len(text), 250)]
            records.append(",".join([f"--txt-record={name}", *strings]))
        self.run(
            *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file"),
            *("--user=root", "--local=/#/", "--listen-address=127.0.0.1", "--bind-interfaces", *records),
        )

    def wait_for(self, port: int, seconds: float = 120) -> None:
        """Wait until a daemon listens on this port; one that ended meanwhile is an error."""
        until = time.monotonic() + seconds
        while True:
            with self.inside(), suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
                return
            ended = [process.args for process in self._running if process.poll() is not None]
            if ended or time.monotonic() > until:
                raise RuntimeError(f"nothing listens on port {port}; ended: {ended}; {self.log()}")
            time.sleep(0.1)

    def log(self) -> str:
        """What the daemons printed."""
        return (self.folder / "daemons.log").read_text("utf-8", "replace")

    def stop(self) -> None:
        """Stop what `run` started."""
        for process in self._running:
            process.kill()
            process.wait()
        self._running.clear()

    def close(self) -> None:
        """Stop everything, and leave the network to its last process."""
        self.stop()
        os.close(self._inside)


def enter(namespace: int) -> None:
    """Let this thread, and those that it starts, be in the network of this descriptor."""
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def inside(name: str) -> Iterator[None]:
    """What this thread opens and starts meanwhile, threads included, is in this network namespace of ip-netns(8)."""
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        namespace = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            enter(namespace)
        finally:
            os.close(namespace)
        try:
            yield
        finally:
            enter(outside)
    finally:
        os.close(outside)


class Cable:
    """Two hosts, as network namespaces, and the cable between them. `near`, `far`: their names; `address`: of the far one."""

    address = "198.18.1.2"  # RFC 2544: reserved for tests

    def __init__(self) -> None:
        self.near, self.far = (f"pipehandler-{os.getpid()}-{name}" for name in ("near", "far"))

    def _ip(self, *commands: str) -> None:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)

    def lay(self) -> None:
        """Make the hosts and connect them."""
        self._ip(
            f"netns add {self.near}",
            f"netns add {self.far}",
            f"link add eth0 netns {self.near} type veth peer name eth0 netns {self.far}",
            f"-n {self.near} addr add 198.18.1.1/24 dev eth0",
            f"-n {self.far} addr add {self.address}/24 dev eth0",
            f"-n {self.near} link set eth0 up",
            f"-n {self.far} link set eth0 up",
        )

    def pull(self) -> None:
        """Let nothing through any more; neither host notices. (Without a carrier, TCP would not count what it cannot send.)"""
        self._ip(f"-n {self.far} addr del {self.address}/24 dev eth0")

    def plug(self) -> None:
        """Connect them again."""
        self._ip(f"-n {self.far} addr add {self.address}/24 dev eth0")

    def remove(self) -> None:
        """Remove both hosts."""
        for name in (self.near, self.far):
            subprocess.run(["ip", "netns", "del", name])


@contextmanager
def cable() -> Iterator[Cable]:
    """Two hosts."""
    if shutil.which("ip") is None:
        missing("ip (iproute2)")
    if os.geteuid():
        missing("the right to make a network namespace")
    laid = Cable()
    try:
        laid.lay()
        yield laid
    finally:
        laid.remove()
