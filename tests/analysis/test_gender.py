"""gender_bias on tables made by hand."""

import math

import pyarrow as pa
import pytest
import scipy.stats
from statsmodels.stats.multitest import multipletests

import pythia_fast
from pythia_fast.analysis.gender import gender_bias
from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation.tidy import TIDY

PROMPTS = ("What does p stand for", "refers_to")


def measures(study, **wanted):
    return {
        row["measure"]: row
        for row in study.table.to_pylist()
        if all(row[name] == value for name, value in wanted.items())
    }


def test_the_numbers_of_one_checkpoint(table, rows, wino):
    study = gender_bias(table(rows(crows=(0.63, 0.027), wino=wino())), level=0.9)
    found = measures(study)
    assert list(found) == ["crows-pairs", "winobias type 1", "winobias type 2", "winobias"]
    z = scipy.stats.norm.ppf(0.95)
    crows = found["crows-pairs"]
    assert (crows["value"], crows["stderr"]) == (0.63, 0.027)
    assert crows["low"] == pytest.approx(0.63 - z * 0.027)
    assert crows["high"] == pytest.approx(0.63 + z * 0.027)
    first, second, both = (found[f"winobias{kind}"] for kind in (" type 1", " type 2", ""))
    assert (first["pro"], first["anti"]) == (pytest.approx(0.55), pytest.approx(0.4))
    assert first["value"] == pytest.approx(0.15)
    assert second["value"] == pytest.approx(0.075)
    assert both["value"] == pytest.approx((0.15 + 0.075) / 2)
    assert both["accuracy"] == pytest.approx((0.55 + 0.4 + 0.15 + 0.075) / 4)
    # Two prompts on the same sentences: as uncertain as one. Pro, anti and the types: independent.
    task = math.sqrt((0.02**2 + 0.04**2) / 2)
    assert first["stderr"] == second["stderr"] == pytest.approx(task * math.sqrt(2))
    assert both["stderr"] == pytest.approx(task)
    assert both["accuracy_stderr"] == pytest.approx(task / 2)
    assert first["prompts"] == "refers_to, stands_for"


def test_intervened_models_against_their_base(table, rows, wino):
    study = gender_bias(
        table(
            rows(crows=(0.63, 0.03), wino=wino()),
            rows(step=142_000, crows=(0.6, 0.03)),
            rows(variant="baseline", step=141_000, crows=(0.61, 0.03)),
            rows(variant="intervention", crows=(0.60, 0.04), wino=wino(0.1)),
            rows(variant="intervention", step=141_000, crows=(0.60, 0.04)),
            rows(variant="intervention", step=140_000, crows=(0.60, 0.04)),
            rows(variant="0.5MtokBS", crows=(0.9, 0.04)),
        )
    )
    effects = study.details["effects"].to_pylist()
    assert [(row["step"], row["measure"]) for row in effects] == [
        (141_000, "crows-pairs"),
        (143_000, "crows-pairs"),
        *((143_000, f"winobias{kind}") for kind in (" type 1", " type 2", "")),
    ]
    crows = effects[1]
    assert (crows["base"], crows["intervened"]) == (0.63, 0.60)
    assert crows["z"] == pytest.approx(-0.03 / math.hypot(0.03, 0.04))
    assert crows["p"] == pytest.approx(2 * scipy.stats.norm.cdf(crows["z"]))
    assert effects[-1]["difference"] == pytest.approx(0.1)
    assert study.summary["models"] == 1
    key = "crows-pairs, 410m-deduped, intervention minus base at step 143,000"
    assert study.summary[key] == "-0.030, standard error 0.050"
    p = [row["p"] for row in effects]
    corrected = multipletests(p, method="holm")[1]
    assert [row["p_holm"] for row in effects] == pytest.approx(corrected)
    assert corrected[0] != p[0]


def test_names_of_intervened_models_of_ours(table, rows, wino):
    ours = [
        row | {"task": f"{row['task']}_{row['prompt']}", "prompt": None}
        for row in rows("EleutherAI/pythia-intervention-410m-deduped", wino={
            key: value for key, value in wino().items() if key[2] == "refers_to"
        })
    ]  # fmt: skip
    (row, *_) = gender_bias(table(ours)).table.to_pylist()
    assert (row["model"], row["variant"]) == ("410m-deduped", "intervention")
    assert row["prompts"] == "refers_to"
    for name in ("long-intervention-1.4b-deduped", "pythia-intervention-long-1.4b-deduped"):
        (row,) = gender_bias(table(rows(name, crows=(0.5, None)))).table.to_pylist()
        assert (row["model"], row["variant"]) == ("1.4b-deduped", "long-intervention")
    assert row["stderr"] is row["low"] is row["high"] is None


@pytest.mark.parametrize(
    "model", [model for model in pythia_fast.models() if model.variant], ids=lambda m: m.name
)
def test_the_suite_s_intervened_models_as_evaluate_names_them(model, table, rows, wino):
    """Beside their base, both with the columns of an evaluation: no variant, no prompt."""

    def evaluated(name, step, shift):
        kept = {key: each for key, each in wino(shift).items() if key[2] == "refers_to"}
        found = rows(name, step=step, crows=(0.6 - shift, 0.03), wino=kept)
        for row in found:
            row["task"] += f"_{row['prompt']}" if row["prompt"] else ""
            del row["variant"], row["prompt"]
        return table([{key: row[key] for key in TIDY.names} for row in found]).cast(TIDY)

    first, last = model.steps[0], model.steps[-1]
    study = gender_bias(
        [
            *(evaluated(model.base, step, 0.0) for step in (model.branch_step, first, last)),
            *(evaluated(model.name, step, 0.1) for step in (first, last)),
        ]
    )
    assert set(study.table["model"].to_pylist()) == {model.base}
    assert set(study.table["variant"].to_pylist()) == {None, model.variant}
    effects = [row for row in study.details["effects"].to_pylist() if row["measure"] == "winobias"]
    assert [(row["variant"], row["step"]) for row in effects] == [
        (model.variant, first),
        (model.variant, last),
    ]
    assert [row["difference"] for row in effects] == pytest.approx([0.1, 0.1])
    assert gender_bias(evaluated(model.repo, last, 0.1)).table["variant"][0].as_py() == (
        model.variant
    )


def test_a_folder_called_like_an_intervened_model(table, rows):
    for name, variant in (
        ("intervention-mine", "intervention"),
        ("long-intervention-mine", "long-intervention"),
        ("mine", None),
    ):
        (row,) = gender_bias(table(rows(name, crows=(0.5, 0.1)))).table.to_pylist()
        assert (row["model"], row["variant"]) == ("mine", variant)


def test_prompts_that_not_all_tasks_have_do_not_count(table, rows, wino):
    half = {
        key: value
        for key, value in wino().items()
        if key
        not in {("1", "pro", "refers_to"), ("2", "anti", PROMPTS[0]), ("2", "anti", PROMPTS[1])}
    }
    found = measures(gender_bias(table(rows(wino=half))))
    assert list(found) == ["winobias type 1"]
    assert found["winobias type 1"]["prompts"] == "stands_for"
    assert found["winobias type 1"]["value"] == pytest.approx(0.5 - 0.3)


def test_models_are_chosen_and_problems_left_out(table, rows):
    both = table(
        rows("1b", crows=(0.6, 0.1), status="ok"),
        rows("70m", crows=(0.5, 0.1), status="ok"),
        rows("70m", crows=(0.4, 0.1), status="doubtful"),
        rows("70m", step=1, crows=(None, 0.1), status="ok"),
    )
    assert set(gender_bias(both).table["model"].to_pylist()) == {"1b", "70m"}
    (row,) = gender_bias(both, models=["70m"]).table.to_pylist()
    assert row["value"] == 0.5
    with pytest.raises(ArgumentError, match=r"no model '71m'; near is 70m"):
        gender_bias(both, models=["71m"])
    with pytest.raises(ArgumentError, match=r"no model 'nosuch'; there are 1b, 70m"):
        gender_bias(both, models=["nosuch"])


def test_rows_that_are_left_out_are_counted(table, rows, wino):
    lost = [
        *rows(crows=(0.4, 0.1), status="doubtful"),
        *rows(step=1, crows=(0.4, 0.1), status="doubtful"),
        *rows(step=2, crows=(math.nan, 0.1), status="ok"),
        *rows(step=None, crows=(0.4, 0.1), status="ok"),
        *rows(model=None, crows=(0.4, 0.1), status="ok"),
    ]
    more = [
        *rows(crows=(0.5, 0.1), status="ok"),
        {**rows(crows=(0.4, 0.1), status="duplicate")[0], "task": "sciq"},  # not of this study
    ]
    study = gender_bias(table(lost, more))
    assert len(study.table) == 1
    words = "2 doubtful, 2 of no checkpoint, 1 non-finite"
    assert study.summary["rows left out"] == words
    assert "rows left out" not in gender_bias(table(more)).summary
    with pytest.raises(ArgumentError, match=rf"{words} left out\): evaluate crows_pairs_english"):
        gender_bias(table(lost))
    half = {key: each for key, each in wino().items() if key[1] == "pro"}
    with pytest.raises(ArgumentError, match="only some of WinoBias' four tasks"):
        gender_bias(table(rows(wino=half)))
    with pytest.raises(ArgumentError, match="there is no row that can be used: evaluate"):
        gender_bias(table(more).slice(0, 0))


def test_what_is_wrong(table, rows):
    good = table(rows(crows=(0.6, 0.1)))
    with pytest.raises(ArgumentError, match="two results have crows-pairs of 410m-deduped at step"):
        gender_bias([good, good])
    with pytest.raises(ArgumentError, match="has no 'stderr'"):
        gender_bias(good.drop(["stderr"]))
    for wrong in ("runs/1", [3], 3):
        with pytest.raises(ArgumentError, match="EvaluationResults or their tables"):
            gender_bias(wrong)
    for level in (95, "0.95", None, True, math.nan):
        with pytest.raises(ArgumentError, match="level is"):
            gender_bias(good, level=level)
    with pytest.raises(ArgumentError, match="'log' or 'linear', not 'lin'"):
        gender_bias(good, steps_axis="lin")
    for models in (3, [3]):
        with pytest.raises(ArgumentError, match="model"):
            gender_bias(good, models=models)
    words = pa.array(["many"] * len(good))
    with pytest.raises(ArgumentError, match=r"column 'value' .* is double, not string"):
        gender_bias(good.set_column(good.schema.get_field_index("value"), "value", words))
