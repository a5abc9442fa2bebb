"""The account that pipe(8) runs the handler as, and its directories."""

import os
import pwd
import shlex
import shutil
import stat

from pipehandler.settings.config import Config
from pipehandler.settings.config_file import DEFAULT_PATH

from ..host import Host
from ..record import Record
from ..step import Change, SetupError, Step


def account(host: Host, _: Record) -> Step:
    """Return the step that creates the account, by sysusers.d(5) where systemd is installed. Raises SetupError."""
    name = host.account
    if exists(name):
        if pwd.getpwnam(name).pw_uid == 0:
            raise SetupError(f"{name} is root, as which Postfix runs no handler; name another account with --user")
        return Step("account", f"{name} exists")
    created = Change("account", name)
    if shutil.which("systemd-sysusers") is None:
        return Step("account", f"{name} does not exist", (create_account(name),), (created,))
    file = os.path.join(host.folder, "sysusers.d", f"{name}.conf")
    return Step(
        "account",
        f"{name} does not exist",
        (
            f"install -d {shlex.quote(os.path.dirname(file))}",
            f"{host.postfix_files('pipehandler.sysusers')} > {shlex.quote(file)}",
            shlex.join(["systemd-sysusers", file]),
        ),
        (*_new_folder(os.path.dirname(file)), Change("file", file), created),
    )


def directories(host: Host, _: Record) -> Step:
    """Return the step that creates the folders, by tmpfiles.d(5) where systemd is installed."""
    state = host.configuration.state.directory
    etc = os.path.dirname(host.config)
    missing = [path for path in (etc, state) if not os.path.isdir(path)]
    if not missing and exists(host.account):
        found = os.stat(state)
        if (found.st_uid, stat.S_IMODE(found.st_mode)) != (pwd.getpwnam(host.account).pw_uid, 0o700):
            fix = shlex.join(["install", "-d", "-m", "700", "-o", host.account, "-g", host.account, state])
            return Step("directories", f"{state} is not only for {host.account}", (fix,))
        return Step("directories", f"{etc} and {state} exist")
    made = [Change("state directory", path) for path in missing if path == state]
    found_text = f"missing: {' '.join(missing)}"
    default = (host.config, state) == (DEFAULT_PATH, Config().state.directory)
    if shutil.which("systemd-tmpfiles") is None or not default:
        commands = [
            shlex.join(["install", "-d", "-m", "755", etc]),
            shlex.join(["install", "-d", "-m", "700", "-o", host.account, "-g", host.account, state]),
        ]
        return Step("directories", found_text, tuple(commands), tuple(made))
    file = os.path.join(host.folder, "tmpfiles.d", "pipehandler.conf")
    return Step(
        "directories",
        found_text,
        (
            f"install -d {shlex.quote(os.path.dirname(file))}",
            f"{host.postfix_files('pipehandler.tmpfiles')} > {shlex.quote(file)}",
            shlex.join(["systemd-tmpfiles", "--create", file]),
        ),
        (*_new_folder(os.path.dirname(file)), Change("file", file), *made),
    )


def _new_folder(path: str) -> list[Change]:
    return [] if os.path.isdir(path) else [Change("folder", path)]


def exists(name: str) -> bool:
    """Return whether there is an account of this name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def create_account(name: str) -> str:
    """Return the command that creates an account for a service, with a group of the same name."""
    return shlex.join(["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", name])
