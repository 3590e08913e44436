"""Which sequences a report has, and what it says of them, against plain counts."""

import base64
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pythia_fast.errors import HubError
from pythia_fast.report import sequences
from pythia_fast.report.memory import among, without
from pythia_fast.report.read import _KINDS
from pythia_fast.report.sequences import MOST_LOSSES, sequences_of
from pythia_fast.report.texts import texts_of
from pythia_fast.testing.tokenizer import byte_tokenizer
from pythia_fast.tokens import TokenDataset

Make = Callable[..., Any]
STEPS = (0, 1, 2, 4, 8, 16, 32, 64)


def told(run: Any, texts: TokenDataset, most: int = MOST_LOSSES) -> dict[str, Any]:
    return sequences_of(run, texts_of([run], texts, byte_tokenizer())[0], most)


def array(packed: Any, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["data"]), packed["dtype"]).reshape(shape)


@given(st.integers(0, 2**32 - 1))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_what_was_memorized_gained_and_lost_is_counted_as_by_hand(
    make_run: Make, texts: TokenDataset, seed: int
) -> None:
    flags = np.random.default_rng(seed).random((len(texts), len(STEPS))) < 0.3
    run = make_run(memorized=lambda i, step: bool(flags[i, STEPS.index(step)]), per_token=False)
    found = told(run, texts)
    assert found["memorized"]["count"] == flags.sum(0).tolist()
    assert found["memorized"]["gained"] == [
        None,
        *(flags[:, 1:] & ~flags[:, :-1]).sum(0).tolist(),
    ]
    assert found["memorized"]["lost"] == [None, *(~flags[:, 1:] & flags[:, :-1]).sum(0).tolist()]
    ever = [i for i in range(len(texts)) if flags[i].any()]
    assert found["memorized_ever"] == len(ever)
    by_first = sorted(ever, key=lambda i: (int(flags[i].argmax()), i))
    assert found["rows"] == by_first + [i for i in range(len(texts)) if i not in ever]
    shown = array(found["columns"]["memorized"], (len(texts), len(STEPS)))
    np.testing.assert_array_equal(shown, flags[found["rows"]])


def test_losses_of_a_sequence_and_of_its_tokens(make_run: Make, texts: TokenDataset) -> None:
    run = make_run()
    found = told(run, texts)
    shape = (len(texts), len(STEPS))
    loss = array(found["columns"]["loss"], shape)
    kept = found["losses"]
    data = array(kept, (-1,))
    begin = 0
    for place, length in zip(kept["index"], kept["lengths"], strict=True):
        row = found["rows"][place]
        block = data[begin : begin + len(STEPS) * length].reshape(len(STEPS), length) / 1000
        for s, step in enumerate(STEPS):
            np.testing.assert_allclose(
                block[s], run.rows[step]["token_nll"][row].as_py(), rtol=0, atol=6e-4
            )
            assert loss[place, s] == pytest.approx(block[s].mean(), abs=1e-3)
        begin += len(STEPS) * length
    assert begin == len(data)


def test_a_gap_is_a_step_of_which_nothing_is_known(make_run: Make, texts: TokenDataset) -> None:
    found = told(make_run(missing=(4,)), texts)
    assert found["steps"] == list(STEPS)
    shape = (len(texts), len(STEPS))
    assert np.isnan(array(found["columns"]["loss"], shape)[:, 3]).all()
    assert (array(found["columns"]["memorized"], shape)[:, 3] == -1).all()
    assert found["memorized"]["count"][3] is None
    codes = array(found["losses"], (-1,))
    length = found["losses"]["lengths"][0]
    assert (codes[3 * length : 4 * length] == 65_535).all()
    # What was memorized before the gap and after it was not gained again.
    assert found["memorized"]["gained"][4] == 1


def test_what_does_not_fit_is_left_out_and_said(
    make_run: Make, texts: TokenDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequences, "MOST_MEMORIZED", 2)
    monkeypatch.setattr(sequences, "MOST_OTHERS", 3)
    found = told(make_run(), texts, most=len(STEPS) * 63 * 2)
    assert found["rows"] == [2, 1, 0, 4, 5]  # 3 was memorized last, and is not among the others
    assert found["losses"]["index"] == [0, 1]
    assert found["memorized_ever"] == 3
    first, second = found["notes"]
    assert first == (
        "Of 12 sequences 5 are listed: the 2 of 3 memorized that were so first, and the first 3 "
        "others."
    )
    assert "of 2 of these sequences" in second
    assert len(found["ids"][0]) == 64


def test_long_texts_without_losses_are_cut(
    make_run: Make, texts: TokenDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequences, "SHOWN_TOKENS", 10)
    found = told(make_run(per_token=False), texts)
    assert {len(ids) for ids in found["ids"]} == {10}
    assert set(found["lengths"]) == {64}
    assert found["losses"] is None


def test_only_what_is_needed_is_read(make_run: Make, texts: TokenDataset) -> None:
    run = make_run()
    told(run, texts)
    assert {name for _, columns in run.asked for name in columns} <= _KINDS.keys()
    with_tokens = [step for step, columns in run.asked if "token_nll" in columns]
    assert len(with_tokens) == len(STEPS) + 1  # once to see how long they are


def test_steps_that_look_at_rows_of_their_own(make_run: Make, texts: TokenDataset) -> None:
    """As with "seen": step 0 looks at none, step 4 at the first four."""
    run = make_run()
    for step in STEPS:
        table = run.rows[step].slice(0, min(step, 12))
        run.rows[step] = pa.table({"sequence": pa.array([], pa.int64())}) if step == 0 else table
    found = told(run, texts)
    assert found["memorized"]["count"][:4] == [None, 0, 0, 2]
    memorized = array(found["columns"]["memorized"], (len(found["rows"]), len(STEPS)))
    at = found["rows"].index(3)
    assert memorized[at].tolist() == [-1, -1, -1, 0, 0, 0, 0, 1]


def test_what_a_step_lacks_takes_nothing_else_away(make_run: Make, texts: TokenDataset) -> None:
    """A metric may be complete at some steps only."""
    run = make_run()
    run.rows[4] = run.rows[4].select(["sequence", "nll", "tokens", "token_nll"])
    run.rows[8] = run.rows[8].select(["sequence", "memorized"])
    found = told(run, texts)
    shape = (len(texts), len(STEPS))
    loss, memorized = (array(found["columns"][name], shape) for name in ("loss", "memorized"))
    assert np.isnan(loss).all(0).tolist() == [step == 8 for step in STEPS]
    assert (memorized == -1).all(0).tolist() == [step == 4 for step in STEPS]
    assert [n is None for n in found["memorized"]["count"]] == [step == 4 for step in STEPS]
    codes = array(found["losses"], (12, len(STEPS), 63))
    assert (codes == 65_535).all((0, 2)).tolist() == [step == 8 for step in STEPS]


def test_no_steps_at_all(make_run: Make, texts: TokenDataset) -> None:
    run = make_run(missing=STEPS)
    found = told(run, texts)
    assert found["rows"] == []
    assert found["losses"] is None
    assert found["looked_at"] == 0


def test_a_users_columns_of_the_same_names_are_left_alone(
    make_run: Make, texts: TokenDataset
) -> None:
    run = make_run()
    odd = {"memorized": ["yes"] * 12, "score": [[1.0]] * 12, "token_nll": [1.5] * 12}
    for step, table in run.rows.items():
        for name, values in odd.items():
            if name in table.column_names:
                table = table.drop_columns([name])
            table = table.append_column(name, pa.array(values))
        run.rows[step] = table
    found = told(run, texts)
    assert found["memorized_ever"] == 0
    assert found["losses"] is None
    assert np.isnan(array(found["columns"]["score"], (12, len(STEPS)))).all()
    assert not np.isnan(array(found["columns"]["loss"], (12, len(STEPS)))).any()


def test_losses_that_a_step_lacks_are_not_known(make_run: Make, texts: TokenDataset) -> None:
    run = make_run()
    table = run.rows[2]
    values = [
        None if i == 1 else v[:5] if i == 2 else v
        for i, v in enumerate(table["token_nll"].to_pylist())
    ]
    at = table.column_names.index("token_nll")
    run.rows[2] = table.set_column(at, "token_nll", pa.array(values, pa.list_(pa.float32())))
    found = told(run, texts)
    codes = array(found["losses"], (12, len(STEPS), 63))
    lacking = (codes[:, 2] == 65_535).all(1)
    rows = [found["rows"][place] for place in found["losses"]["index"]]
    assert {row for row, lacks in zip(rows, lacking, strict=True) if lacks} == {1, 2}
    assert (codes[:, [0, 1, 3, 4, 5, 6, 7]] < 65_535).all()


def test_a_change_is_since_each_sequence_was_last_looked_at(
    make_run: Make, texts: TokenDataset
) -> None:
    """Steps that look at more and more, and at some not again: what is new to them is no gain."""
    run = make_run(steps=(1, 2, 4, 8), memorized=lambda i, step: i in (0, 3) and step != 2)
    for step, rows in {1: (0, 1), 2: (2, 3), 4: (0, 1, 2, 3), 8: (0, 1, 2, 3, 4, 5)}.items():
        run.rows[step] = run.rows[step].take(list(rows))
    found = told(run, texts)["memorized"]
    assert found["count"] == [1, 0, 2, 2]
    # At 2 others were looked at than before; at 4 only 3 is new: 0 still is what it was at 1.
    assert found["gained"] == [None, None, 1, 0]
    assert found["lost"] == [None, None, 0, 0]


def test_where_the_metric_is_missing_no_other_stands_in(
    make_run: Make, texts: TokenDataset
) -> None:
    run = make_run()
    run.gaps = (SimpleNamespace(step=8, metric="memorization", reason="not begun"),)
    found = sequences_of(run, texts_of([run], texts, None)[0], MOST_LOSSES, "memorization")
    assert [n is None for n in found["memorized"]["count"]] == [step == 8 for step in STEPS]
    shape = (len(texts), len(STEPS))
    assert (array(found["columns"]["memorized"], shape)[:, 4] == -1).all()


def test_texts_that_fail_after_opening_are_a_note(
    make_run: Make, texts: TokenDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise HubError("the connection was lost")

    run = make_run()
    monkeypatch.setattr(TokenDataset, "gather", fail)
    run.record["specification"]["tokens"] = (
        texts.source
    )  # as of the Hub: nothing is read to compare
    found = told(run, texts)
    assert found["pieces"] is None
    assert any("the connection was lost" in note for note in found["notes"])
    assert found["losses"] is not None


def test_the_first_others_are_found_without_a_look_at_all_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was memorized may be as much as all else: a shard is not compared with each of it."""
    random = np.random.default_rng(0)
    order, known = np.arange(20_000), random.permutation(20_000)[:10_000]
    shards = [pa.table({"sequence": order[at : at + 100]}) for at in range(0, len(order), 100)]
    run = SimpleNamespace(columns=lambda *_: SimpleNamespace(sequences=lambda: iter(shards)))
    asked: list[int] = []
    monkeypatch.setattr(
        sequences, "without", lambda rows, others: asked.append(len(rows)) or without(rows, others)
    )
    found = sequences._first(run, [0], known)
    assert found.tolist() == np.setdiff1d(order, known)[: sequences.MOST_OTHERS].tolist()
    assert sum(asked) <= 200
    shards.reverse()
    assert sequences._first(run, [0], known).tolist() == found.tolist()


@given(st.lists(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_rows_among_others(rows: list[int], others: set[int]) -> None:
    some, ascending = np.array(rows, np.int64), np.array(sorted(others), np.int64)
    assert among(some, ascending).tolist() == [row for row in rows if row in others]
    assert without(some, ascending).tolist() == [row for row in rows if row not in others]
