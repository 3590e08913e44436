"""The way to a Ray cluster: to one that is named, to one on this machine, or to a new one here.

Ray by itself would try an address where nobody is for a quarter of an hour, also that of a cluster
that once was started on this machine and is gone.
"""

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pythia_fast.errors import ArgumentError, WorkerError

_log = logging.getLogger("pythia_fast")

PATIENCE_S = 10.0
"""How long a cluster that is just being started may take until it can be reached."""
_TRIES = "RAY_gcs_server_port_wait_time_s"  # Ray's own; each try lasts 40 s
_PRINTS, _INFO = "print_worker_logs", ":info_message:"  # Ray's own, too


@dataclass(slots=True)
class _Connection:
    """What this process has connected itself to, and how many sweeps use it."""

    address: str | None
    alone: bool
    end: ExitStack
    uses: int = 0


class _Process:
    """A process can be connected once only: those of its threads that sweep share that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: _Connection | None = None

    def join(self, ray: Any, address: str | None) -> _Connection | None:
        """Connect, or use what another sweep has connected; None if somebody else has."""
        with self._lock:
            if not ray.is_initialized():
                with ExitStack() as end:
                    end.enter_context(logged())
                    alone = connect(ray, address)
                    end.callback(ray.shutdown)
                    self._connection = _Connection(address, alone, end.pop_all())
            connection = self._connection
            if address is not None and (connection is None or connection.address != address):
                raise ArgumentError(
                    f"this process is connected to a Ray cluster already: leave out the address "
                    f"{address!r}, or disconnect first (ray.shutdown)"
                )
            if connection is not None:
                connection.uses += 1
            return connection

    def leave(self, connection: _Connection) -> None:
        """Disconnect where nobody else uses it."""
        with self._lock:
            connection.uses -= 1
            if connection is self._connection and not connection.uses:
                self._connection = None
                connection.end.close()


_process = _Process()


@contextmanager
def connected(ray: Any, address: str | None) -> Iterator[bool]:
    """While it is entered the process is connected; whether to a new cluster, this machine alone.

    Sweeps in several threads share the connection, and the last one ends it, unless the process was
    connected before the first. ArgumentError for an address when it is connected elsewhere, and the
    errors of `connect`.
    """
    connection = _process.join(ray, address)
    if connection is None:
        yield False
        return
    try:
        yield connection.alone
    finally:
        _process.leave(connection)


def connect(ray: Any, address: str | None) -> bool:
    """Connect this process to a cluster; whether it is a new one that is this machine alone.

    `address` None is RAY_ADDRESS, or a cluster that runs on this machine, or a new one, in this
    order; "local" is a new one. WorkerError if no cluster answers where there should be one.
    """
    wanted = address or os.environ.get("RAY_ADDRESS") or "auto"
    quiet = {"logging_level": logging.WARNING, "log_to_driver": False}
    if wanted != "local":
        if not _listens(wanted):
            raise WorkerError(f"no Ray cluster answers at {wanted}: nobody listens there")
        try:
            with _one_try():
                ray.init(address=wanted, **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            if wanted != "auto" and "Version mismatch" in str(error):
                raise WorkerError(f"the Ray cluster at {wanted} is another: {error}") from error
            if wanted != "auto":
                raise WorkerError(f"no Ray cluster answers at {wanted}: {error}") from error
            if not isinstance(error, ConnectionError):  # that says that there is none
                _log.warning("the Ray cluster of this machine is of no use: %s", error)
        else:
            return False
    ray.init(address="local", **quiet)
    return True


def grows(ray: Any) -> bool:
    """Whether Ray starts machines where they are asked for, as far as it tells: its autoscaler."""
    try:
        kv = ray.experimental.internal_kv
        if kv._internal_kv_get("__autoscaler_v2_enabled", namespace="__autoscaler") == b"1":
            return True
        status = json.loads(kv._internal_kv_get("__autoscaling_status") or b"{}")
        kinds = status.get("autoscaler_report", {}).get("node_type_mapping") or {}
    except Exception:  # a Ray that keeps it elsewhere
        return True
    # Where nobody may start machines each one is of a kind of its own.
    return any(kind != f"node_{node}" for node, kind in kinds.items())


@contextmanager
def logged() -> Iterator[None]:
    """What Ray would print of workers goes to our log meanwhile.

    It prints that on standard output, which is the caller's, whatever `log_to_driver` is, and has
    no setting for it. A Ray without the function that does so prints as before.
    """
    worker = sys.modules.get("ray._private.worker")
    printing = getattr(worker, _PRINTS, None)
    if printing is None:
        yield
        return
    setattr(worker, _PRINTS, _log_lines)
    try:
        yield
    finally:
        setattr(worker, _PRINTS, printing)


def _log_lines(data: Mapping[str, Any], *_: object, **__: object) -> None:
    for line in data.get("lines", ()):
        _log.warning("Ray (%s): %s", data.get("pid"), line.rpartition(_INFO)[2])


def _listens(address: str) -> bool:
    """Whether somebody is at `host:port`; what else an address may be is for Ray to judge."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        return True
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE_S):
                return True
        except (OSError, OverflowError):
            if time.monotonic() >= end_s:
                return False
            time.sleep(min(0.5, PATIENCE_S))


@contextmanager
def _one_try() -> Iterator[None]:
    """Let Ray try once, unless the user has said how often."""
    if _TRIES in os.environ:
        yield
        return
    os.environ[_TRIES] = "1"
    try:
        yield
    finally:
        del os.environ[_TRIES]
