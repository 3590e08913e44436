"""Runs made up for the report, and a real browser to open it in."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pythia_fast.report import write_report
from pythia_fast.testing.tokenizer import byte_tokenizer
from pythia_fast.tokens import TokenDataset

STEPS = (0, 1, 2, 4, 8, 16, 32, 64)
HOSTILE = (
    "</script><script>document.title='owned'</script>"
    '"><img src=x onerror="document.title=\'owned\'">'
)
TEXTS = (
    "It was the best of times, it was the worst of times.\n\tcafé 你好 🙂 shalom שלום ",
    HOSTILE,
    "‮gnp.exe‬ a\x00b\x1b[31m ​&amp;<b>bold</b> <!-- -->",
    "abcdefghijklmnopqrstuvwxyz 0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ",
)
TOKENS = 64


@dataclass
class MadeUp:
    """A run that lies in memory: the rows of each step, and all else that a report asks for."""

    path: Path
    record: dict[str, Any]
    table: pa.Table
    rows: dict[int, pa.Table]
    times: pa.Table
    gaps: tuple[Any, ...] = ()
    failures: tuple[Any, ...] = ()
    remarks: dict[int, tuple[str, ...]] = field(default_factory=dict)
    asked: list[tuple[int, Sequence[str]]] = field(default_factory=list)

    def intervals(self, level: float) -> pa.Table:
        """Of perplexity, 10 % wide, whatever the level."""
        rows = [row for row in self.table.to_pylist() if row["metric"] == "perplexity"]
        keys = {
            "step": pa.int64(),
            "metric": pa.string(),
            "low": pa.float64(),
            "high": pa.float64(),
        }
        ends = [
            {"step": row["step"], "metric": "perplexity"}
            | {"low": row["value"] * 0.95, "high": row["value"] * 1.05}
            for row in rows
        ]
        return pa.Table.from_pylist(ends, pa.schema(list(keys.items())))

    def columns(self, names: Sequence[str], steps: Container[int] | None = None) -> "MadeUpColumns":
        asked = {step: table for step, table in self.rows.items() if steps is None or step in steps}
        return MadeUpColumns(asked, names, self.asked)


class MadeUpColumns:
    """Columns of a made-up run, in shards of five rows."""

    def __init__(
        self,
        rows: Mapping[int, pa.Table],
        names: Sequence[str],
        asked: list[tuple[int, Sequence[str]]],
    ) -> None:
        there = {name for table in rows.values() for name in table.column_names}
        self.names = [name for name in names if name in there]
        has = {s: table for s, table in rows.items() if {*self.names} <= {*table.column_names}}
        self._rows = has if self.names else {}
        self.steps = tuple(self._rows)
        self._asked = asked

    def sequences(self) -> Iterator[pa.Table]:
        for step in self.steps[:1]:
            table = self._rows[step].select(["sequence"])
            yield from (table.slice(at, 5) for at in range(0, len(table), 5))

    def shards(self, steps: Sequence[int] | None = None) -> Iterator[dict[int, pa.Table]]:
        (step,) = steps or ()
        self._asked.append((step, tuple(self.names)))
        table = self._rows[step].select(list(dict.fromkeys(["sequence", *self.names])))
        for at in range(0, max(len(table), 1), 5):
            yield {step: table.slice(at, 5)}


Memorized = Callable[[int, int], bool]


def memorized_from(sequence: int, step: int) -> bool:
    """Sequence 1 from step 4 on; sequence 2 at steps 2 to 8 only; sequence 3 at the last."""
    return (
        (sequence == 1 and step >= 4)
        or (sequence == 2 and 2 <= step <= 8)
        or (sequence == 3 and step == STEPS[-1])
    )


def made_up(
    path: Path,
    dataset: TokenDataset,
    *,
    model: str = "tiny",
    steps: Sequence[int] = STEPS,
    missing: Sequence[int] = (),
    per_token: bool = True,
    memorized: Memorized = memorized_from,
    seed: int = 0,
) -> MadeUp:
    """A run over all of `dataset`, of perplexity and memorization (prompt 8, continuation 8)."""
    rng = np.random.default_rng(seed)
    N = len(dataset)
    rows, table, times = {}, [], []
    for k, step in enumerate(steps):
        if step in missing:
            continue
        nll_NT = rng.gamma(2.0, 2.5 / (1 + k), (N, TOKENS - 1)).astype(np.float32)
        known = [memorized(i, step) for i in range(N)]
        rows[step] = pa.table(
            {
                "sequence": np.arange(N),
                "nll": nll_NT.astype(np.float64).sum(1),
                "tokens": np.full(N, TOKENS - 1),
                "memorized": known,
                "first_mismatch": pa.array([None if m else 3 for m in known], pa.int32()),
            }
        )
        if per_token:
            rows[step] = rows[step].append_column("token_nll", pa.array(list(nll_NT)))
        loss = float(nll_NT.mean())
        origin = {"commit": None, "weights_sha256": f"{step:064x}", "dtype": "float32"}
        origin |= {"device": "cpu", "tokens_fingerprint": "f" * 64, "version": "0.1.0"}
        common = {"model": model, "step": step, "status": "ok", "sequences": N} | origin
        table += [
            {"metric": "perplexity", "value": float(np.exp(loss)), "loss": loss} | common,
            {"metric": "memorization", "value": sum(known) / N} | common,
        ]
        times.append({"step": step, "read_s": 0.5, "compute_s": 2.0 + k, "received_bytes": 10**6})
    specification = {
        "model": model,
        "architecture": {"layers": 2, "vocab_rows": 260},
        "metrics": [
            {"name": "perplexity", "type": "x:P", "settings": {}, "code": None},
            {
                "name": "memorization",
                "type": "x:M",
                "settings": {"prompt": 8, "continuation": 8},
                "code": None,
            },
        ],
        "tokens": dataset.fingerprint(),
        "sequences": {"first": 0, "count": N, "stride": 1},
        "dtype": "float32",
        "deterministic": False,
    }
    record = {
        "hash": "0123456789abcdef" * 4,
        "specification": specification,
        "sources": {"model": None, "tokens": None},
        "versions": {"python": "3.11"},
        "machine": {"cpus": 2},
        "command": ["pythia-fast", "sweep"],
    }
    gaps = [
        SimpleNamespace(step=step, metric=metric, reason="not begun")
        for step in missing
        for metric in ("perplexity", "memorization")
    ]
    names = ("model", "step", "metric", "value", "loss", "status", "sequences", "commit")
    schema_names = [*names, *("weights_sha256", "dtype", "device", "tokens_fingerprint", "version")]
    columns = {name: pa.array([row.get(name) for row in table]) for name in schema_names}
    return MadeUp(
        path=path,
        record=record,
        table=pa.table(columns),
        rows=rows,
        times=pa.Table.from_pylist(times)
        if times
        else pa.table({"step": pa.array([], pa.int64())}),
        gaps=tuple(gaps),
    )


@pytest.fixture(scope="session")
def texts() -> TokenDataset:
    """Twelve sequences of 64 bytes, the first four of them awkward."""
    filler = "The quick brown fox jumps over the lazy dog; pack my box with jugs. "
    rows = [(text + filler).encode()[:TOKENS] for text in TEXTS]
    rows += [(f"{i:02d} " + filler).encode()[:TOKENS] for i in range(4, 12)]
    return TokenDataset(np.array([list(row) for row in rows], np.int64))


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory, texts: TokenDataset) -> list[MadeUp]:
    folder = tmp_path_factory.mktemp("runs")
    first = made_up(folder / "first", texts, model="tiny")
    second = made_up(folder / "second", texts, model=f"{HOSTILE}", missing=(4, 8), seed=1)
    second.failures = (SimpleNamespace(step=8, error="ChecksumError", message=f"bad {HOSTILE}"),)
    second.remarks = {2: (f"odd {HOSTILE}",)}
    return [first, second]


@pytest.fixture(scope="session")
def page(
    tmp_path_factory: pytest.TempPathFactory, two_runs: list[MadeUp], texts: TokenDataset
) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    return write_report(two_runs, path, tokens=texts, tokenizer=byte_tokenizer())


@pytest.fixture
def make_run(tmp_path: Path, texts: TokenDataset) -> Callable[..., MadeUp]:
    """`made_up` over the texts; its arguments may be given."""

    def make(**changes: Any) -> MadeUp:
        dataset = changes.pop("dataset", texts)
        return made_up(tmp_path / "run", dataset, **changes)

    return make


@pytest.fixture(scope="session")
def four_runs(tmp_path_factory: pytest.TempPathFactory, texts: TokenDataset) -> list[MadeUp]:
    """Runs of different steps, which memorize nothing at first."""
    folder = tmp_path_factory.mktemp("four-runs")
    steps = {"a": (0, 8, 64), "b": (0, 1, 2, 8, 64), "c": STEPS, "d": (0, 4, 16)}
    return [made_up(folder / name, texts, model=name, steps=of) for name, of in steps.items()]
