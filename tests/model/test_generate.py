"""Decoding against transformers' generate()."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pythia_fast.errors import ArgumentError, NonFiniteError, TokenRangeError
from pythia_fast.model import Model, greedy_steps, sequences_at_once
from pythia_fast.model.generate import sample
from pythia_fast.suite import Architecture


@pytest.fixture(scope="module")
def prompts_BT(tiny: Architecture) -> torch.Tensor:
    return torch.randint(tiny.vocab_rows, (6, 20), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def model(tiny: Architecture, pair_of: Callable) -> Model:
    return pair_of(tiny).ours


@pytest.mark.parametrize("new", [1, 2, 40])
def test_greedy_gives_the_tokens_of_transformers(
    tiny: Architecture, pair_of: Callable, prompts_BT: torch.Tensor, new: int
) -> None:
    pair = pair_of(tiny)
    expected = pair.peer.generate(
        prompts_BT,
        attention_mask=torch.ones_like(prompts_BT),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(pair.ours.generate(prompts_BT, new), expected)


def test_greedy_goes_on_to_the_last_position(model: Model, prompts_BT: torch.Tensor) -> None:
    long_BT = prompts_BT.repeat(1, 6)
    decoded = model.generate(long_BT, 8)
    assert decoded.shape == (6, 128)
    assert torch.equal(model(decoded)[:, 119:-1].argmax(-1), decoded[:, 120:])


@pytest.mark.parametrize("size", ["14m", "1b", "2.8b"])
def test_greedy_of_real_vocabulary_and_head_dim(
    pair_of: Callable, scaled: Callable, size: str
) -> None:
    architecture = scaled(size)
    pair = pair_of(architecture)
    g = torch.Generator().manual_seed(1)
    prompts_BT = torch.randint(architecture.vocab_rows, (5, 9), generator=g)
    expected = pair.peer.generate(
        prompts_BT,
        attention_mask=torch.ones_like(prompts_BT),
        max_new_tokens=6,
        min_new_tokens=6,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    assert torch.equal(pair.ours.generate(prompts_BT, 6), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_cache_gives_what_the_whole_prefix_gives(
    tiny: Architecture, pair_of: Callable, prompts_BT: torch.Tensor, dtype: torch.dtype
) -> None:
    model = pair_of(tiny, dtype).ours
    decoded = model.generate(prompts_BT, 30)
    scores = model.score(decoded, start=19)
    clear = scores.margin > model.near_tie
    assert clear.float().mean() > 0.5
    assert torch.equal(scores.argmax[clear], decoded[:, 20:][clear])


def test_steps_are_the_greedy_tokens_and_their_margins(
    model: Model, prompts_BT: torch.Tensor
) -> None:
    tokens, margins = zip(*greedy_steps(model, prompts_BT, 12), strict=True)
    decoded = model.generate(prompts_BT, 12)
    assert torch.equal(torch.stack(tokens, 1), decoded[:, 20:])
    torch.testing.assert_close(
        torch.stack(margins, 1), model.score(decoded, start=19).margin, rtol=0, atol=1e-4
    )


def test_whoever_decides_has_the_last_word_and_sees_the_whole_context(
    model: Model, prompts_BT: torch.Tensor
) -> None:
    forced_BT = torch.randint(160, (6, 8), generator=torch.Generator().manual_seed(9))
    seen = []

    def decide(
        context_BT: torch.Tensor, token_B: torch.Tensor, margin_B: torch.Tensor
    ) -> torch.Tensor:
        step = context_BT.shape[1] - 20
        seen.append(context_BT.clone())
        chosen_B = token_B.clone()
        chosen_B[::2] = forced_BT[::2, step]
        return chosen_B

    steps = greedy_steps(model, prompts_BT, 8, decide=decide)
    tokens = torch.stack([token_B for token_B, _ in steps], 1)
    assert torch.equal(tokens[::2], forced_BT[::2])
    assert torch.equal(tokens[1::2], model.generate(prompts_BT, 8)[1::2, 20:])
    for step, context_BT in enumerate(seen):
        assert torch.equal(context_BT, torch.cat((prompts_BT, tokens[:, :step]), 1))
    whole = torch.cat((prompts_BT, tokens), 1)
    plain = [margin_B for _, margin_B in greedy_steps(model, whole[:, :-1], 1)]
    last = list(greedy_steps(model, prompts_BT, 8, decide=decide))[-1][1]
    torch.testing.assert_close(plain[0], last, rtol=0, atol=1e-4)


def test_the_same_seed_draws_the_same_tokens(model: Model, prompts_BT: torch.Tensor) -> None:
    draw = [model.generate(prompts_BT, 20, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    unseeded = [model.generate(prompts_BT, 20, temperature=1.0) for _ in range(2)]
    assert not torch.equal(*unseeded)


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (2.0, 12), (0.5, None), (1, 160)])
def test_samples_follow_the_distribution(
    model: Model, prompts_BT: torch.Tensor, temperature: float, top_k: int | None
) -> None:
    draws = 4000
    same_BT = prompts_BT[:1].expand(draws, -1)
    drawn = model.generate(same_BT, 1, temperature=temperature, top_k=top_k, seed=3)[:, -1]
    logits_V = model(prompts_BT[:1])[0, -1].double()
    if top_k is not None:
        logits_V[logits_V < logits_V.topk(top_k).values[-1]] = -torch.inf
    expected_V = draws * (logits_V / temperature).softmax(-1)
    counts_V = drawn.bincount(minlength=160)
    assert counts_V[expected_V == 0].sum() == 0
    common = expected_V >= 5
    chi_square = ((counts_V - expected_V)[common].square() / expected_V[common]).sum()
    freedom = int(common.sum())
    assert chi_square <= freedom + 4 * (2 * freedom) ** 0.5 + 4


def test_top_1_is_greedy(model: Model, prompts_BT: torch.Tensor) -> None:
    drawn = model.generate(prompts_BT, 10, temperature=3.0, top_k=1, seed=0)
    assert torch.equal(drawn, model.generate(prompts_BT, 10))


@pytest.mark.parametrize("temperature", [1e-10, 1e-46, 1e-300, 5e-324])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("top_k", [None, 7])
def test_a_temperature_next_to_0_is_greedy(
    dtype: torch.dtype, temperature: float, top_k: int | None
) -> None:
    logits_BV = torch.tensor([[1, -30, 2, 40, 39.5, 0, 3, 5], [-9, -8, -7, -6, -5, -4, -3, -2]])
    generator = torch.Generator().manual_seed(1)
    drawn = sample(logits_BV.to(dtype), temperature, top_k, generator)
    assert drawn.tolist() == [3, 7]


def test_a_model_may_be_asked_with_a_temperature_next_to_0(
    model: Model, prompts_BT: torch.Tensor
) -> None:
    drawn = model.generate(prompts_BT, 10, temperature=1e-300, seed=0)
    assert torch.equal(drawn, model.generate(prompts_BT, 10))


def test_likeliest_tokens_that_tie_are_drawn_alike_at_any_temperature() -> None:
    logits_BV = torch.tensor([[3.0, 7.0, 7.0, 1.0]]).expand(4000, -1)
    drawn = sample(logits_BV, 1e-300, None, torch.Generator().manual_seed(2))
    counts = drawn.bincount(minlength=4).tolist()
    assert counts[0] == counts[3] == 0
    assert abs(counts[1] - 2000) < 4 * 4000**0.5


def test_a_stop_token_ends_its_sequence_and_all_end_the_loop(
    model: Model, prompts_BT: torch.Tensor
) -> None:
    free = model.generate(prompts_BT, 40)[:, 20:]
    stop = int(free[0, 5])
    stopped = model.generate(prompts_BT, 40, stop_token=stop)[:, 20:]
    ends = [row.tolist().index(stop) if stop in row.tolist() else 40 for row in free]
    assert stopped.shape[1] == min(max(ends) + 1, 40)
    for row, end in enumerate(ends):
        assert torch.equal(stopped[row, : end + 1], free[row, : stopped.shape[1]][: end + 1])
        assert (stopped[row, end:] == stop).all()


def test_without_a_number_as_many_as_complete(model: Model, prompts_BT: torch.Tensor) -> None:
    assert torch.equal(model.generate(prompts_BT), model.generate(prompts_BT, 20))


def test_no_new_tokens_give_the_prompt(model: Model, prompts_BT: torch.Tensor) -> None:
    assert torch.equal(model.generate(prompts_BT, 0), prompts_BT)


@pytest.mark.parametrize(
    "options",
    [
        {"max_new_tokens": 109},
        {"max_new_tokens": -1},
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_k": 0},
        {"top_k": 161},
        {"stop_token": 160},
        {"stop_token": -1},
        {"temperature": "a"},
        {"temperature": None},
        {"temperature": 10**400},
        {"temperature": [0.5, 0.5]},
        {"top_k": 1.5},
        {"top_k": "3"},
        {"stop_token": 1.5},
        {"seed": "x"},
        {"seed": 1.0},
        {"seed": 2**63},
        {"max_new_tokens": 1.5},
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(
    model: Model, prompts_BT: torch.Tensor, options: dict
) -> None:
    (what,) = options
    what = "positions|new tokens" if what == "max_new_tokens" else what
    with pytest.raises(ArgumentError, match=what):
        model.generate(prompts_BT, **{"max_new_tokens": 3, **options})


def test_numbers_of_other_libraries_are_numbers(model: Model, prompts_BT: torch.Tensor) -> None:
    plain = model.generate(prompts_BT, 4, temperature=0.5, top_k=9, seed=3, stop_token=7)
    options = {"temperature": np.float32(0.5), "top_k": np.int64(9), "seed": np.uint8(3)}
    theirs = model.generate(prompts_BT, np.int32(4), **options, stop_token=torch.tensor(7))
    assert torch.equal(theirs, plain)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_is_chosen_by_logits_that_are_nan(
    tiny: Architecture, pair_of: Callable, prompts_BT: torch.Tensor, temperature: float
) -> None:
    model = pair_of(tiny).ours
    model.weights.flat.fill_(torch.nan)
    with pytest.raises(NonFiniteError, match="after 20 tokens"):
        model.generate(prompts_BT, 3, temperature=temperature)


def test_too_long_and_foreign_input_is_refused_before_the_first_step(model: Model) -> None:
    with pytest.raises(ArgumentError, match="128 positions"):
        greedy_steps(model, torch.zeros(1, 100, dtype=torch.int64), 29)
    with pytest.raises(TokenRangeError):
        greedy_steps(model, torch.full((1, 5), 160), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_keys_and_values_take_no_more_than_they_may(
    tiny: Architecture, pair_of: Callable, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the kernels keep them in, and however they pad them."""
    limit = 4 << 20
    monkeypatch.setattr("pythia_fast.model.generate.CACHE_BYTES", limit)
    model: Model = pair_of(tiny, dtype).ours
    assert model.native is not None
    count = sequences_at_once(model, 40)
    a, kernels = tiny, model.native.kernels
    taken = []
    for sequences in (count, count + 1):
        room = kernels.room_for_keys(sequences, a.heads, a.head_dim, 40)
        taken.append(a.layers * (room.keys_BX.nbytes + room.values_BX.nbytes))
    assert taken[0] <= limit < taken[1]
