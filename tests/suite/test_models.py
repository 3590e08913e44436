import dataclasses
import json
import pickle
import re

import pytest

from pythia_fast.errors import ArgumentError, UnknownModelError, UnknownStepError
from pythia_fast.suite import (
    STEPS,
    STEPS_V0,
    SUITE,
    Architecture,
    ModelSpec,
    checkpoints,
    models,
    spec,
)

# Copied from the tables of the model cards: total and non-embedding parameters, layers, width,
# heads, learning rate in units of 1e-4, and the models with the same shape.
CARDS = {
    "14m": (14_067_712, 1_189_888, 6, 128, 4, 10, ()),
    "31m": (30_494_720, 4_739_072, 6, 256, 8, 10, ()),
    "70m": (70_426_624, 18_915_328, 6, 512, 8, 10, ()),
    "160m": (162_322_944, 85_056_000, 12, 768, 12, 6, ("GPT-Neo 125M", "OPT-125M")),
    "410m": (405_334_016, 302_311_424, 24, 1024, 16, 3, ("OPT-350M",)),
    "1b": (1_011_781_632, 805_736_448, 16, 2048, 8, 3, ()),
    "1.4b": (1_414_647_808, 1_208_602_624, 24, 2048, 16, 2, ("GPT-Neo 1.3B", "OPT-1.3B")),
    "2.8b": (2_775_208_960, 2_517_652_480, 32, 2560, 32, 1.6, ("GPT-Neo 2.7B", "OPT-2.7B")),
    "6.9b": (6_857_302_016, 6_444_163_072, 32, 4096, 32, 1.2, ("OPT-6.7B",)),
    "12b": (11_846_072_320, 11_327_027_200, 36, 5120, 40, 1.2, ()),
}
HEAD_AND_ROTARY = {
    "14m": (32, 8),
    "31m": (32, 8),
    "70m": (64, 16),
    "160m": (64, 16),
    "410m": (64, 16),
    "1b": (256, 64),
    "1.4b": (128, 32),
    "2.8b": (80, 20),
    "6.9b": (128, 32),
    "12b": (128, 32),
}
OF_FIRST_RELEASE = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
HALVED = ("160m", "410m", "1.4b")


INTERVENED = {
    "intervention-70m-deduped": ("70m-deduped", 133_000),
    "intervention-410m-deduped": ("410m-deduped", 133_000),
    "intervention-1.4b-deduped": ("1.4b-deduped", 133_000),
    "intervention-long-1.4b-deduped": ("1.4b-deduped", 113_000),
    "intervention-6.9b-deduped": ("6.9b-deduped", 133_000),
}


def size_of(model: ModelSpec) -> str:
    return next(part for part in model.name.split("-") if part in CARDS)


@pytest.mark.parametrize("model", models(), ids=lambda model: model.name)
def test_every_model_has_the_numbers_of_its_size_s_card(model):
    total, non_embedding, layers, width, heads, rate, equivalent = CARDS[size_of(model)]
    shape = model.architecture
    assert model.parameters == shape.parameters == total
    assert model.non_embedding_parameters == shape.non_embedding_parameters == non_embedding
    assert (shape.layers, shape.width, shape.heads) == (layers, width, heads)
    assert (shape.head_dim, shape.rotary_dims) == HEAD_AND_ROTARY[size_of(model)]
    assert shape.vocab_rows == {"6.9b": 50_432, "12b": 50_688}.get(size_of(model), 50_304)
    assert shape.intermediate == 4 * width
    assert shape.parallel_residual
    assert shape.activation == "gelu"
    assert shape.max_positions == 2048
    assert model.learning_rate == pytest.approx(rate * 1e-4)
    assert model.equivalent == equivalent
    assert model.licence == "Apache-2.0"
    assert model.repo == f"EleutherAI/pythia-{model.name}"


def test_parameters_are_the_sum_of_the_shapes():
    for size in CARDS:
        shape = spec(size).architecture
        counts = {name: _product(dims) for name, dims in shape.shapes().items()}
        assert sum(counts.values()) == shape.parameters
        embeddings = counts["gpt_neox.embed_in.weight"] + counts["embed_out.weight"]
        assert shape.parameters - embeddings == shape.non_embedding_parameters


def _product(dims: tuple[int, ...]) -> int:
    product = 1
    for dim in dims:
        product *= dim
    return product


def test_the_list_of_models():
    expected = [*CARDS, *(f"{size}-deduped" for size in CARDS)]
    expected += [f"{size}-v0" for size in OF_FIRST_RELEASE]
    expected += [f"{size}-deduped-v0" for size in OF_FIRST_RELEASE]
    expected += [
        f"{s}-seed{n}" for s in ("14m", "31m", "70m", "160m", "410m") for n in range(1, 10)
    ]
    expected += [f"160m-{what}-seed{n}" for what in ("data", "weight") for n in (1, 2, 3)]
    expected += INTERVENED
    names = [model.name for model in models()]
    assert sorted(names) == sorted(expected)
    assert len(set(names)) == len(names) == 92
    assert [names.index(size) for size in CARDS] == sorted(names.index(size) for size in CARDS)


@pytest.mark.parametrize("model", models(), ids=lambda model: model.name)
def test_steps(model):
    assert checkpoints(model.name) == model.steps
    if model.name in INTERVENED:
        branch = INTERVENED[model.name][1]
        assert model.steps == tuple(range(branch + 1_000, 143_001, 1_000))
    else:
        assert model.steps == (STEPS_V0 if "v0" in model.name else STEPS)
        assert len(model.steps) == (143 if "v0" in model.name else 154)
    assert model.steps[-1] == 143_000
    assert model.revision(143_000) == "step143000"


@pytest.mark.parametrize("model", models(), ids=lambda model: model.name)
def test_tokens_and_real_steps(model):
    first_release = "v0" in model.name
    halved = first_release and size_of(model) in HALVED
    assert model.batch_tokens == (4_194_304 if halved else 2_097_152)
    assert model.real_step(143_000) == (71_500 if halved else 143_000)
    assert model.real_step(134_000) == (67_000 if halved else 134_000)
    assert model.real_step(143_000) * model.batch_tokens == 299_892_736_000
    assert model.tokens_seen(143_000) == 299_892_736_000
    if size_of(model) in OF_FIRST_RELEASE:
        assert model.batch_tokens_v0 == (4_194_304 if size_of(model) in HALVED else 2_097_152)
    else:
        assert model.batch_tokens_v0 is None


@pytest.mark.parametrize("model", models(), ids=lambda model: model.name)
def test_what_it_was_trained_on_and_how(model):
    deduped = "deduped" in model.name or model.name == "31m"
    assert model.corpus == ("pile-deduped" if deduped else "pile-standard")
    assert model.precision == ("bfloat16" if model.name == "1b" else "float16")
    if "v0" in model.name and size_of(model) in ("6.9b", "12b"):
        assert model.final_learning_rate == 0
    else:
        assert model.final_learning_rate == pytest.approx(model.learning_rate / 10)
    if "seed" in model.name:
        assert model.seed == int(model.name[-1])
        assert not model.suite_order
    else:
        assert model.seed == 1234
        assert model.suite_order


@pytest.mark.parametrize(("name", "origin"), INTERVENED.items())
def test_an_intervened_model_is_its_base_but_for_the_end(name, origin):
    base, branch = origin
    model, own = spec(name), spec(base)
    assert (model.base, model.branch_step, model.release) == (base, branch, "intervention")
    assert branch in own.steps
    assert set(model.steps) == {step for step in own.steps if step > branch}
    assert model.variant == ("long-intervention" if "long" in name else "intervention")
    assert model.old_names == (
        f"intervention-pythia-v1.1-{base}{'-long' if 'long' in name else ''}",
    )
    same = {"architecture", "corpus", "seed", "batch_tokens", "learning_rate", "precision"}
    for field in same:
        assert getattr(model, field) == getattr(own, field)
    share = "21%" if "long" in name else "7%"
    assert share in model.data
    assert (143_000 - branch) / 143_000 == pytest.approx(float(share[:-1]) / 100, abs=0.001)
    assert any("unswapped" in note for note in model.notes)
    assert any("could not be checked" in note for note in model.notes) == ("long" in name)
    assert set(own.notes) <= set(model.notes)
    assert model.unaltered(model.steps[0]) == model.unaltered(143_000) == branch
    assert own.unaltered(143_000) == 143_000
    assert own.variant is own.base is own.branch_step is None


def test_an_intervened_model_has_no_step_before_its_branch():
    with pytest.raises(UnknownStepError, match=r"has no checkpoint of step 133000; .* 134000 "):
        spec("intervention-70m-deduped").revision(133_000)


def test_what_the_seeds_of_polypythias_vary():
    assert spec("70m").seed_varies is None
    assert spec("70m-seed4").seed_varies == "initialisation and data order"
    assert spec("160m-data-seed2").seed_varies == "data order"
    assert spec("160m-weight-seed3").seed_varies == "initialisation"


def test_notes_say_what_the_published_files_get_wrong():
    assert any("swapped" in note for note in spec("12b-deduped").notes)
    assert not any("swapped" in note for note in spec("12b").notes)
    for name in ("6.9b", "6.9b-deduped", "12b", "12b-deduped"):
        assert any("#135" in note for note in spec(name).notes)
    assert any("2.5e-4" in note for note in spec("1b").notes)
    assert any("use_parallel_residual" in note for note in spec("160m-v0").notes)
    for size in HALVED:
        assert any("71,500" in note for note in spec(f"{size}-v0").notes)
        assert any("71,500" in change for change in spec(size).changed)
    assert not any("71,500" in change for change in spec("70m").changed)


ALIASES = {
    "12b": "12b",
    "12B": "12b",
    " 12b ": "12b",
    "12b-deduped": "12b-deduped",
    "pythia-12b": "12b",
    "EleutherAI/pythia-12b": "12b",
    "eleutherai/PYTHIA-12B-Deduped": "12b-deduped",
    "EleutherAI/pythia-70m-v0": "70m-v0",
    "EleutherAI/pythia-70m-deduped-v0": "70m-deduped-v0",
    "160m-seed3": "160m-seed3",
    "pythia-160m-data-seed1": "160m-data-seed1",
    "160m-weight-seed2": "160m-weight-seed2",
    "410m-v0": "410m-v0",
    "19m": "70m",
    "125m": "160m",
    "350m": "410m",
    "400m": "410m",
    "800m": "1b",
    "1.3b": "1.4b",
    "2.7b": "2.8b",
    "6.7b": "6.9b",
    "13b": "12b",
    "EleutherAI/pythia-13b-deduped": "12b-deduped",
    "125m-deduped": "160m-deduped",
    "13b-v0": "12b-v0",
    "1.3b-deduped-v0": "1.4b-deduped-v0",
    "EleutherAI/pythia-intervention-1.4b-deduped": "intervention-1.4b-deduped",
    "Intervention-70M-deduped": "intervention-70m-deduped",
    "EleutherAI/pythia-intervention-long-1.4b-deduped": "intervention-long-1.4b-deduped",
    "long-intervention-1.4b-deduped": "intervention-long-1.4b-deduped",
    "intervention-1.4b-deduped-long": "intervention-long-1.4b-deduped",
    "EleutherAI/intervention-pythia-v1.1-410m-deduped": "intervention-410m-deduped",
    "EleutherAI/intervention-pythia-v1.1-1.4b-deduped-long": "intervention-long-1.4b-deduped",
}


@pytest.mark.parametrize(("typed", "name"), ALIASES.items())
def test_names_that_are_understood(typed, name):
    assert spec(typed).name == name


def test_old_names_are_listed_with_the_model_and_lead_to_it():
    assert spec("410m-deduped").old_names == ("350m-deduped", "400m-deduped")
    for model in models():
        for old in model.old_names:
            assert spec(old) is model


@pytest.mark.parametrize(
    ("typed", "suggested"),
    [
        ("12b-dedup", "12b-deduped"),
        ("pythia-12b-deduped-v1", "12b-deduped-v0"),
        ("13b-dedupd", "12b-deduped"),
        ("160m-seed10", "160m-seed1"),
        ("7b", "6.9b"),
        ("7b-deduped", "6.9b-deduped"),
        ("1.5b", "1.4b"),
        ("0b", "14m"),
        ("EleutherAI/pythia-70", "70m"),
        ("14m-v0", "410m-v0"),
        ("160m-data-seed9", "160m-data-seed1"),
        ("intervention-1.4b", "intervention-1.4b-deduped"),
        ("intervention-1.3b-deduped", "intervention-1.4b-deduped"),
        ("intervention-7b-deduped", "intervention-6.9b-deduped"),
        ("EleutherAI/pythia-intervention-long-6.9b-deduped", "intervention-6.9b-deduped"),
        ("intervension-70m-deduped", "intervention-70m-deduped"),
        ("5bintervention-70m-deduped", "intervention-70m-deduped"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(typed, suggested):
    with pytest.raises(UnknownModelError) as caught:
        spec(typed)
    message = str(caught.value)
    assert isinstance(caught.value, LookupError)
    assert repr(typed) in message
    assert suggested in re.search(r"; near (?:is|are) (.*?); ", message)[1].split(", ")
    assert "pythia-fast models" in message
    assert "92" in message


@pytest.mark.parametrize("typed", ["", "gpt2", "EleutherAI/", "pythia-", "./suite", "12b/step1000"])
def test_what_is_like_no_name_is_still_refused_with_a_way_on(typed):
    with pytest.raises(UnknownModelError, match="pythia-fast models"):
        spec(typed)


@pytest.mark.parametrize("typed", ["125m-seed3", "13b-seed1", "350m-weight-seed1"])
def test_seed_runs_never_had_an_old_name(typed):
    with pytest.raises(UnknownModelError):
        spec(typed)


@pytest.mark.parametrize("typed", [12, None, b"12b", ["12b"]])
def test_a_name_is_text(typed):
    with pytest.raises(ArgumentError, match="text"):
        spec(typed)


def test_a_step_that_a_model_lacks_is_refused_with_its_neighbours():
    with pytest.raises(UnknownStepError, match=r"12b-v0 has no checkpoint of step 512; .* 1000 "):
        spec("12b-v0").revision(512)
    with pytest.raises(UnknownStepError, match="1000 and 2000"):
        spec("12b").real_step(1_500)
    with pytest.raises(UnknownStepError, match="143000"):
        spec("12b").tokens_seen(150_000)


def test_a_local_folder_s_spec_claims_nothing():
    shape = Architecture(
        layers=2, width=96, heads=3, vocab_rows=512, intermediate=384, rotary_dims=8
    )
    local = ModelSpec.local("mine", shape, (100, 0, 100, 7))
    assert local.steps == (0, 7, 100)
    assert local.architecture is shape
    assert local.real_step(7) == 7
    assert local.tokens_seen(7) is None
    assert not local.suite_order
    known = {"name", "architecture", "steps"}
    for field in dataclasses.fields(local):
        if field.name not in known:
            assert getattr(local, field.name) in (None, ())


def test_facts_are_frozen_and_travel_to_other_processes():
    model = spec("70m")
    with pytest.raises(dataclasses.FrozenInstanceError):
        model.learning_rate = 1.0
    assert models() == models()
    assert spec("70m") is model
    assert pickle.loads(pickle.dumps(model)) == model
    assert hash(pickle.loads(pickle.dumps(model))) == hash(model)


@pytest.mark.parametrize("model", models(), ids=lambda model: model.name)
def test_to_dict_is_json_and_complete(model):
    card = json.loads(json.dumps(model.to_dict(), allow_nan=False))
    assert card["name"] == model.name
    assert card["steps"] == list(model.steps)
    assert card["architecture"]["parameters"] == model.parameters
    assert card["architecture"]["head_dim"] * card["architecture"]["heads"] == (
        model.architecture.width
    )
    assert set(card) == {field.name for field in dataclasses.fields(model)}


def test_the_suite_is_the_paper_s_sixteen() -> None:
    """Of the current release, all of 154 checkpoints, by size, each size on both corpora."""
    assert len(SUITE) == 16
    found = [spec(name) for name in SUITE]
    current = {each.name for each in models() if each.release == "v1"}
    assert set(SUITE) == current - {"14m", "14m-deduped", "31m", "31m-deduped"}
    assert [each.parameters for each in found] == sorted(each.parameters for each in found)
    assert {each.steps for each in found} == {STEPS}
    assert [each.corpus for each in found] == ["pile-standard", "pile-deduped"] * 8


def test_they_are_shown_in_words():
    shown = repr(models()).splitlines()
    assert shown[0].split() == [
        "model",
        "parameters",
        "layers",
        "width",
        "heads",
        "steps",
        "corpus",
    ]
    assert len(shown) == len(models()) + 1
    twelve = spec("12b")
    assert repr(twelve) == (
        "<ModelSpec 12b: EleutherAI/pythia-12b, 11,846,072,320 parameters, 154 checkpoints>"
    )
    assert str(twelve).startswith("EleutherAI/pythia-12b\n  name            12b\n")
