"""The PostgreSQL server of this host, which must run."""

import shlex

from ..host import Host
from ..record import Record
from ..step import SetupError, Step, output


def server(host: Host, _: Record) -> Step:
    """Return the step that starts the server, if it is on this host. Raises SetupError if it runs and is closed to us."""
    if not host.server.is_local:
        return Step("server", "PostgreSQL is on another host, where setup changes nothing")
    if host.embedded or host.server.answers():
        return Step("server", f"PostgreSQL answers ({host.server.conninfo})")
    folder, port = host.server.socket
    test = ["pg_isready", "-q", "-h", folder, "-p", port]
    if output(test) is not None:
        raise SetupError(
            f"PostgreSQL runs ({host.server.conninfo}), but does not let in its superuser, which setup uses as the account"
            f" {host.server.account}; the reason: {host.server.command('postgres', 'SELECT 1')}. With this line at the top of"
            f" pg_hba.conf it does, after a reload: local all {host.server.account} peer"
        )
    ready = shlex.join(test)
    # Of Debian's clusters, the one with this port.
    start = (
        "pg_lsclusters -h | while read -r version name cluster_port rest; do"
        f' [ "$cluster_port" != {port} ] || pg_ctlcluster "$version" "$name" start; done'
    )
    if host.systemd:
        start = "systemctl enable --now postgresql"
    wait = f"timeout 60 sh -c {shlex.quote(f'until {ready}; do sleep 1; done')}"
    return Step("server", f"PostgreSQL does not answer ({host.server.conninfo})", (f"{ready} || {start}", wait))
