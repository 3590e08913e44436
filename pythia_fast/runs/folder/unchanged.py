"""Which files hold the weights of a step's results still, though they look other than then.

    unchanged/step=N.json     {"identity", "weights_sha256"}

A series that was touched, or copied without its times, is hashed by the next sweep, and not by
those that come after it. Only the last look is kept. A record that cannot be read, or has
another form, says nothing.
"""

import json
from contextlib import suppress

from pythia_fast.errors import WriteError
from pythia_fast.runs.folder.run_folder import RunFolder


def keep_unchanged(folder: RunFolder, step: int, identity: str, weights_sha256: str) -> None:
    """Files of this identity were hashed. In a folder that cannot be written nothing is kept."""
    text = json.dumps(_record(identity, weights_sha256), indent=2) + "\n"
    with suppress(WriteError):
        folder.post(_name(step), text.encode())


def is_unchanged(folder: RunFolder, step: int, identity: str, weights_sha256: str) -> bool:
    """Whether files of this identity were hashed, and the weights were these."""
    try:
        found = json.loads((folder.path / _name(step)).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return bool(found == _record(identity, weights_sha256))


def _name(step: int) -> str:
    return f"unchanged/step={step}.json"


def _record(identity: str, weights_sha256: str) -> dict[str, str]:
    return {"identity": identity, "weights_sha256": weights_sha256}
