"""Finds out before anything is started what would make a child fail later. Starts and keeps nothing."""

import errno
import os
import socket
import stat
from pathlib import Path

from text_generation_launcher.errors import LaunchError
from text_generation_launcher.launch import Launch

_LONGEST_SOCKET_PATH = 100
_SECONDS = 5.0


def check_host(launch: Launch, num_shard: int) -> None:
    """Raises LaunchError for a port or socket that is taken or cannot be had; removes sockets nobody answers."""
    options = launch.options
    _check_port("--port", options.hostname, options.port)
    if "prometheus_port" in launch.given and options.prometheus_port:
        _check_port("--prometheus-port", options.hostname, options.prometheus_port)
    if num_shard > 1 and options.master_addr in ("localhost", "127.0.0.1"):
        _check_port("--master-port", "127.0.0.1", options.master_port)
    _check_folder(launch.socket_path(0))
    for rank in range(num_shard):
        _free_socket(launch.socket_path(rank))


def metrics_port(launch: Launch) -> int:
    """--prometheus-port; 0, which is none, if that is the default and another launcher has it: /metrics is enough."""
    options = launch.options
    free = _is_free(options.hostname, options.prometheus_port)
    return options.prometheus_port if free or "prometheus_port" in launch.given else 0


def _is_free(host: str, port: int) -> bool:
    try:
        _check_port("", host, port)
    except LaunchError:
        return False
    return True


def _check_port(option: str, host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise LaunchError(f"{host} is no address of this host; give one with --hostname") from None
            reason = "is taken by another process" if error.errno == errno.EADDRINUSE else f"cannot be had ({error})"
            raise LaunchError(f"port {port} on {host} {reason}; give a free one with {option}") from None


def _check_folder(path: str) -> None:
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise LaunchError(
            f"the socket path {path} is longer than {_LONGEST_SOCKET_PATH} bytes; give a shorter --shard-uds-path"
        )
    folder = Path(path).parent
    if not folder.is_dir():
        raise LaunchError(f"--shard-uds-path lies in {folder}, which is no folder; make it or give another path")


def _free_socket(path: str) -> None:
    """A socket file that nobody answers was left by a process that was killed."""
    try:
        mode = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise LaunchError(f"{path} exists and is no socket; remove it or give another --shard-uds-path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_SECONDS)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            _remove(path)
        except OSError as error:
            raise LaunchError(f"{path} cannot be used ({error}); give another --shard-uds-path") from None
        else:
            raise LaunchError(f"a server already answers at {path}; stop it or give another --shard-uds-path")


def _remove(path: str) -> None:
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise LaunchError(f"the old socket {path} cannot be removed ({error}); give another --shard-uds-path") from None
