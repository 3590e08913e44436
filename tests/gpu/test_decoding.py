"""Continuing sequences on a GPU: the same texts, by steps that are recorded once."""

import torch

import pythia_fast


def test_generated_texts_are_those_of_a_cpu(series, ids):
    """Greedy, as far as no two logits are nearly equal."""
    prompts = ids[:, :16]
    on_gpu = pythia_fast.load(series, 0, dtype="float16", device="cuda")
    on_cpu = pythia_fast.load(series, 0, dtype="float32", device="cpu")
    found, expected = (model.generate(prompts, 40).cpu() for model in (on_gpu, on_cpu))
    scores = on_cpu.score(expected)
    for row in range(len(prompts)):
        apart = (found[row] != expected[row]).nonzero()[:1]
        if len(apart):  # at a near tie, after which both go their own ways
            assert scores.margin[row, int(apart) - 1] <= on_gpu.near_tie
    assert (found == expected).all(1).float().mean() > 0.5


def test_sequences_that_have_stopped_change_nothing_for_the_others(series, ids):
    """They leave the batch; the others' steps are those of a larger or smaller graph."""
    model = pythia_fast.load(series, 1, dtype="float16", device="cuda")
    prompts = ids[:, :16]
    whole = model.generate(prompts, 40).cpu()
    stop = int(whole[0, 20])
    stopped = model.generate(prompts, 40, stop_token=stop).cpu()
    ended = 0
    for row in range(len(prompts)):
        hits = (whole[row, 16:] == stop).nonzero()
        end = 16 + int(hits[0]) + 1 if len(hits) else whole.shape[1]
        ended += end < whole.shape[1]
        end = min(end, stopped.shape[1])
        assert torch.equal(stopped[row, :end], whole[row, :end])
        assert (stopped[row, end:] == stop).all()
    assert ended


def test_a_step_of_decoding_is_recorded_once_and_replayed(series, ids, replays):
    model = pythia_fast.load(series, 1, dtype="float16", device="cuda")
    tokens = model.generate(ids[:5, :16], 40).cpu()
    assert len(replays) > len(set(replays)) > 0
    scores = model.score(tokens)  # teacher-forced: the same choices, but for near ties
    clear = scores.margin[:, 15:] > model.near_tie
    assert torch.equal(scores.argmax[:, 15:][clear].cpu(), tokens[:, 16:][clear.cpu()])
    assert clear.float().mean() > 0.8
