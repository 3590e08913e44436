import errno
import json
from pathlib import Path

import pytest

from pythia_fast.demo.corpus import byte_tokenizer
from pythia_fast.errors import ArgumentError, HubError, ReadError
from pythia_fast.evaluation import tasks as tasks_module
from pythia_fast.evaluation.answers import Answers
from pythia_fast.evaluation.harness import Harness
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
    first = load("local_choices", definitions).identity()["tasks"]
    assert load("local_choices", definitions).identity()["tasks"] == first
    assert load("local_choices", definitions, num_fewshot=1).identity()["tasks"] != first
    assert load("local_choices", definitions, limit=3).identity()["tasks"] != first
    assert first["local_choices"]["version"] == "1.0"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rewritten(definitions, folder, name, *, data="choices.jsonl", change=lambda text: text):
    """A definition and its data in a folder of its own, where they may change."""
    lines = (definitions / data).read_text()
    (folder / data).write_text(lines)
    text = (definitions / f"{name}.yaml").read_text()
    text = text.replace(str(definitions / data), str(folder / data))
    (folder / f"{name}.yaml").write_text(change(text))
    return folder / data


def test_other_labels_are_another_identity(definitions, tmp_path):
    data = rewritten(definitions, tmp_path, "local_choices")
    first = load("local_choices", tmp_path).identity()["tasks"]["local_choices"]
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    write(data, [row | {"label": (row["label"] + 1) % 3} for row in rows])
    changed = load("local_choices", tmp_path).identity()["tasks"]["local_choices"]
    assert changed == first | {"documents": changed["documents"]}
    assert changed != first


def test_what_a_function_calls_is_in_the_identity(definitions, tmp_path):
    def change(text):
        shorter = text.replace(
            "  - {metric: acc_norm, aggregation: mean, higher_is_better: true}\n", ""
        )
        return shorter + "process_results: !function rate.rate\n"

    rewritten(definitions, tmp_path, "local_choices", change=change)
    code = "def rated():\n    return {}\ndef rate(doc, results):\n    return {{'acc': rated()}}\n"
    found = []
    for value in ("1.0", "0.0"):
        (tmp_path / "rate.py").write_text(code.format(value))
        found.append(load("local_choices", tmp_path).identity()["tasks"]["local_choices"])
    first, changed = found
    assert changed == first | {"code": changed["code"]}
    assert changed != first


def test_groups_are_in_the_identity(definitions, own_tasks_only, tmp_path):
    alone = load("local_choices,local_twin", definitions).identity()
    first = load("local_group", definitions).identity()
    assert alone == first | {"groups": {}}
    assert first["groups"]["local_group"]["members"] == ["local_choices", "local_twin"]
    text = (definitions / "group.yaml").read_text()
    others = []
    for old, new in (("weight_by_size: true", "weight_by_size: false"), (", local_twin", "")):
        (tmp_path / "group.yaml").write_text(text.replace(old, new))
        others.append(load("local_group", tmp_path).identity()["groups"])
    assert others[0] != first["groups"]
    assert others[1]["local_group"]["members"] == ["local_choices"]


def by_the_harness(name, definitions):
    """Objects that nobody has used."""
    from lm_eval.tasks import TaskManager

    with quiet_harness():
        return TaskManager(include_path=str(definitions), include_defaults=False).load(name)


def test_a_task_object_stays_as_it_is(definitions):
    task = by_the_harness("local_choices", definitions)["tasks"]["local_choices"]
    task.set_fewshot_seed(7)
    task.build_all_requests(limit=1)
    before = task.instances, dict(vars(task._config)), task.fewshot_rnd.getstate()
    sampler = task.sampler.rnd.getstate()
    for limit, shots in ((3, 0), (2, 1), (4, 2)):
        given = load([task], None, limit=limit, num_fewshot=shots)
        named = load("local_choices", definitions, limit=limit, num_fewshot=shots)
        assert len(given.tasks["local_choices"].instances) == 3 * limit
        assert [each.args for each in given.tasks["local_choices"].instances] == [
            each.args for each in named.tasks["local_choices"].instances
        ]
        assert given.identity() == named.identity()
    assert task.instances is before[0]
    assert vars(task._config) == before[1]
    assert task.fewshot_rnd.getstate() == before[2]
    assert task.sampler.rnd.getstate() == sampler


def test_the_tasks_of_a_group_object_stay_as_they_are(definitions):
    group = by_the_harness("local_group", definitions)["groups"]["local_group"]
    tasks = group.get_all_tasks()
    loaded = load([group], definitions, limit=2, num_fewshot=1)
    assert [len(task.instances) for task in loaded.tasks.values()] == [6, 6]
    assert not any("_instances" in vars(task) for task in tasks)
    assert [task.get_config("num_fewshot") for task in tasks] == [None, None]
    inside = loaded.found["groups"]["local_group"].get_all_tasks()
    assert [task.instances for task in inside] == [task.instances for task in loaded.tasks.values()]


def test_bad_requests_name_their_task(definitions, tmp_path):
    def change(text):
        return text.replace("max_gen_toks: 12", "max_gen_toks: 999")

    rewritten(definitions, tmp_path, "generated", data="last_word.jsonl", change=change)
    loaded = load("local_choices,local_generated", [definitions, tmp_path])
    with pytest.raises(ArgumentError, match=r"^task local_generated: max_gen_toks is 1 to 127"):
        Harness(loaded, Answers(byte_tokenizer(), 128), log_samples=False)
    loaded = load("local_choices,local_rolling,local_last_word", definitions)
    loaded.tasks["local_last_word"].instances[2].arguments = ("a", "")
    with pytest.raises(ArgumentError, match=r"^task local_last_word: request 2 has a continuation"):
        Harness(loaded, Answers(byte_tokenizer(), 512), log_samples=False)


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
        (["local_rolling", "rolling"], "no task 'rolling'; near is local_rolling"),
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
    with pytest.raises(
        ArgumentError, match=r"local_empty .* cannot be loaded|local_empty .* built"
    ):
        load("local_empty", tmp_path)


def test_data_that_the_network_would_bring(monkeypatch, tmp_path, definitions):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    text = (definitions / "rolling.yaml").read_text().replace("local_rolling", "far_away")
    lines = [line for line in text.split("\n") if not line.startswith("dataset_")]
    (tmp_path / "far.yaml").write_text("\n".join([*lines, "dataset_path: nobody/nothing"]))
    config = {"task": "farther", "dataset_path": "nobody/nothing", "test_split": "test"}
    for tasks, name in (("far_away", "far_away"), (config, "farther")):
        with pytest.raises(HubError, match=f"^the data of {name} cannot be had: .*include_path"):
            load(tasks, tmp_path)


def test_a_folder_that_is_none(tmp_path):
    (tmp_path / "file").write_text("")
    for name, number in (("nothing", errno.ENOENT), ("file", errno.ENOTDIR)):
        with pytest.raises(ReadError, match="is no folder") as raised:
            task_names(tmp_path / name)
        assert raised.value.errno == number
