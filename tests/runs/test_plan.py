"""Cutting work into batches and units."""

import dataclasses
import pickle
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pythia_fast
from pythia_fast.errors import ArgumentError, TokenRangeError
from pythia_fast.metrics import Memorization, Perplexity
from pythia_fast.runs.plan import (
    SHARD_SEQUENCES,
    Plan,
    Sequences,
    batches,
    chosen_rows,
    fingerprint,
    sequences_argument,
)
from pythia_fast.suite import Architecture, ModelSpec
from pythia_fast.testing import HubServer
from pythia_fast.tokens import TokenDataset, write_tokens
from pythia_fast.tokens.remote.pile import REPOSITORIES


@given(st.lists(st.integers(1, 50)), st.integers(1, 200))
def test_batches_cover_all_in_order_and_fit(lengths: list[int], limit: int) -> None:
    cuts = list(batches(np.array(lengths, np.int64), limit))
    assert [i for cut in cuts for i in range(cut.start, cut.stop)] == list(range(len(lengths)))
    for cut in cuts:
        count = cut.stop - cut.start
        assert count == 1 or count * max(lengths[cut]) <= limit


def plan(rows: int, tiny: Architecture, **changes: object) -> Plan:
    arguments = {
        "spec": ModelSpec.local("tiny", tiny, (0, 1)),
        "steps": (0, 1),
        "metrics": (Perplexity(), Memorization(4, 4)),
        "dataset": TokenDataset(np.zeros((rows, 8), np.int64)),
        "sequences": rows,
        "dtype": "float32",
        "deterministic": False,
    }
    return Plan(**(arguments | changes))


def test_units_cover_every_row_once(tiny: Architecture) -> None:
    rows = 2 * SHARD_SEQUENCES + 5
    units = list(plan(rows, tiny).units(1))
    assert [unit.path for unit in units] == [
        f"parts/step=1/{name}-{shard:05d}.parquet"
        for shard in range(3)
        for name in ("perplexity", "memorization")
    ]
    for name in ("perplexity", "memorization"):
        of_metric = [unit.rows for unit in units if unit.metric.name == name]
        np.testing.assert_array_equal(np.concatenate(of_metric), np.arange(rows))
        assert {unit.shards for unit in units} == {3}


def test_of_rows_that_are_not_asked_for_nothing_is_looked_up(
    tiny: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole Pile has 146 million rows."""
    looked_up: list[int] = []
    lengths_of = TokenDataset.lengths_of

    def counted(data: TokenDataset, rows: np.ndarray) -> np.ndarray:
        looked_up.append(len(rows))
        return lengths_of(data, rows)

    monkeypatch.setattr(TokenDataset, "lengths_of", counted)
    monkeypatch.delattr(TokenDataset, "lengths")
    few = plan(100_000, tiny, sequences=8)
    assert few.tokens == 2 * 2 * 8 * 8
    assert few.specification["sequences"] == {"first": 0, "count": 8, "stride": 1}
    assert max(looked_up) == 8


def test_tokens_are_those_that_each_metric_looks_at(tiny: Architecture) -> None:
    assert plan(10, tiny, metrics=(Perplexity(),)).tokens == 2 * 10 * 8
    assert plan(10, tiny, metrics=(Memorization(2, 1),)).tokens == 2 * 10 * 3


def test_seen_and_unseen_follow_the_step() -> None:
    spec = pythia_fast.spec("70m")
    dataset = TokenDataset(np.zeros((3000, 4), np.uint16))
    common = {"spec": spec, "steps": (0, 1, 2), "dataset": dataset, "metrics": (Perplexity(),)}
    seen = plan(1, spec.architecture, sequences="seen", **common)
    unseen = plan(1, spec.architecture, sequences="unseen", **common)
    assert [len(seen.rows(step)) for step in (0, 1, 2)] == [0, 1024, 2048]
    assert [unseen.rows(step)[0] for step in (0, 1, 2)] == [0, 1024, 2048]
    assert len(seen.rows(4)) == 3000


def test_what_an_intervened_model_saw_altered_is_neither_seen_nor_unseen() -> None:
    spec = pythia_fast.spec("intervention-70m-deduped")
    rows = 146_432_000  # of the corpus in training order
    for step in (134_000, 143_000):
        assert chosen_rows("seen", step, spec, rows) == range(133_000 * 1024)
        assert chosen_rows("unseen", step, spec, rows) == range(step * 1024, rows)
    base = pythia_fast.spec("70m-deduped")
    assert chosen_rows("seen", 134_000, base, rows) == range(134_000 * 1024)
    assert chosen_rows(512, 134_000, spec, rows) == range(512)


def test_what_it_has_seen_names_its_branch() -> None:
    """Earlier versions took all up to the step, under a specification that did not say so."""
    dataset = TokenDataset(np.zeros((30, 8), np.uint16))
    told = {}
    for name in ("intervention-70m-deduped", "70m-deduped"):
        spec = pythia_fast.spec(name)
        for sequences in ("seen", "unseen", 5):
            common = {"spec": spec, "steps": (143_000,), "dataset": dataset}
            made = plan(1, spec.architecture, sequences=sequences, **common)
            told[name, sequences] = made.specification.get("branch_step")
    assert {key: step for key, step in told.items() if step} == {
        ("intervention-70m-deduped", "seen"): 133_000
    }


@pytest.mark.parametrize("sequences", ["seen", "unseen"])
def test_the_rows_of_all_steps_are_checked_and_each_once(
    sequences: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = pythia_fast.spec("70m")
    ids = np.zeros((3000, 4), np.uint16)
    ids[2000 if sequences == "seen" else 1500, 1] = 50_304
    common = {"spec": spec, "steps": (1, 2), "metrics": (Perplexity(),), "sequences": sequences}
    with pytest.raises(TokenRangeError):
        plan(1, spec.architecture, dataset=TokenDataset(ids), **common)
    checked: list[int] = []
    monkeypatch.setattr(
        TokenDataset, "check_ids", lambda self, limit, rows: checked.extend(rows.tolist())
    )
    plan(1, spec.architecture, dataset=TokenDataset(ids), **common)
    assert checked == list(range(2048) if sequences == "seen" else range(1024, 3000))


def test_of_a_remote_corpus_only_what_was_seen_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = pythia_fast.spec("70m")
    ids = np.random.default_rng(0).integers(0, 50_254, (40_000, 9), dtype=np.uint16)
    (tmp_path / "data").mkdir()
    write_tokens(tmp_path / "data/document", ids)
    with HubServer({f"datasets/{REPOSITORIES[spec.corpus]}": {"main": tmp_path / "data"}}) as hub:
        files = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
        dataset = TokenDataset(f"hub:{spec.corpus}", cache_dir=tmp_path / "cache")
        common = {"spec": spec, "dataset": dataset, "metrics": (Perplexity(),)}
        seen = plan(1, spec.architecture, sequences="seen", steps=(1, 2), **common)
        before = hub.requests
        np.testing.assert_array_equal(dataset.gather(seen.rows(2)), ids[:2048])
        assert seen.specification["tokens"] == dataset.source
        assert hub.requests == before, "all that was seen is there before the work begins"
        ranges = [request.range for request in before if "document.bin" in request.path]
        assert ranges == [f"bytes=0-{2**16 - 1}"]
        some = plan(1, spec.architecture, sequences=slice(5, 9), steps=(1, 2), **common)
        assert some.specification["tokens"] == TokenDataset(ids[5:9]).fingerprint()


def test_other_seeds_saw_another_order() -> None:
    spec = pythia_fast.spec("160m-seed3")
    dataset = TokenDataset(np.zeros((30, 4), np.uint16))
    with pytest.raises(ArgumentError, match="which order 160m-seed3"):
        plan(1, spec.architecture, spec=spec, dataset=dataset, sequences="seen")


def test_the_specification_does_not_depend_on_where_or_which_steps(tiny: Architecture) -> None:
    one, other = plan(5, tiny, steps=(0,)), plan(5, tiny)
    assert fingerprint(one.specification) == fingerprint(other.specification)
    assert fingerprint(plan(4, tiny).specification) != fingerprint(one.specification)


def test_rows_are_named_by_what_they_are(tiny: Architecture) -> None:
    """Equal tokens in other rows are another selection; a number and its slice are the same."""

    def chosen(sequences: object) -> dict:
        return plan(6, tiny, sequences=sequences).specification

    assert chosen(3) == chosen(slice(3)) == chosen(slice(0, 3, 1))
    assert chosen(slice(0, 6, 2)) != chosen(slice(0, 3))
    assert chosen(slice(2, 5)) != chosen(slice(0, 3))


@pytest.mark.parametrize("rows", [slice("a", 3), slice(0, 10, 0), slice(1.5, 3)], ids=str)
def test_a_slice_that_is_none_is_refused(rows: slice) -> None:
    with pytest.raises(ArgumentError, match="no slice of rows"):
        sequences_argument(rows)


def test_a_number_may_be_numpys() -> None:
    assert sequences_argument(np.int64(4)) == 4


@pytest.mark.parametrize("sequences", [7, slice(3, 9, 2), "seen", "unseen"])
def test_a_pickle_means_the_same(
    tiny: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sequences: object
) -> None:
    ids = np.random.default_rng(0).integers(0, tiny.vocab_rows, (2 * 1024, 8), dtype=np.uint16)
    write_tokens(tmp_path / "data", ids)
    described = dataclasses.replace(pythia_fast.spec("14m"), architecture=tiny, steps=(0, 1, 2))
    first = plan(
        *(len(ids), tiny),
        spec=described,
        dataset=TokenDataset(tmp_path / "data"),
        sequences=sequences,
        steps=(0, 1),
    )
    fresh = pickle.dumps(first)
    expected, tokens = first.specification, first.tokens
    known = pickle.dumps(first)
    for pickled in (fresh, known):
        copy = pickle.loads(pickled)
        assert (copy.spec, copy.steps, copy.metrics) == (first.spec, first.steps, first.metrics)
        assert (copy.sequences, copy.dtype) == (first.sequences, first.dtype)
        assert (copy.specification, copy.tokens) == (expected, tokens)
        for step in copy.steps:
            for ours, theirs in zip(copy.units(step), first.units(step), strict=True):
                assert (ours.path, ours.metric) == (theirs.path, theirs.metric)
                np.testing.assert_array_equal(ours.rows, theirs.rows)
                np.testing.assert_array_equal(copy.dataset[ours.rows], first.dataset[ours.rows])
    # What was computed once goes along: workers need not read the data for it.
    copy = pickle.loads(known)
    monkeypatch.setattr(TokenDataset, "fingerprint", lambda *_: pytest.fail("it was read again"))
    assert copy.specification == expected


@pytest.mark.parametrize(
    ("sequences", "words"),
    [
        (slice(5, 2), "sequences 5:2 selects none of the 8 sequences"),
        (slice(None, 0, 3), "sequences :0:3 selects none"),
        ("seen", "sequences seen needs to know in which order tiny saw its data"),
        ("seen", "--sequences 0:512"),
    ],
)
def test_what_no_sequence_is_chosen_by_is_said_as_it_is_typed(
    tiny: Architecture, sequences: Sequences, words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        plan(8, tiny, sequences=sequences)
