"""Published numbers that stand in several files, or under two names."""

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from evals_tree import harness, neox, write

from pythia_fast.analysis import published

V0 = "pythia-v0/pythia-{0}/zero-shot/pythia-{0}-0shot-global_step{1}_eval_results_12-30-2022.json"


def many(seed: int, same: int = 0) -> dict[str, Any]:
    """Forty tasks; the first `same` are those of seed 0."""
    return {
        f"task{n}": {"acc": round(math.sin(n + (0 if n < same else 1000.0 * seed)), 6)}
        for n in range(40)
    }


def pair(root: Path, step: int, same: int) -> pa.Table:
    for name, seed in (("2.8b", 0), ("2.8b-deduped", 1)):
        content = harness(f"EleutherAI/pythia-v1.1-{name}", step, 0, many(seed, same))
        write(root, f"pythia-v1/pythia-{name}/zero-shot/{name}_step{step}.json", content)
    return published(root)


@pytest.mark.parametrize(
    ("step", "same", "status"),
    [
        (43000, 40, "doubtful"),
        (43000, 25, "doubtful"),
        (43000, 10, "ok"),
        (2, 40, "doubtful"),
        (2, 33, "ok"),  # as close to its start as that a model and its twin are rightly alike
    ],
)
def test_the_numbers_of_a_twin_are_doubtful(
    tmp_path: Path, step: int, same: int, status: str
) -> None:
    table = pair(tmp_path, step, same)
    assert set(table["status"].to_pylist()) == {status}
    if status == "doubtful":
        assert len(set(table["duplicate_of"].to_pylist())) == 2
        assert all("two names" in problem for problem in table["problem"].to_pylist())


@pytest.mark.parametrize("step", [0, 1])
def test_before_any_step_models_are_rightly_the_same(tmp_path: Path, step: int) -> None:
    table = pair(tmp_path, step, 40)
    assert set(table["status"].to_pylist()) == {"ok"}
    assert sum(problem is not None for problem in table["problem"].to_pylist()) == 40


def test_a_number_counts_once_and_the_models_own_folder_first(tmp_path: Path) -> None:
    own = V0.format("1.4b-deduped", 1500)
    bias = "bias-evals/pythia-1.3b-deduped-step1500_eval_results_01-20-2023-14-42-09.json"
    again = own.replace("12-30-2022", "12-31-2022")
    write(tmp_path, own, neox(1500, "/c/1.3B_dedup"))
    other = {"lambada_openai": {"acc": 0.19}, "crows_pairs_english_gender": {"pct": 0.5}}
    write(tmp_path, bias, neox(1500, "/c/1.3B_dedup", results=other))
    write(tmp_path, again, neox(1500, "/c/1.3B_dedup"))
    table = published(tmp_path)
    found = {
        (row["file"], row["metric"]): (row["status"], row["duplicate_of"])
        for row in table.to_pylist()
    }
    assert found == {
        (own, "ppl"): ("ok", None),
        (own, "acc"): ("ok", None),
        (bias, "acc"): ("duplicate", own),
        (bias, "pct"): ("ok", None),
        (again, "ppl"): ("duplicate", own),
        (again, "acc"): ("duplicate", own),
    }
