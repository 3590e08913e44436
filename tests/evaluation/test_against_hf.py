"""The same tasks by the harness's own `hf` model in float32."""

import math

import numpy as np
import pytest

import pythia_fast
from pythia_fast.evaluation.quiet import quiet_harness

KINDS = ("local_choices", "local_last_word", "local_rolling", "local_generated")
TOLERANCE = 1e-4


def hf_model(folder):
    from lm_eval.models.huggingface import HFLM
    from transformers import GPTNeoXForCausalLM, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    model = GPTNeoXForCausalLM.from_pretrained(folder, dtype="float32")
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3, device="cpu")


def by_hf(folder, definitions, tasks, num_fewshot):
    """What the harness finds with its own model."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    with quiet_harness():
        return lm_eval.simple_evaluate(
            model=hf_model(folder),
            tasks=list(tasks),
            num_fewshot=num_fewshot,
            task_manager=TaskManager(include_path=str(definitions), include_defaults=False),
            bootstrap_iters=1000,
        )


@pytest.mark.parametrize(
    ("steps", "tasks", "num_fewshot"), [((8, 64), KINDS, 0), ((8,), KINDS[:1], 2)]
)
def test_every_answer_and_every_result(suite, definitions, tmp_path, steps, tasks, num_fewshot):
    ours = pythia_fast.evaluate(
        suite, steps, tasks, include_path=definitions, num_fewshot=num_fewshot,
        dtype="float32", log_samples=True, out=tmp_path / "run", progress=False,
    )  # fmt: skip
    for step in steps:
        theirs = by_hf(suite / f"step{step}", definitions, tasks, num_fewshot)
        for task in tasks:
            samples = ours.samples(step, task)
            assert len(samples) == len(theirs["samples"][task])
            for sample, expected in zip(samples, theirs["samples"][task], strict=True):
                for key in ("doc_id", "doc_hash", "prompt_hash", "target_hash"):
                    assert sample[key] == expected[key]
                for mine, other in zip(sample["resps"], expected["resps"], strict=True):
                    compare(mine[0], other[0])
            found = ours.results[step]["results"][task]
            assert found.keys() == theirs["results"][task].keys()
            for key, value in theirs["results"][task].items():
                if isinstance(value, float):
                    np.testing.assert_allclose(found[key], value, rtol=TOLERANCE)
                else:
                    assert found[key] == value
        for key in ("versions", "n-shot", "n-samples", "higher_is_better", "group_subtasks"):
            assert ours.results[step][key] == theirs[key]


def compare(mine, theirs):
    """A text, a log-likelihood and whether it is greedy, or the log-likelihood of a whole text.

    The last is a sum over hundreds of tokens, which the harness takes in float32.
    """
    if isinstance(theirs, str):
        assert mine == theirs
    elif isinstance(theirs, tuple):
        assert abs(mine[0] - theirs[0]) <= TOLERANCE
        assert mine[1] == theirs[1]
    else:
        assert math.isclose(mine, theirs, rel_tol=1e-6, abs_tol=TOLERANCE)
