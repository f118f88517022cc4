"""`nas dashboard`: all runs in the browser, until Ctrl-C."""

from __future__ import annotations

import argparse
import errno
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from nas.cli.failures import INTERRUPTED
from nas.cli.streams import print_json, print_line, print_text
from nas.run_directory import short
from search_spaces.errors import UserError

if TYPE_CHECKING:
    from reports.dashboard import Catalogue, DashboardServer


def dashboard(arguments: argparse.Namespace) -> dict[str, Any]:
    """Serve the dashboard.

    Raises:
        UserError: A folder is a file, or the address cannot be listened at.
        SystemExit: With the code of an interruption, which is how it ends.
    """
    folders = [_folder(name) for name in arguments.folders]
    if not 0 <= arguments.port <= 65535:
        raise UserError(f"--port {arguments.port} is not in 0 to 65535; 0 takes a free one")
    if not arguments.host:
        raise UserError("--host is empty; give an address of this host, as 127.0.0.1")
    from reports.dashboard import Catalogue

    catalogue = Catalogue(folders)
    server = _listen(catalogue, arguments.host, arguments.port)
    try:
        _announce(server, catalogue, arguments)
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        _stop(server)
    finally:
        server.server_close()
    return {}


def _folder(name: str) -> Path:
    path = Path(name).expanduser()
    if path.exists() and not path.is_dir():
        raise UserError(f"{name} is a file; name the folder that runs lie in, or a run directory")
    return path.resolve()


def _listen(catalogue: Catalogue, host: str, port: int) -> DashboardServer:
    from reports.dashboard import DashboardServer

    try:
        return DashboardServer(catalogue, host, port)
    except socket.gaierror as error:
        reason = (error.strerror or str(error)).lower()
        raise UserError(
            f"--host {host}: {reason}; give an address of this host, as 127.0.0.1"
        ) from None
    except OSError as error:
        raise UserError(_why(error, host, port)) from None


def _why(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} of {host} is in use, by another dashboard perhaps; give another one "
            f"with --port {port + 1 if port < 65535 else 0}, or --port 0 for a free one"
        )
    if error.errno == errno.EACCES:
        return f"port {port} is not for everybody; give one from 1024 on, as --port 8265"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host} is no address of this host; leave it out, or give one that is"
    reason = (error.strerror or str(error)).lower()
    return f"cannot listen at {host} port {port}: {reason}; give another --host or --port"


def _announce(server: DashboardServer, catalogue: Catalogue, arguments: argparse.Namespace) -> None:
    from reports.dashboard.server import LOCAL

    if arguments.host not in LOCAL:
        print_line(
            f"nas dashboard: warning: --host {arguments.host} lets everyone who reaches this "
            "address see the runs and download their exports; there is no password"
        )
    count = len(catalogue.runs()["runs"])
    folders = ", ".join(short(folder) or "." for folder in catalogue.folders)
    if arguments.json:
        print_json(
            {
                "schema": 1,
                "command": "dashboard",
                "url": server.url,
                "folders": [str(folder) for folder in catalogue.folders],
                "runs": count,
            }
        )
    else:
        print_text(f"dashboard: {server.url}")
    if not count:
        print_line(f"nas dashboard: no run in {folders} yet; those that start appear by themselves")
    if arguments.open:
        import webbrowser

        if not webbrowser.open(server.url):
            print_line(f"nas dashboard: --open found no browser; open {server.url} yourself")


def _stop(server: DashboardServer) -> NoReturn:
    server.server_close()
    print_line("nas dashboard: stopped")
    raise SystemExit(INTERRUPTED)
