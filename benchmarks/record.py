"""Results on disk: one file for each theme, machine and date."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from comparison import Comparison

RESULTS = Path(__file__).parent / "results"


def save(
    collected: Comparison, folder: Path, name: str, machine: dict[str, Any], command: str
) -> Path:
    """Write a theme's rows; an effort other than "standard" is in the theme's name."""
    today = datetime.now(UTC).date().isoformat()
    effort = collected.effort.name
    theme = collected.theme if effort == "standard" else f"{collected.theme}-{effort}"
    record = {
        "theme": theme,
        "date": today,
        "effort": effort,
        "machine": machine,
        "roofline": collected.roofline.as_json() if collected.roofline else None,
        "command": command,
        "calibration": collected.calibration,
        "rows": collected.rows,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{theme}_{name}_{today}.json"
    beside = path.with_suffix(".part")  # whoever is stopped while writing leaves the one before
    beside.write_text(json.dumps(record, indent=2) + "\n")
    beside.replace(path)
    return path


def latest(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """The newest record of each theme and machine, by theme; `name` is the machine's in its file.

    ValueError for a file of another name than <theme>_<machine>_<date>.json; a theme may hold "_".
    """
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):  # of one theme and machine, by date
        theme, name, _ = path.stem.rsplit("_", 2)
        newest[theme, name] = json.loads(path.read_text()) | {"name": name, "file": path.name}
    return [newest[key] for key in sorted(newest)]
