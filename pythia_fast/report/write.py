"""The report as a file: data, script and style in one page that asks no network for anything.

The browser is told so itself: the page's policy forbids every request and runs only the scripts
whose digests it names.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from pythia_fast.cache import expanded
from pythia_fast.errors import ArgumentError
from pythia_fast.extras import require
from pythia_fast.markup import escaped
from pythia_fast.publish import published, require_folder, require_plain
from pythia_fast.report.document import document
from pythia_fast.report.record import check_record
from pythia_fast.report.run import Run
from pythia_fast.report.texts import texts_of
from pythia_fast.tokens import TokenDataset, TokenSource, load_tokenizer
from pythia_fast.words import listed

SCRIPTS = ("base.js", "grid.js", "curves.js", "results.js", "reading.js", "sequences.js", "page.js")
"""Our own, in the order in which they run."""


def write_report(
    runs: Sequence[Run] | Mapping[str, Run],
    path: str | Path,
    *,
    tokens: TokenDataset | TokenSource | None = None,
    tokenizer: str | Path | Tokenizer | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """Write what these runs found to one HTML file and return its path (extra: `analysis`).

    The page opens from the disk and sends no request: learning curves, a table to sort and filter,
    the sequences that were memorized and when, their texts with the losses by token (where the
    sweep kept them: `Perplexity(per_token=True)`), where the time went, what is missing, and where
    every number is from. What is too much for one page is left out, and the page says so.

    Args:
        runs: results of sweeps, at least one; or the `SweepResults` of several models.
        path: the file; one that is there is replaced.
        tokens: what the runs looked at, for their texts. None, and for runs that looked at others:
            what the run folder says, if it is still there and the same; else the page says that
            the texts are missing.
        tokenizer: a tokenizer.json, or the tokenizer. None: the one beside the checkpoints.
        cache_dir: where tokens that were fetched from the Hub are.

    Raises:
        ArgumentError: no runs, or something else; `tokens` are what no run looked at; plotly is
            not installed.
        FormatError: a `run.json` is not what a sweep writes.
        WriteError: the file cannot be written, or its folder is not there.
    """
    if isinstance(runs, Mapping):
        runs = list(runs.values())
    if not runs:
        raise ArgumentError("no runs, so there is nothing to report: give at least one")
    for run in runs:
        if not hasattr(run, "record"):
            raise ArgumentError(f"a report is of SweepResults, not of {run!r}")
    plotly_js: str = require("plotly.offline").get_plotlyjs()
    target = expanded(path)
    require_folder(target)
    require_plain(target)
    reader = None if tokenizer is None else load_tokenizer(tokenizer)
    if tokens is not None and not isinstance(tokens, TokenDataset):
        tokens = TokenDataset(tokens, cache_dir=cache_dir)
    for run in runs:
        check_record(run)
    texts = texts_of(runs, tokens, reader, cache_dir)
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    data = document(runs, texts, version=version("pythia-fast"), made=made)
    text = _page(data, plotly_js)
    with published(target) as file:
        file.write(text.encode())
    return target


def _page(data: Any, plotly_js: str) -> str:
    folder = files("pythia_fast.report") / "page"
    own = "\n".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "title": escaped(_title(data)),
        "policy": _policy(plotly_js, own),
        "style": (folder / "style.css").read_text(encoding="utf-8"),
        "data": _quoted(data),
        "plotly": plotly_js,
        "script": own,
    }
    page: str = (folder / "page.html").read_text(encoding="utf-8")
    pieces = page.split("{{")  # not by replacing one after the other: data may hold braces too
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, _, rest = piece.partition("}}")
        filled += [parts[name], rest]
    return "".join(filled)


def _title(data: Any) -> str:
    labels = [run["label"] for run in data["runs"]]
    return f"{listed(labels, 3)}: what the sweep{'s' * (len(labels) > 1)} found"


def _policy(*scripts: str) -> str:
    """No request at all, no script but these. Plotly sets styles of its elements as it draws."""
    digests = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {digests}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _quoted(data: Any) -> str:
    """JSON that no HTML parser can mistake: of what ends an element nothing is left."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
