from pathlib import Path

import pytest

from pythia_fast.errors import ArgumentError, HubError, ReadError
from pythia_fast.evaluation import tasks as tasks_module
from pythia_fast.evaluation.quiet import quiet_harness
from pythia_fast.evaluation.tasks import SUITE, _wanted, load_tasks, task_names


def load(tasks, definitions, **more):
    with quiet_harness():
        return load_tasks(tasks, include_path=definitions, **more)


def test_requests_are_built_once_and_asked_again(definitions):
    loaded = load("local_choices, local_rolling", definitions, limit=4)
    by_kind = loaded.requests()
    assert {kind: len(some) for kind, some in by_kind.items()} == {
        "loglikelihood": 12,
        "loglikelihood_rolling": 4,
    }
    task = loaded.tasks["local_choices"]
    before = task.instances
    before[0].resps.append((1.0, True))
    loaded.forget_answers()
    task.build_all_requests(limit=2)
    assert task.instances is before
    assert before[0].resps == []


def test_a_limit_below_one_is_a_share(definitions):
    assert len(load("local_choices", definitions, limit=0.25).tasks["local_choices"].instances) == 9


def test_examples_stand_before_questions(definitions):
    prompts = {}
    for shots in (0, 2):
        loaded = load("local_choices", definitions, num_fewshot=shots)
        prompts[shots] = loaded.tasks["local_choices"].instances[0].args[0]
    assert prompts[2].endswith(prompts[0])
    assert prompts[2].count("Question: ") == 3


def test_what_determines_the_results_is_in_the_identity(definitions):
    first = load("local_choices", definitions).identity()
    assert load("local_choices", definitions).identity() == first
    assert load("local_choices", definitions, num_fewshot=1).identity() != first
    assert load("local_choices", definitions, limit=3).identity() != first
    assert first["local_choices"]["version"] == "1.0"


def test_patterns_and_groups(definitions, own_tasks_only):
    assert set(load("local_*e*d", definitions).tasks) == {"local_generated"}
    group = load("local_group", definitions)
    assert set(group.tasks) == {"local_choices", "local_twin"}
    assert set(group.found["groups"]) == {"local_group"}


def test_configurations_and_task_objects(definitions):
    (task,) = load("local_rolling", definitions).tasks.values()
    config = {
        "task": "of_my_own",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(definitions / "texts.jsonl")}},
        "test_split": "test",
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "byte_perplexity"}],
    }
    assert set(load([config, task], None).tasks) == {"of_my_own", "local_rolling"}


def test_the_names_of_the_suite():
    assert len(SUITE) == 11
    assert _wanted("suite,piqa") == list(SUITE)
    assert _wanted(["a", "suite"]) == ["a", *SUITE]


def test_the_harness_knows_the_suite(monkeypatch):
    """Where its definitions lie; to read all of them takes ten seconds."""
    import lm_eval.tasks

    root = Path(lm_eval.tasks.__file__).parent
    folders = [root / name for name in ("lambada", "wikitext", "piqa", "sciq", "super_glue")]
    folders += [root / name for name in ("winogrande", "arc", "logiqa", "blimp", "mmlu/default")]
    manager = lm_eval.tasks.TaskManager(include_path=folders, include_defaults=False)
    monkeypatch.setattr(tasks_module, "_own_tasks", lambda: manager)
    names = task_names()
    assert set(SUITE) <= set(names)
    _, some = tasks_module._resolved(["blimp_anaphor_*", "piqa"], ())
    assert some == ["blimp_anaphor_gender_agreement", "blimp_anaphor_number_agreement", "piqa"]
    with pytest.raises(ArgumentError, match="near are lambada_openai"):
        load("lambada_openia", None)


@pytest.mark.parametrize("tasks", ["", (), [], " , "])
def test_no_tasks(tasks, definitions):
    with pytest.raises(ArgumentError, match="none were given"):
        load(tasks, definitions)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ("local_choises", "no task 'local_choises'; near are local_choices"),
        (["local_rolling", "rolling"], "no task 'rolling'; near are local_rolling"),
        ("nothing_*", "no task 'nothing_\\*'"),
        ([7], "cannot be loaded: TypeError"),
        ({"dataset_path": "json"}, "cannot be loaded"),
    ],
)
def test_unknown_tasks(tasks, said, definitions, own_tasks_only):
    with pytest.raises(ArgumentError, match=said):
        load(tasks, definitions)


def test_more_examples_than_there_are(definitions):
    with pytest.raises(ArgumentError, match=r"task local_choices with num_fewshot=50 cannot"):
        load("local_choices", definitions, num_fewshot=50)


def test_a_task_without_documents(definitions, tmp_path):
    text = (definitions / "rolling.yaml").read_text()
    (tmp_path / "empty.jsonl").write_text('{"text": ""}\n')
    empty = "process_docs: !function none.keep_none\n"
    (tmp_path / "none.py").write_text("def keep_none(docs):\n    return docs.select([])\n")
    (tmp_path / "rolling.yaml").write_text(
        text.replace("local_rolling", "local_empty").replace("doc_to_text", empty + "doc_to_text")
    )
    with pytest.raises(ArgumentError, match=r"local_empty cannot be loaded|local_empty .* built"):
        load("local_empty", tmp_path)


def test_data_that_the_network_would_bring(monkeypatch, tmp_path, definitions):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    text = (definitions / "rolling.yaml").read_text().replace("local_rolling", "far_away")
    lines = [line for line in text.split("\n") if not line.startswith("dataset_")]
    (tmp_path / "far.yaml").write_text("\n".join([*lines, "dataset_path: nobody/nothing"]))
    with pytest.raises(HubError, match=r"the data of far_away cannot be had: .*include_path"):
        load("far_away", tmp_path)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ReadError, match="is no folder"):
        task_names(tmp_path / "nothing")
