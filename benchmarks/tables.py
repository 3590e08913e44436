"""The tables of README.md, made from results/*.json, so that text and data cannot disagree.

python benchmarks/tables.py            writes them into README.md
python benchmarks/tables.py --check    exits with 1 if README.md has others
"""

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from record import latest

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"

Record = Mapping[str, Any]
Row = Mapping[str, Any]


def main(arguments: list[str]) -> int:
    """Write or check; the exit status."""
    old = README.read_text()
    new = replaced(old, sections(latest()))
    if "--check" in arguments:
        return int(old != new)
    README.write_text(new)
    return 0


def replaced(text: str, tables: str) -> str:
    """`text` with the tables between its two marks."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def sections(records: list[Record]) -> str:
    """Machine by machine, with its description wherever that changes, and its themes."""
    parts, described = [], ""
    for record in sorted(records, key=lambda record: record["name"]):
        if (text := machine(record)) != described:
            parts.append(f"### {record['name']}\n\n{text}")
            described = text
        parts.append(f"#### {record['theme']}, {record['date']}\n\n`{record['command']}`")
        parts.append(rows(record["rows"], record.get("calibration", [])))
    return "\n\n".join(parts)


def rows(of_theme: list[Row], calibration: list[Row]) -> str:
    """The tables of a theme: comparisons, other numbers, and how the peers were chosen."""
    parts = []
    if compared := [row for row in of_theme if "peer" in row]:
        parts.append(comparisons(compared))
    parts += [plain(group) for group in alike(row for row in of_theme if "peer" not in row)]
    if calibration:
        parts.append("How the peers' settings were chosen:")
        parts += [plain(group) for group in alike(calibration)]
    return "\n\n".join(parts)


def machine(record: Record) -> str:
    """The processor, its threads, the versions and what was measured as the roof, in a paragraph.

    Records made before there was a roofline say less.
    """
    of = record["machine"]
    flags = ", ".join(of.get("flags", [])) or of["capability"]
    text = (
        f"{of['cpu']}, cores {of['cores']}, threads {of['threads']} ({flags}), "
        f"{of['memory_gb']:g} GB; torch {of['torch']}, transformers {of['transformers']}."
    )
    if "gpu" in of:
        text = f"{of['gpu']}, driver {of['driver']}, CUDA {of['cuda']}; {text}"
    peaks = (record.get("roofline") or {}).get("peaks", {})
    return text + "".join(f"\n{line}" for line in ([_roof(peaks)] if peaks else []))


def _roof(peaks: Mapping[str, float]) -> str:
    each = []
    for name, value in peaks.items():
        if name.endswith("_flop_per_s"):
            words = name.removesuffix("_flop_per_s").replace("_", " ")
            each.append(f"{words} {value / 1e9:,.0f} GFLOP/s")
        else:
            words = name.removesuffix("_byte_per_s").replace("_", " ")
            each.append(f"{words} {value / 1e9:.1f} GB/s")
    return f"Roof: {', '.join(each)}."


def comparisons(rows: list[Row]) -> str:
    """Ours against each peer; a column that no row fills is left out."""
    lines = []
    for row in rows:
        target = row.get("target_ratio")
        lines.append(
            {
                "case": row["case"],
                "peer": row["peer"],
                "ours": _spread(row, "ours"),
                "peer's time": _spread(row, "peer"),
                "ratio": f"{row['ratio_median']:.2f} "
                f"({row['ratio_min']:.2f} to {row['ratio_max']:.2f})",
                "asked": f"{target:.2f}" if target else "",
                "ours, of the roof": _share(row, "ours"),
                "peer, of the roof": _share(row, "peer"),
                "rounds": str(row["rounds"]),
                **{
                    key.replace("_", " "): number(value)
                    for key, value in row.items()
                    if key not in _KNOWN and not key.startswith(("ours_", "peer_"))
                },
            }
        )
    return _markdown(lines)


_KNOWN = {"case", "peer", "ratio_median", "ratio_min", "ratio_max", "target_ratio", "rounds"} | {
    "cache"
}


def _spread(row: Row, who: str) -> str:
    text = seconds(row[f"{who}_median_s"])
    if f"{who}_min_s" not in row:
        return text
    return f"{text} ({seconds(row[f'{who}_min_s'])} to {seconds(row[f'{who}_max_s'])})"


def _share(row: Row, who: str) -> str:
    if f"{who}_share_of_roof" not in row:
        return ""
    rate = ""
    if f"{who}_gflop_per_s" in row:
        rate = f", {row[f'{who}_gflop_per_s']:,.0f} GFLOP/s"
    elif f"{who}_gb_per_s" in row:
        rate = f", {row[f'{who}_gb_per_s']:.1f} GB/s"
    return f"{row[f'{who}_share_of_roof']:.0%} of {row[f'{who}_roof']}{rate}"


def alike(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows with the same keys together: a table each."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row), []).append(row)
    return list(groups.values())


def plain(rows: list[Row]) -> str:
    """A table of whatever the rows hold."""
    return _markdown(
        [{key.replace("_", " "): number(value) for key, value in row.items()} for row in rows]
    )


def seconds(value: float) -> str:
    """Three figures and the unit that fits."""
    for unit, factor in (("s", 1), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def number(value: object) -> str:
    """Three figures of a float, at least; anything else as it is."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _markdown(lines: list[dict[str, str]]) -> str:
    names = dict.fromkeys(key for line in lines for key in line)
    shown = [name for name in names if any(line.get(name) for line in lines)]
    cells = [[line.get(name, "").replace("|", "\\|") for name in shown] for line in lines]
    table = [shown, ["---"] * len(shown), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
