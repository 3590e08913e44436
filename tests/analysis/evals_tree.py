"""Files as the suite's `evals/` has them."""

import json
from pathlib import Path
from typing import Any

RESULTS = {"lambada_openai": {"ppl": 142.4, "ppl_stderr": 6.0, "acc": 0.18, "acc_stderr": 0.01}}


def harness(
    model: str, step: int | None, shots: int | None = 0, results: Any = None
) -> dict[str, Any]:
    revision = "" if step is None else f",revision=step{step}"
    return {
        "results": RESULTS if results is None else results,
        "versions": {"lambada_openai": 0},
        "config": {
            "model": "hf-causal",
            "model_args": f"use_accelerate=True,pretrained={model}{revision}",
            "num_fewshot": shots,
            "limit": None,
        },
    }


def neox(iteration: int, load: str, shots: int = 0, results: Any = None) -> dict[str, Any]:
    arguments = {"iteration": iteration, "load": load, "config_files": {"eval.yml": {}}}
    config = {"model": "neox", "model_args": arguments, "num_fewshot": shots, "limit": None}
    return {"results": RESULTS if results is None else results, "config": config}


def write(root: Path, name: str, content: Any) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
