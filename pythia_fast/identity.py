"""Who a process is, such that another one can tell whether it still runs."""

import hashlib
import os
import platform
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

_MARK = re.compile(r"([0-9a-f]{8})([0-9a-f]{8})([0-9a-f]{8})", re.ASCII)
_MACHINE_ID = Path("/etc/machine-id")
_DEAD_STATES = ("Z", "X", "x")  # ended, and its parent has not asked yet


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: its number means something only in its namespace, since its machine started.

    `started` is when, in the kernel's ticks: a later process of the same number has another one.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    started: int

    @classmethod
    def of_this_process(cls) -> "Identity":
        """Our own."""
        pid = os.getpid()
        return cls(platform.node(), _boot(), _namespace(), pid, _started(pid) or 0)

    @classmethod
    def from_record(cls, record: Any) -> "Identity | None":
        """As `to_record` gave it, None for anything else."""
        if not isinstance(record, dict):
            return None
        host, boot, namespace, pid, started = (record.get(name) for name in cls.__slots__)
        if not (isinstance(host, str) and isinstance(boot, str) and isinstance(namespace, str)):
            return None
        if type(pid) is not int or type(started) is not int:
            return None
        return cls(host, boot, namespace, pid, started)

    def to_record(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    def runs(self) -> bool | None:
        """Whether the process runs; None if that cannot be seen from here."""
        if not self.boot or not self.started:
            return None
        if (self.boot, self.namespace) != (_boot(), _namespace()):
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except (PermissionError, OverflowError):
            pass  # another user's
        found = _started(self.pid)
        return None if found is None else found == self.started


def mark() -> str:
    """Where this process's number means something, in 24 digits, for the names of its files."""
    return _machine() + _short(_boot()) + _short(_namespace())


def is_dead(pid: int, mark: str) -> bool:
    """Whether the process of that number, there, is known to have ended; not, if it is not here.

    What is no `mark` is taken to say here.
    """
    found = _MARK.fullmatch(mark)
    if found is not None:
        machine, boot, namespace = found.groups()
        if boot != _short(_boot()):
            return machine == _machine()  # before it was started again
        if namespace != _short(_namespace()):
            return False
    return not Path("/proc", str(pid)).exists()


def _machine() -> str:
    """Of its name and its id, so that neither copied disks nor poor names make two machines one."""
    try:
        machine_id = _MACHINE_ID.read_text().strip()
    except (OSError, ValueError):
        machine_id = ""
    return _short(f"{platform.node()} {machine_id}")


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _started(pid: int) -> int | None:
    """When the process started, 0 if it has ended; None if the system does not show it to us."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if state in _DEAD_STATES else int(rest[18])
    except (OSError, ValueError, IndexError):
        return None


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
