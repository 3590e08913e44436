"""One checkpoint's results by the harness's own code, for requests that are there already."""

import json
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation.adapter import harness_model
from pythia_fast.evaluation.answers import Answers
from pythia_fast.evaluation.bootstrap import ITERATIONS
from pythia_fast.evaluation.quiet import SEEDS, quiet_harness
from pythia_fast.evaluation.tasks import LoadedTasks
from pythia_fast.model import Model


class Harness:
    """Tasks that are asked of model after model. ArgumentError, with the task, for bad requests.

    Attributes:
        tokens: how many tokens go through a model for all requests.
    """

    def __init__(self, loaded: LoadedTasks, answers: Answers, *, log_samples: bool) -> None:
        self._loaded, self._log_samples = loaded, log_samples
        try:
            self.tokens = _tokens(answers, loaded.requests())
        except ArgumentError:
            for name in loaded.tasks:  # whose is it?
                try:
                    _tokens(answers, loaded.requests(name))
                except ArgumentError as error:
                    raise ArgumentError(f"task {name}: {error}") from error
            raise

    def results(self, model: Model, answers: Answers) -> dict[str, Any]:
        """What the harness finds, as its `simple_evaluate` gives it."""
        from lm_eval.evaluator import evaluate

        started = time.time()
        self._loaded.forget_answers()
        with quiet_harness():
            results: dict[str, Any] = evaluate(
                lm=harness_model(model, answers),
                task_dict=self._loaded.found,
                limit=self._loaded.limit,
                bootstrap_iters=ITERATIONS,
                log_samples=self._log_samples,
            )
        self._loaded.forget_answers()
        return results | {
            "config": {
                "model": "pythia-fast",
                "model_args": {"model": model.spec.name, "step": model.step},
                "model_num_parameters": model.architecture.parameters,
                "model_dtype": str(model.dtype),
                "device": str(model.device),
                "limit": self._loaded.limit,
                "bootstrap_iters": ITERATIONS,
                "gen_kwargs": None,
                "random_seed": SEEDS["random"],
                "numpy_seed": SEEDS["numpy"],
                "torch_seed": SEEDS["torch"],
                "fewshot_seed": SEEDS["fewshot"],
            },
            "date": started,
            "lm_eval_version": version("lm_eval"),
            "eot_token_id": answers.encoder.end_of_text,
            "max_length": answers.max_positions,
        }

    @staticmethod
    def json(value: Any, indent: int | None = None) -> str:
        """As the harness writes it; what JSON lacks becomes a string or a list."""
        from lm_eval.utils import handle_non_serializable

        return json.dumps(value, indent=indent, default=handle_non_serializable)


def _tokens(answers: Answers, requests: Mapping[str, Sequence[Any]]) -> int:
    """How many go through a model; what the answers need is made ready."""
    return sum(
        answers.tokens(
            kind,
            [each.args if kind != "loglikelihood_rolling" else each.args[0] for each in some],
        )
        for kind, some in requests.items()
    )
