"""A tree like the suite's `evals/`, written here: its names, its oddities and its broken files."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from evals_tree import RESULTS, harness, neox, write

from pythia_fast.analysis import compare, published
from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation.tidy import TIDY
from pythia_fast.suite import ModelSpec, models


def one(root: Path, name: str, content: Any) -> dict[str, Any]:
    """The first row of a tree with that one file."""
    write(root, name, content)
    return published(root).to_pylist()[0]


def test_a_number_is_a_row_in_tidy_columns(tmp_path: Path) -> None:
    name = "pythia-v1/pythia-70m/five-shot/70m-5shot_step1000.json"
    write(tmp_path, name, harness("EleutherAI/pythia-v1.1-70m", 1000, 5))
    table = published(tmp_path)
    assert table.schema.names[: len(TIDY)] == TIDY.names
    assert [table.schema.field(each.name).type for each in TIDY] == [each.type for each in TIDY]
    perplexity, accuracy = table.to_pylist()
    assert perplexity == {
        "model": "70m",
        "step": 1000,
        "task": "lambada_openai",
        "metric": "ppl",
        "num_fewshot": 5,
        "value": 142.4,
        "stderr": 6.0,
        "release": "v1",
        "variant": None,
        "prompt": None,
        "trained_steps": 1000,
        "task_version": "0",
        "limit": None,
        "harness_model": "hf-causal",
        "evaluated": "EleutherAI/pythia-v1.1-70m",
        "file": name,
        "duplicate_of": None,
        "status": "ok",
        "problem": None,
    }
    assert (accuracy["metric"], accuracy["value"], accuracy["stderr"]) == ("acc", 0.18, 0.01)


V0 = "pythia-v0/pythia-{0}/zero-shot/pythia-{0}-0shot-global_step{1}_eval_results_12-30-2022.json"


@pytest.mark.parametrize(
    ("name", "content", "model", "step", "trained", "variant"),
    [
        # Real steps in the files of the first release; half of the label where batches were 4M.
        (V0.format("1.4b", 71500), neox(71500, "/ckpts/1.3B"), "1.4b-v0", 143000, 71500, None),
        (
            V0.format("160m-deduped", 1500),
            neox(1500, "/c/125M_dedup"),
            "160m-deduped-v0",
            3000,
            1500,
            None,
        ),
        (V0.format("410m", 36500), neox(36500, "/c/350M"), "410m-v0", 73000, 36500, None),
        (V0.format("12b", 103000), neox(103000, "/c/staged"), "12b-v0", 103000, 103000, None),
        # Old sizes outside of these folders.
        (
            "bias-evals/pythia-350m-deduped-step11500_eval_results_01-23-2023-01-36-34.json",
            neox(11500, "/c/350M_dedup"),
            "410m-deduped-v0",
            23000,
            11500,
            None,
        ),
        (
            "bias-evals/pythia-6.9b-deduped-step3000_eval_results_01-23-2023-01-36-34.json",
            neox(3000, "/c/6.7B_dedup"),
            "6.9b-deduped-v0",
            3000,
            3000,
            None,
        ),
        (
            "bias-evals/long-intervention-1.3b-deduped-step57000_eval_results_01-23-2023.json",
            neox(57000, "/c/1.3B_dedup_genderintervention_56500start"),
            "1.4b-deduped-v0",
            114000,
            57000,
            "long-intervention",
        ),
        # WinoBias: the size is the folder's, the rest the configuration's.
        (
            "pythia-v0/winobias/intervene_7/6.7B/eval_results_01-25-2023-13-28-09.json",
            neox(136000, "/c/6.7B_intervened"),
            "6.9b-deduped-v0",
            136000,
            136000,
            "intervention",
        ),
        (
            "bias-evals/winobias/1.4B/eval_results_03-11-2023-03-30-10.json",
            neox(3000, "/c/1.4b_deduped"),
            "1.4b-deduped",
            3000,
            3000,
            None,
        ),
        (
            "bias-evals/winobias/intervene_21/1.4B/eval_results_1.4b-deduped-long_114000.json",
            {
                "table_results": RESULTS,
                "model_args": {"iteration": 114000, "config_files": {"1.4b-deduped-long": None}},
            },
            "1.4b-deduped",
            114000,
            114000,
            "long-intervention",
        ),
        # The second release and its variants.
        (
            "pythia-v1/pythia-410m-deduped/baseline/baseline-410m-deduped_step134000.json",
            harness("EleutherAI/pythia-v1.1-410m-deduped", 134000),
            "410m-deduped",
            134000,
            134000,
            "baseline",
        ),
        (
            "pythia-v1/pythia-1.4b-deduped/intervention/intervention-1.4b-deduped-long_step114000.json",
            harness("EleutherAI/intervention-pythia-v1.1-1.4b-deduped-long", 114000),
            "1.4b-deduped",
            114000,
            114000,
            "long-intervention",
        ),
        (
            "pythia-v1/pythia-160m-0.5MtokBS/160m-0.5MtokBS_step492000.json",
            harness("EleutherAI/pythia-v1.1-160m-0.5MtokBS", 492000, 5),
            "160m",
            492000,
            492000,
            "0.5MtokBS",
        ),
        (
            "pythia-v1/pythia-1b-bf16/five-shot/1b-5shot_step103000.json",
            harness("EleutherAI/pythia-v1.1-1b-bf16", 103000, 5),
            "1b",
            103000,
            103000,
            "bf16",
        ),
        # Others' own runs of today's harness.
        (
            "mine/results_2026.json",
            harness("EleutherAI/pythia-160m-seed3", 512),
            "160m-seed3",
            512,
            512,
            None,
        ),
    ],
)
def test_which_checkpoint_a_file_is_about(
    tmp_path: Path,
    name: str,
    content: Any,
    model: str,
    step: int,
    trained: int,
    variant: str | None,
) -> None:
    row = one(tmp_path, name, content)
    found = (row["model"], row["step"], row["trained_steps"], row["variant"], row["status"])
    assert found == (model, step, trained, variant, "ok")
    assert row["release"] == (
        "v0" if model.endswith("-v0") else "polypythias" if "seed" in model else "v1"
    )


@pytest.mark.parametrize(
    "model", [model for model in models() if model.variant], ids=lambda model: model.name
)
def test_an_intervened_model_is_the_base_and_variant_of_its_spec(
    tmp_path: Path, model: ModelSpec
) -> None:
    """By its repository of today and of then, and by the name of a file alone."""
    step = model.steps[0]
    files = {
        "a/results_2026.json": harness(str(model.repo), step),
        "b/results_2023.json": harness(f"EleutherAI/{model.old_names[0]}", step),
        f"c/{model.name}_step{step}.json": neox(step, "/c/anything"),
    }
    for index, (name, content) in enumerate(files.items()):
        row = one(tmp_path / str(index), name, content)
        found = (row["model"], row["variant"], row["step"], row["release"], row["status"])
        assert found == (model.base, model.variant, step, "v1", "ok")


def test_an_intervened_model_is_compared_with_itself_and_not_with_its_base(tmp_path: Path) -> None:
    folder = "pythia-v1/pythia-70m-deduped"
    for name, acc in (
        ("intervention/intervention-70m-deduped_step134000", 0.25),
        ("zero-shot/70m-deduped_step134000", 0.5),
    ):
        results = {"arc_easy": {"acc": acc, "acc_stderr": 0.01}}
        repo = "intervention-pythia-v1.1" if "interven" in name else "pythia-v1.1"
        content = harness(f"EleutherAI/{repo}-70m-deduped", 134_000, results=results)
        write(tmp_path, f"{folder}/{name}.json", content)
    own = {"step": 134_000, "task": "arc_easy", "metric": "acc", "num_fewshot": 0}
    ours = pa.Table.from_pylist(
        [
            own | {"model": "intervention-70m-deduped", "value": 0.26, "stderr": 0.01},
            own | {"model": "70m-deduped", "value": 0.51, "stderr": 0.01},
        ],
        schema=TIDY,
    )
    found = {row["model"]: row["published"] for row in compare(ours, tmp_path).table.to_pylist()}
    assert found == {"intervention-70m-deduped": 0.25, "70m-deduped": 0.5}


def test_a_folder_of_the_tree_is_read_as_in_the_whole(tmp_path: Path) -> None:
    write(tmp_path, V0.format("1.4b", 1500), neox(1500, "/c/1.3B"))
    whole = published(tmp_path).drop_columns("file")
    assert published(tmp_path / "pythia-v0/pythia-1.4b").drop_columns("file").equals(whole)


def test_winobias_has_a_row_for_each_prompt(tmp_path: Path) -> None:
    entries = [
        {"task_name": "wino_bias_type1_pro", "prompt_name": prompt, "em": em, "em_stderr": 0.01}
        | {"prompt_jinja": "{{x}}", "subset": None, "prompt_original_task": True}
        for prompt, em in (("refers_to", 0.2), ("What does p stand for", 0.3))
    ]
    name = "pythia-v0/winobias/19M/eval_results_01-20-2023-23-52-37.json"
    write(tmp_path, name, neox(3000, "/c/19M_deduped", results=entries))
    rows = published(tmp_path).to_pylist()
    assert [(r["task"], r["metric"], r["prompt"], r["value"], r["stderr"]) for r in rows] == [
        ("wino_bias_type1_pro", "em", "refers_to", 0.2, 0.01),
        ("wino_bias_type1_pro", "em", "What does p stand for", 0.3, 0.01),
    ]
    assert {(row["model"], row["status"]) for row in rows} == {("70m-deduped-v0", "ok")}


def test_term_frequencies_are_a_csv_with_labels_as_steps(tmp_path: Path) -> None:
    write(
        tmp_path,
        "csv/pythia-1.3b-deduped/term_frquency_all_shots.csv",
        "model,checkpoint,task,fewshot,acc,acc_stderr\n"
        "EleutherAI/pythia-1.3b-deduped,13000,num_reasoning_0,16,0.82,0.05\n"
        "EleutherAI/pythia-1.3b-deduped,13000,num_reasoning_1,2,0.0,0.0\n"
        "EleutherAI/pythia-1.3b-deduped,13000,num_reasoning_2,2,many,\n",
    )
    table = published(tmp_path)
    assert set(table["model"].to_pylist()) == {"1.4b-deduped-v0"}
    assert set(table["step"].to_pylist()) == {13000}
    assert set(table["trained_steps"].to_pylist()) == {6500}
    rows = table.select(["task", "num_fewshot", "value", "stderr", "status"]).to_pylist()
    assert [tuple(row.values()) for row in rows] == [
        ("num_reasoning_0", 16, 0.82, 0.05, "ok"),
        ("num_reasoning_1", 2, 0.0, 0.0, "ok"),
        ("num_reasoning_2", 2, None, None, "unreadable"),
    ]
    assert "'many' is no number" in table["problem"].to_pylist()[2]


def test_the_harness_since_0_4_names_a_filter(tmp_path: Path) -> None:
    content = harness("EleutherAI/pythia-70m", 0, None)
    content["results"] = {
        "sciq": {"alias": "sciq", "acc,none": 0.5, "acc_stderr,none": "N/A"},
        "gsm8k": {"exact_match,strict": 0.1, "exact_match_stderr,strict": 0.02},
    }
    content["n-shot"] = {"sciq": 0, "gsm8k": 8}
    write(tmp_path, "results.json", content)
    rows = published(tmp_path).to_pylist()
    assert [(r["metric"], r["value"], r["stderr"], r["num_fewshot"]) for r in rows] == [
        ("acc", 0.5, None, 0),
        ("exact_match,strict", 0.1, 0.02, 8),
    ]


GOOD = "pythia-v1/pythia-70m/zero-shot/70m_step{}.json"


def test_what_is_not_of_the_suite_is_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "opt/opt-1.3b.json", harness("facebook/opt-1.3b", None))
    write(tmp_path, "opt/opt-6.7b.json", "{")
    write(tmp_path, "mine/13t_step3.json", harness("me/pythia-13t", 3))
    write(tmp_path, "README.md", "# Evaluation results")
    write(tmp_path, ".git/config.json", harness("EleutherAI/pythia-70m", 1))
    write(tmp_path, "csv/a.csv", "x,y\n1,2\n")
    write(tmp_path, "csv/b.csv", "model,checkpoint,task,fewshot,acc\nfacebook/opt-1b,1,t,0,0.5\n")
    rows = {row["file"]: row for row in published(tmp_path).to_pylist()}
    found = {name: (row["model"], row["status"]) for name, row in rows.items()}
    assert found == {
        "opt/opt-1.3b.json": ("opt-1.3b", "foreign"),
        "opt/opt-6.7b.json": (None, "unreadable"),
        "mine/13t_step3.json": (None, "foreign"),
        "README.md": (None, "other"),
        "csv/a.csv": (None, "unreadable"),
        "csv/b.csv": ("facebook/opt-1b", "foreign"),
    }
    assert rows["opt/opt-1.3b.json"]["value"] == 0.18
    assert "no column checkpoint, model, task" in rows["csv/a.csv"]["problem"]


def test_a_folder_that_only_begins_like_a_model_is_none(tmp_path: Path) -> None:
    content = {"results": RESULTS, "config": {"num_fewshot": 0}}
    row = one(tmp_path / "70m-work" / "intervention-notes", "a/step3/results.json", content)
    assert (row["model"], row["variant"], row["status"]) == (None, None, "foreign")
    row = one(tmp_path / "410M", "eval_results_01-20-2023.json", content)
    assert (row["model"], row["status"]) == ("410m", "doubtful")
    assert "which step" in row["problem"]


def test_a_file_that_contradicts_its_name_is_doubtful(tmp_path: Path) -> None:
    shots = "pythia-v0/pythia-160m/five-shot/pythia-160m-5shot-global_step1500_eval_results.json"
    row = one(tmp_path / "a", shots, neox(1500, "/c/125M", shots=0))
    assert (row["num_fewshot"], row["status"]) == (0, "doubtful")
    assert "named 5-shot, but its configuration says 0" in row["problem"]
    row = one(tmp_path / "b", GOOD.format(64), harness("EleutherAI/pythia-70m", 128))
    assert (row["step"], row["status"]) == (128, "doubtful")
    assert "step 64" in row["problem"]
    # Where name and folder disagree with each other, the configuration decides.
    name = "pythia-v1/pythia-1b-bf16/zero-shot/1b-bf16-5shot_step1000.json"
    row = one(tmp_path / "c", name, harness("EleutherAI/pythia-v1.1-1b-bf16", 1000, 0))
    assert (row["num_fewshot"], row["status"]) == (0, "ok")
    assert "named 5-shot" in row["problem"]


def test_a_step_that_the_suite_does_not_have_is_remarked_on(tmp_path: Path) -> None:
    row = one(tmp_path, GOOD.format(1500), harness("EleutherAI/pythia-70m", 1500))
    assert (row["step"], row["status"]) == (1500, "ok")
    assert "no checkpoint 1500" in row["problem"]


def test_no_folder_is_told_and_an_empty_one_is_an_empty_table(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="give evals/"):
        published(tmp_path / "none")
    table = published(tmp_path)
    assert len(table) == 0
    assert table.schema.names[:3] == ["model", "step", "task"]
