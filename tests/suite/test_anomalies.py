import pytest

from pythia_fast.errors import UnknownModelError
from pythia_fast.suite import STEPS, Architecture, ModelSpec, anomalies, card, models, spec, table


def reported(name):
    return [anomaly for anomaly in anomalies(name) if anomaly.issue != 83]


@pytest.mark.parametrize("model", models(), ids=lambda model: model.name)
def test_every_anomaly_is_about_steps_that_the_model_has(model):
    for anomaly in anomalies(model):
        assert anomaly.model == model.name
        assert anomaly.steps
        assert set(anomaly.steps) <= set(model.steps)
        assert list(anomaly.steps) == sorted(set(anomaly.steps))
        assert anomaly.url == f"https://github.com/EleutherAI/pythia/issues/{anomaly.issue}"
        assert anomaly.meaning


@pytest.mark.parametrize("model", models(), ids=lambda model: model.name)
def test_step_0_is_step_1_wherever_both_were_kept_from_one_run(model):
    same = [anomaly for anomaly in anomalies(model) if anomaly.issue == 83]
    if (
        model.base is not None
        or "v0" in model.name
        or model.name in ("160m-weight-seed1", "160m-weight-seed2")
    ):
        assert same == []
    else:
        [anomaly] = same
        assert anomaly.steps == (0, 1)
        assert anomaly.kind == "identical"
        assert anomaly.expected


def test_the_safetensors_of_2_8b():
    like_main, second = reported("2.8b")
    assert (len(like_main.steps), len(second.steps)) == (76, 10)
    assert len({*like_main.steps, *second.steps}) == 86  # so that 68 of 154 are unique
    assert {0, 1, 512, 1_000, 53_000, 55_000, 103_000, 140_000} <= set(like_main.steps)
    assert second.steps == (
        *(54_000, 56_000, 57_000, 58_000, 59_000, 61_000, 62_000, 63_000, 64_000, 143_000),
    )
    assert {like_main.issue, second.issue} == {205}
    assert {like_main.files, second.files} == {"model.safetensors"}
    assert reported("2.8b-deduped") == []


def test_the_other_reports():
    mixed = next(a for a in reported("12b") if not a.mended)
    assert (mixed.steps, mixed.issue, mixed.kind) == ((50_000, 58_000), 206, "wrong weights")
    for name in ("160m-weight-seed1", "160m-weight-seed2"):
        [anomaly] = reported(name)
        assert anomaly.issue == 203
        assert anomaly.steps == STEPS[1:]
    for name, step in (("410m-seed9", 40_000), ("410m-seed6", 88_000), ("410m-seed2", 111_000)):
        [anomaly] = reported(name)
        assert (anomaly.steps, anomaly.issue, anomaly.kind) == ((step,), 202, "missing")
    [replaced] = reported("12b-deduped")
    assert replaced.mended
    assert (replaced.steps, replaced.issue) == ((32_000,), 108)


def test_old_names_work_and_unknown_ones_do_not():
    assert anomalies("EleutherAI/pythia-2.7b") == anomalies("2.8b")
    with pytest.raises(UnknownModelError):
        anomalies("3b")


def local() -> ModelSpec:
    shape = Architecture(
        layers=2, width=96, heads=3, vocab_rows=512, intermediate=384, rotary_dims=8
    )
    return ModelSpec.local("2.8b", shape, (0, 1, 100))


def test_a_local_folder_has_no_history_even_under_a_known_name():
    assert anomalies(local()) == ()


@pytest.mark.parametrize("model", [*models(), local()], ids=lambda model: model.name)
def test_a_card_fits_a_terminal_and_says_no_none(model):
    text = card(model)
    assert all(len(line) <= 100 and line == line.rstrip() for line in text.splitlines())
    assert "None" not in text
    assert f"{model.parameters:,}" in text
    assert str(model.steps[-1]) in text


def test_a_card_s_facts():
    text = " ".join(card(spec("12b")).split())
    assert text.startswith("EleutherAI/pythia-12b ")
    assert "old names 13b" in text
    assert "11,846,072,320; 11,327,027,200 without the embeddings" in text
    assert "36 layers, width 5120, 40 heads of 128 (32 rotated), 50688 vocabulary rows" in text
    assert "143,000 steps of 2,097,152 tokens in float16" in text
    assert "0.00012, falling to 1.2e-05" in text
    assert "issues/206" in text
    assert "71,500 steps of 4,194,304 tokens" in card(spec("1.4b-v0"))
    text = " ".join(card(spec("intervention-1.4b-deduped")).split())
    assert "trained on from 1.4b-deduped at step 133000 seed" in text


def test_the_table_has_a_line_a_model():
    lines = table(models()).splitlines()
    assert len(lines) == len(models()) + 1
    assert lines[0].split() == [
        "model",
        "parameters",
        "layers",
        "width",
        "heads",
        "steps",
        "corpus",
    ]
    row = ["12b", "11,846,072,320", "36", "5120", "40", "154", "pile-standard"]
    assert row in [line.split() for line in lines]
    assert table((local(),)).splitlines()[1].split()[0] == "2.8b"
