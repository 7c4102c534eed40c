"""A private MariaDB for the servers of the sandbox that need a database. It asks nobody for a password."""

import os
from pathlib import Path

from mover.sandbox.process import ServerProcess

_HERE = "/proc/self/cwd"
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}


def database_process(
    directory: Path, *, init_file: str, user: str | None = None, socket: str = f"{_HERE}/s.sock"
) -> ServerProcess:
    """A server whose tables are in `directory`, which has a `tmp`, and that runs `init_file` in it as it starts.

    It runs as `user`, or as who we are. It listens on its `socket` only, and who may reach that may do everything.
    """
    # MariaDB enters its data directory. Starting there, it never looks a path up from the root, which it may not
    # be allowed to do, nor needs a short path for its socket. Without grants it needs no tables of its own.
    argv = ["mariadbd", "--no-defaults", "--datadir=/proc/self/cwd", "--tmpdir=/proc/self/cwd/tmp"]
    argv += [f"--socket={socket}", "--pid-file=mariadb.pid", f"--init-file={_HERE}/{init_file}"]
    argv += ["--skip-networking", "--skip-grant-tables", "--innodb-log-file-size=4M", "--innodb-use-native-aio=0"]
    argv += ["--innodb-buffer-pool-size=8M", "--innodb-flush-log-at-trx-commit=0", "--performance-schema=0"]
    if user is None and os.geteuid() == 0:
        argv.append("--user=root")  # it refuses to be root unless it is told to
    return ServerProcess(
        "mariadb",
        argv,
        directory=directory,
        package="mariadb-server-core",
        environment=ENVIRONMENT,
        user=user,
    )
