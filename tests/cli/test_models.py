import json

from pythia_fast import suite as facts


def test_all_models_are_listed(run):
    lines = run("models").stdout.splitlines()
    assert len(lines) == 1 + len(facts.models())
    assert any(line.split()[0] == "12b-deduped" for line in lines)


def test_a_model_has_a_card(run):
    text = run("models", "13b").stdout
    assert "EleutherAI/pythia-12b" in text
    assert "11,846,072,320" in text


def test_an_intervened_model_has_one(run):
    text = run("models", "EleutherAI/pythia-intervention-1.4b-deduped").stdout
    assert "1.4b-deduped at step 133000" in text


def test_a_folder_has_a_card_too(run, suite):
    assert "6: 0, 1, 2, 4, 8, 16" in run("models", suite).stdout


def test_the_same_in_json(run, suite):
    every = json.loads(run("models", "--json").stdout)
    assert [each["name"] for each in every] == [spec.name for spec in facts.models()]
    one = json.loads(run("models", "70m", "--json").stdout)
    assert one["architecture"]["parameters"] == 70_426_624
    assert len(one["steps"]) == 154
    assert json.loads(run("models", suite, "--json").stdout)["steps"] == [0, 1, 2, 4, 8, 16]
