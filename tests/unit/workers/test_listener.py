"""The settings of LMTP that cannot be used are refused, with the key, the value and the way out."""

import os
import socket
from pathlib import Path

import pytest

from pipehandler.settings.config import Lmtp
from pipehandler.workers.listener import ServeError, listen_for_lmtp, loopback, user_ids


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0:24",
        "192.0.2.1:24",
        "localhost:24",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "[::]:24",
        "127.0.0.1",
        ":24",
        "127.1:24",
    ],
)
def test_only_loopback(address: str) -> None:
    """Nothing that another host might reach, and nothing that has to be looked up."""
    with pytest.raises(ServeError, match="allowed: a loopback address and a port, like 127"):
        loopback(address)


def test_loopback() -> None:
    """All of 127.0.0.0/8, and ::1."""
    assert loopback("127.0.0.2:24") == ("127.0.0.2", 24)
    assert loopback("[::1]:65535") == ("::1", 65_535)


def test_accounts() -> None:
    """By name or number; root and this account always."""
    assert user_ids(["daemon", "4711"]) == {0, os.geteuid(), 1, 4711}
    with pytest.raises(ServeError, match="there is no account 'x y'; name the one that lmtp"):
        user_ids(["x y"])


def test_a_socket_that_cannot_be_made(tmp_path: Path) -> None:
    """The key is named, and another file is left alone."""
    with pytest.raises(ServeError, match=r"lmtp\.socket must be in a directory that this account can write"):
        listen_for_lmtp(Lmtp(f"{tmp_path}/missing/lmtp"))
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ServeError, match=r"not a socket; set lmtp\.socket to another path"):
        listen_for_lmtp(Lmtp(f"{tmp_path}/file"))
    assert (tmp_path / "file").read_text() == "kept"


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """The key and the value are named, and no descriptor stays open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        before = os.listdir("/proc/self/fd")
        with pytest.raises(ServeError, match=f"^lmtp.address = '{address}': Address already in use; choose another"):
            listen_for_lmtp(Lmtp(f"{tmp_path}/lmtp", address))
        assert os.listdir("/proc/self/fd") == before
