"""A definition of the user's that is faulty: its file is named, and what is wrong in it."""

from pathlib import Path

import pytest

from pythia_fast.errors import ArgumentError, FormatError
from pythia_fast.evaluation.definitions import fault_of
from pythia_fast.evaluation.quiet import quiet_harness
from pythia_fast.evaluation.tasks import load_tasks

METRICS = "metric_list:\n  - {metric: acc, aggregation: mean, higher_is_better: true}\n"
FAULTS = {
    "open bracket": ("metadata:", "x: [1,\nmetadata:", r"no YAML in line \d+, column \d+: "),
    "tab": ("metadata:", "\tmetadata:", r"no YAML in line \d+, column 1"),
    "own tag": ("metadata:", "x: !foo bar\nmetadata:", r"no YAML in line \d+.*'!foo'"),
    "no name": ("task: local_choices\n", "", "neither a key task nor a key group"),
    "number": ("task: local_choices", "task: 7", "its task is 7, which is no name"),
    "key": ("doc_to_text", "doc_to_txt", "no key 'doc_to_txt'; near are doc_to_text"),
    "kind": ("multiple_choice", "multiple_choices", "its output_type is 'multiple_choices'"),
    "data": ("dataset_path: json\n", "", "it has no dataset_path"),
    "template": ("{{question}}", "{{question", "its doc_to_text is no template"),
    "metrics": (METRICS, "metric_list: acc\n", "its metric_list is 'acc'"),
    "metric": ("{metric: acc,", "{", "has no key metric"),
    "aggregation": ("aggregation: mean", "aggregation: meen", "no aggregation 'meen'; near are me"),
    "examples": ("metadata:", "num_fewshot: many\nmetadata:", "its num_fewshot is 'many'"),
    "include": ("metadata:", "include: gone.yaml\nmetadata:", r"it includes .*gone\.yaml"),
    "function": ('"Question: ', '!function gone.text # "', "Cannot import module 'gone'"),
}
OF_THE_DATA = {
    "split": ("test_split: test\n", "test_split: tset\n", "its test_split is 'tset'"),
    "column": ("{{question}}", "{{quastion}}", "'quastion' is undefined"),
    "choices": ("doc_to_choice: choices", "doc_to_choice: chices", "its doc_to_choice, 'chices'"),
}


def faulty(definitions: Path, folder: Path, old: str, new: str) -> Path:
    """A definition with something else in it, called like its task."""
    text = (definitions / "local_choices.yaml").read_text()
    only_acc = "".join(line for line in text.splitlines(True) if "acc_norm" not in line)
    assert old in only_acc
    path = folder / "local_choices.yaml"
    path.write_text(only_acc.replace(old, new))
    return path


def load(tasks: object, folder: Path) -> None:
    with quiet_harness():
        load_tasks(tasks, include_path=folder)  # type: ignore[arg-type]


@pytest.mark.parametrize(("old", "new", "said"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("by_path", [False, True])
@pytest.mark.usefixtures("no_tasks_of_its_own")
def test_the_file_and_its_fault_are_named(
    definitions: Path, tmp_path: Path, old: str, new: str, said: str, by_path: bool
) -> None:
    path = faulty(definitions, tmp_path, old, new)
    with pytest.raises(FormatError, match=said) as caught:
        load(str(path) if by_path else "local_choices", tmp_path)
    assert caught.value.path == path


@pytest.mark.parametrize(("old", "new", "said"), OF_THE_DATA.values(), ids=OF_THE_DATA)
def test_what_does_not_go_with_the_data(
    definitions: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    path = faulty(definitions, tmp_path, old, new)
    with pytest.raises(ArgumentError, match=said) as caught:
        load("local_choices", tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n", "no keys with their values"),
        ("", "no keys with their values"),
        ("group: mine\ntask: [gone]\n", "no task 'gone'"),
        ("group: mine\ntask: 7\n", "its task is 7"),
        ("group: mine\ntask: [{a: 1}]\n", "neither a task nor a group"),
    ],
)
@pytest.mark.usefixtures("no_tasks_of_its_own")
def test_of_what_is_no_task(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(FormatError, match=said):
        load("mine", tmp_path)


@pytest.mark.usefixtures("no_tasks_of_its_own")
def test_the_member_of_a_group_is_named(definitions: Path, tmp_path: Path) -> None:
    path = faulty(definitions, tmp_path, "multiple_choice", "choice")
    (tmp_path / "mine.yaml").write_text("group: mine\ntask: [local_choices]\n")
    with pytest.raises(FormatError, match="its output_type is 'choice'") as caught:
        load("mine", tmp_path)
    assert caught.value.path == path


@pytest.mark.usefixtures("no_tasks_of_its_own")
def test_another_faulty_file_beside_does_not_matter(definitions: Path, tmp_path: Path) -> None:
    faulty(definitions, tmp_path, "task: local_choices", "task: good")
    (tmp_path / "bad.yaml").write_text("task: [bad\n")
    load("good", tmp_path)
    with pytest.raises(ArgumentError, match="no task 'other'"):
        load("other", tmp_path)


@pytest.mark.usefixtures("no_tasks_of_its_own")
def test_what_a_group_gives_need_not_be_in_the_task(definitions: Path, tmp_path: Path) -> None:
    faulty(definitions, tmp_path, "dataset_path: json\n", "")
    (tmp_path / "mine.yaml").write_text("group: mine\ntask: [local_choices]\ndataset_path: json\n")
    load("mine", tmp_path)


def test_good_definitions_have_no_fault(definitions: Path) -> None:
    for path in definitions.glob("*.yaml"):
        assert fault_of(path) is None
