import json

import numpy as np
import pytest

from pythia_fast.tokens import TokenDataset, write_tokens
from pythia_fast.tokens.order import Order, build


@pytest.fixture
def raw(tmp_path):
    """The prefix of twelve documents of different lengths."""
    random = np.random.default_rng(0)
    write_tokens(tmp_path / "raw", [random.integers(0, 999, n) for n in range(12)])
    return tmp_path / "raw"


SMALL = ("--sequence-length", 8, "--samples", 20, "--seed", 7)


def test_an_order_is_built_beside_its_data_and_checked(run, raw):
    facts = json.loads(run("order", "build", raw, *SMALL, "--json").stdout)
    expected = build(raw, sequence_length=8, samples=20, seed=7)
    assert facts == {
        "stem": f"{raw}_train_0_indexmap_20ns_8sl_7s",
        "samples": len(expected),
        "asked_for": 20,
        "sequence_length": 8,
        "seed": 7,
        "documents": len(expected.doc_idx),
        "bytes": expected.nbytes,
    }
    loaded = Order.load(raw)
    np.testing.assert_array_equal(loaded.sample_idx, expected.sample_idx)
    for arguments in ((raw,), (facts["stem"], "--data", raw, "--threads", 1)):
        assert json.loads(run("order", "check", *arguments, "--json").stdout) == facts


def test_facts_are_shown_in_words(run, raw, tmp_path):
    arguments = (*SMALL, "--out", tmp_path / "elsewhere", "--name", "mine")
    lines = run("order", "build", f"{raw}.idx", *arguments).stdout.splitlines()
    assert lines[0].split() == ["stem", f"{tmp_path}/elsewhere_mine_indexmap_20ns_8sl_7s"]
    assert [line.split()[-1] for line in lines[2:5]] == ["20", "8", "7"]


def test_a_wrong_order_is_bad_input(run, raw):
    run("order", "build", raw, *SMALL)
    stem = Order.load(raw).files.stem
    values = np.load(f"{stem}_shuffle_idx.npy")
    values[3] = values[2]
    np.save(f"{stem}_shuffle_idx.npy", values)
    result = run("order", "check", raw, exit_code=3)
    assert f"{stem}_*.npy: shuffle_idx is no permutation" in result.stderr


def test_verify_checks_the_order_before_it_compares(run, raw, tmp_path):
    run("order", "build", raw, *SMALL)
    order = Order.load(raw)
    shuffled = tmp_path / "shuffled"
    write_tokens(shuffled, TokenDataset(raw).in_order(order)[:2])
    place = next(order.files.stem.parent.glob("*_shuffle_idx.npy"))
    shuffle = np.load(place)
    shuffle[-1] = shuffle[-2]  # beyond the rows that are compared
    np.save(place, shuffle)
    assert "permutation" in run("order", "verify", raw, shuffled, exit_code=3).stderr


def test_no_order_is_bad_input(run, raw):
    for command in (("check", raw), ("verify", raw, raw)):
        assert "no order at" in run("order", *command, exit_code=3).stderr


def test_raw_data_in_order_is_compared_with_shuffled_data(run, raw, tmp_path):
    run("order", "build", raw, *SMALL)
    order = Order.load(raw)
    rows = TokenDataset(raw).in_order(order)[:]
    shuffled = tmp_path / "shuffled"
    write_tokens(shuffled, rows)
    assert run("order", "verify", raw, shuffled).stdout == f"{len(rows)} rows are the same\n"
    limited = ("--rows", "2:5", "--order", order.files.stem, "--json")
    found = json.loads(run("order", "verify", raw, shuffled, *limited).stdout)
    assert found == {"same": True, "rows": 3, "difference": None}

    nothing = run("order", "verify", raw, shuffled, "--rows", "100000:", exit_code=3)
    assert "nothing was compared" in nothing.stderr

    rows[6, 2] += 1
    write_tokens(shuffled, rows)
    result = run("order", "verify", raw, shuffled, "--json", exit_code=3)
    assert "row 6 differs at column 2" in result.stderr
    assert json.loads(result.stdout) == {
        "same": False,
        "rows": 6,
        "difference": {
            "row": 6,
            "column": 2,
            "found": int(rows[6, 2]) - 1,
            "expected": int(rows[6, 2]),
        },
    }


@pytest.mark.parametrize(
    "arguments", [("--seed", 2**32), ("--samples", 0), ("--sequence-length", 0), ("--threads", 0)]
)
def test_numbers_that_cannot_be_are_wrong_usage(run, raw, arguments):
    run("order", "build", raw, *arguments, exit_code=2)


def test_help_names_the_commands(run):
    text = run("order", "--help").stdout
    for command in ("build", "check", "verify"):
        assert command in text
        assert "Examples" in run("order", command, "--help").stdout


def test_where_an_order_is_not_built(run, raw):
    run("order", "build", raw, "--out", "", exit_code=2)
    assert "download them first" in run("order", "build", "hub:pile-deduped", exit_code=3).stderr


def test_each_says_how_far_it_is_on_standard_error_only(run, raw, tmp_path, monkeypatch):
    monkeypatch.setattr("pythia_fast.progress.LINE_EVERY_S", 0.0)
    built = run("order", "build", raw, *SMALL)
    order = Order.load(raw)
    entries = 2 * len(order.doc_idx) + len(order)
    assert f"build order: {entries}/{entries} entries" in built.stderr
    documents = len(order.doc_idx)
    checked = run("order", "check", raw, "--data", raw, "--json")
    json.loads(checked.stdout)
    assert f"check order: {documents}/{documents} documents" in checked.stderr
    shuffled = tmp_path / "shuffled"
    write_tokens(shuffled, TokenDataset(raw).in_order(order)[:2])
    compared = run("order", "verify", raw, shuffled)
    assert "compare rows: 2/2 rows" in compared.stderr
    assert compared.stdout == "2 rows are the same\n"
    assert run("order", "verify", raw, shuffled, "--quiet").stderr == ""
