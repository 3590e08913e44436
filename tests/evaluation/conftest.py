"""A tiny suite with a byte tokenizer, and tasks of every kind whose data lie beside them."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import pythia_fast
from pythia_fast.errors import PythiaFastError
from pythia_fast.series import Checkpoint, LocalSeries, Revision
from pythia_fast.testing import tiny_suite

STEPS = (0, 1, 8, 64)
TASKS = ("local_choices", "local_generated")
CHOICES = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/choices.jsonl, train: {folder}/train.jsonl}}}}
test_split: test
training_split: train
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
LAST_WORD = """
task: local_last_word
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/last_word.jsonl}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{text.rsplit(' ', 1)[0]}}}} "
doc_to_target: "{{{{text.rsplit(' ', 1)[1]}}}}"
target_delimiter: ""
metric_list:
  - {{metric: perplexity, aggregation: perplexity, higher_is_better: false}}
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
metadata: {{version: 2.0}}
"""
ROLLING = """
task: local_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/texts.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: bits_per_byte}}]
metadata: {{version: 3.0}}
"""
GENERATED = """
task: local_generated
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/last_word.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{text}}}}"
doc_to_target: "x"
generation_kwargs: {{until: ["\\n", "a"], max_gen_toks: 12, do_sample: false, temperature: 0.0}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 4.0}}
"""
GROUP = """
group: local_group
task: [local_choices, local_twin]
aggregate_metric_list: [{metric: acc, weight_by_size: true}]
metadata: {version: 5.0}
"""
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "that", "it", "was", "good", "again")


def sentence(start: int, count: int) -> str:
    return " ".join(WORDS[(start * 7 + i * (start % 3 + 1)) % len(WORDS)] for i in range(count))


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 0, 1, 8 and 64 with the bytes' tokenizer; 1 is a copy of 0. Not to be written to."""
    folder = tmp_path_factory.mktemp("evaluation") / "tiny"
    return tiny_suite(folder, steps=STEPS, copies={1: 0})


@pytest.fixture(scope="session")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of task definitions, for include_path. Not to be written to."""
    folder = tmp_path_factory.mktemp("definitions")
    choices = [
        {"question": sentence(i, 3 + i % 5), "label": i % 3, "choices": ["A", "B", "C"]}
        if i % 2
        else {"question": sentence(i, 4), "label": 1, "choices": [sentence(i + j, 2 + j)
                                                                  for j in range(3)]}
        for i in range(10)
    ]  # fmt: skip
    write(folder / "choices.jsonl", choices)
    write(folder / "train.jsonl", choices[:5])
    write(folder / "last_word.jsonl", [{"text": sentence(i, 2 + i % 6)} for i in range(9)])
    write(folder / "texts.jsonl", [{"text": sentence(i, 4 + 40 * i)} for i in range(4)])
    for name in ("local_choices", "local_twin"):
        (folder / f"{name}.yaml").write_text(CHOICES.format(folder=folder, name=name))
    (folder / "last_word.yaml").write_text(LAST_WORD.format(folder=folder))
    (folder / "rolling.yaml").write_text(ROLLING.format(folder=folder))
    (folder / "generated.yaml").write_text(GENERATED.format(folder=folder))
    (folder / "group.yaml").write_text(GROUP)
    return folder


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def own_tasks_only(monkeypatch: pytest.MonkeyPatch, definitions: Path) -> None:
    """The harness knows the local definitions only: reading its own takes ten seconds."""
    from lm_eval.tasks import TaskManager

    from pythia_fast.evaluation import tasks

    def manager(folders: tuple[Path, ...], *, defaults: bool) -> object:
        return TaskManager(include_path=[definitions, *folders], include_defaults=False)

    monkeypatch.setattr(tasks, "_manager", manager)


@pytest.fixture
def no_tasks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness knows what is in the folders that it is given, and nothing else."""
    from lm_eval.tasks import TaskManager

    from pythia_fast.evaluation import tasks

    def manager(folders: tuple[Path, ...], *, defaults: bool) -> object:
        return TaskManager(include_path=list(folders), include_defaults=False)

    monkeypatch.setattr(tasks, "_manager", manager)


@pytest.fixture
def evaluate(definitions, tmp_path):
    """`pythia_fast.evaluate` into one folder, with few documents."""

    def call(model, steps="all", tasks=TASKS, **more):
        given = {"include_path": definitions, "limit": 3, "dtype": "float32", "progress": False}
        return pythia_fast.evaluate(
            model, steps, tasks, **(given | {"out": tmp_path / "run"} | more)
        )

    return call


@pytest.fixture
def asked(monkeypatch):
    """Which steps the harness was asked about."""
    steps = []
    from pythia_fast.evaluation.harness import Harness

    original = Harness.results

    def results(self, model, answers):
        steps.append(model.step)
        return original(self, model, answers)

    monkeypatch.setattr(Harness, "results", results)
    return steps


class Remote(LocalSeries):
    """A folder as if it were a model of the Hub: its steps have commits, its weights digests.

    `moved` are branches that are at another commit than at first, `broken` steps cannot be had and
    `failing` ones fail when they are opened. `pinned` and `opened` tell what was.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.spec = replace(self.spec, repo="own/tiny")
        self.moved: set[int] = set()
        self.broken: dict[int, PythiaFastError] = {}
        self.failing: dict[int, PythiaFastError] = {}
        self.pinned: dict[int, str] = {}
        self.opened: list[int] = []

    def identity(self, step: int) -> str:
        own = hashlib.sha1(f"{step} {step in self.moved}".encode()).hexdigest()
        return self.pinned.get(step, own)

    def pin(self, commits: Mapping[int, str]) -> None:
        self.pinned |= commits

    def survey(self, steps: Sequence[int]) -> dict[int, Revision]:
        return {
            step: Revision(step, error=self.broken[step])
            if step in self.broken
            else replace(
                super(Remote, self).survey([step])[step],
                commit=self.identity(step),
                weights_sha256=self.digest(step),
            )
            for step in steps
        }

    def digest(self, step: int) -> str:
        with closing(super().open(step)) as checkpoint:
            return checkpoint.weights_sha256

    def open(self, step: int) -> Checkpoint:
        if step in self.failing:
            raise self.failing[step]
        self.opened.append(step)
        return replace(super().open(step), commit=self.identity(step))


@pytest.fixture
def remote(suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """The suite as if it came from the Hub, whatever model is asked for."""
    series = Remote(Path(shutil.copytree(suite, tmp_path / "remote/tiny")))
    monkeypatch.setattr("pythia_fast.evaluation.evaluating.open_series", lambda *_, **__: series)
    return series
