"""A tiny suite with a byte tokenizer, and tasks of every kind whose data lie beside them."""

import json
from pathlib import Path

import pytest

from pythia_fast.testing import tiny_suite

STEPS = (0, 1, 8, 64)
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
