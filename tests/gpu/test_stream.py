"""Sweeps and streams on a GPU: the right numbers, from any arena, without waiting or growing.

B sequences, T tokens.
"""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function

import pythia_fast
from pythia_fast.errors import DeviceMemoryError
from pythia_fast.kernels.cross_entropy import linear_nll
from pythia_fast.model import Weights, neox
from pythia_fast.series import open_series
from pythia_fast.streaming import arenas, resident


@pytest.fixture(scope="module")
def exact_and_torchs(series, small, ids, cuda):
    """Of each step, each token's nats in float64 on the CPU, and in float16 by torch on the GPU."""
    found = {}
    for step in range(5):
        losses = []
        for device, dtype in ((torch.device("cpu"), torch.float32), (cuda, torch.float16)):
            weights = Weights(small, dtype=dtype, device=device)
            weights.load(open_series(series).open(step))
            if dtype == torch.float32:
                state = {name: x.double() for name, x in weights.state_dict().items()}
                losses.append(_by_definition(state, small, ids))
                continue
            ids_BT = torch.from_numpy(ids).to(device)
            shape = neox.Shape.of(small, device)
            with torch.inference_mode():
                h_ND = neox.hidden(ids_BT[:, :-1], weights.views, shape).flatten(0, 1)
                nll_N = linear_nll(h_ND, weights.unembed_VD, ids_BT[:, 1:].flatten())
            losses.append(nll_N.view(len(ids), -1).cpu().double())
        found[step] = losses
    return found


def _by_definition(state, small, ids):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = GPTNeoXConfig(**small.to_config(), attn_implementation="eager")
    model = GPTNeoXForCausalLM(config).double().eval()
    state["lm_head.weight"] = state.pop("embed_out.weight")
    model.load_state_dict(state)
    ids_BT = torch.from_numpy(ids)
    with torch.inference_mode():
        logits_BTV = model(ids_BT[:, :-1]).logits
    return torch.nn.functional.cross_entropy(
        logits_BTV.transpose(1, 2), ids_BT[:, 1:], reduction="none"
    )


@pytest.mark.parametrize("dtype", ["float16", "auto"])
def test_a_sweep_is_as_near_to_float64_as_torch(series, ids, tmp_path, exact_and_torchs, dtype):
    result = pythia_fast.sweep(
        series,
        tokens=ids.astype(np.uint16),
        metrics=[pythia_fast.Perplexity(per_token=True)],
        dtype=dtype,
        out=tmp_path,
        progress=False,
    )
    rows = result.sequences.to_pylist()
    for step, (exact_BT, torchs_BT) in exact_and_torchs.items():
        found_BT = torch.tensor([row["token_nll"] for row in rows if row["step"] == step])
        error, torch_error = (
            float((x.double() - exact_BT).abs().max()) for x in (found_BT, torchs_BT)
        )
        assert error <= 2 * torch_error + 1e-6


@pytest.mark.parametrize("metric", ["memorization", "memorization-score"])
def test_flags_and_scores_are_those_of_a_cpu(series, ids, tmp_path, metric):
    columns = []
    for device, dtype in (("cuda", "float16"), ("cpu", "float32")):
        result = pythia_fast.sweep(
            series,
            tokens=ids.astype(np.uint16),
            metrics=[metric],
            device=device,
            dtype=dtype,
            out=tmp_path / dtype,
            progress=False,
        )
        name = "first_mismatch" if metric == "memorization" else "score"
        columns.append(result.sequences[name].to_pylist())
    assert columns[0] == columns[1]


def losses(series: Path, ids: np.ndarray) -> dict[int, torch.Tensor]:
    return {
        step: model.nll(ids).clone()
        for step, model in pythia_fast.stream(series, dtype="float16", device="cuda")
    }


@pytest.fixture
def kinds_of_arenas(monkeypatch):
    """What `make_arenas` has made."""
    made, make = [], arenas.make_arenas

    def noted(*arguments, **rest):
        made.append(make(*arguments, **rest))
        return made[-1]

    monkeypatch.setattr(resident, "make_arenas", noted)
    return made


def test_one_arena_and_two_give_the_same_bits(series, ids, monkeypatch, kinds_of_arenas):
    two = losses(series, ids)
    monkeypatch.setattr(arenas, "MEMORY_SHARE", 0.0)
    poured = losses(series, ids)
    monkeypatch.setattr(arenas, "HOST_SHARE", 0.0)
    by_turns = losses(series, ids)
    shapes = [(len(made.loading), made.poured_into is not None) for made in kinds_of_arenas]
    assert shapes[0] == (2, False)
    assert shapes[1] in ((1, True), (2, True))
    assert shapes[2] == (1, False)
    for step in range(5):
        assert torch.equal(poured[step], two[step])
        assert torch.equal(by_turns[step], two[step])


def test_a_stream_gives_the_bits_of_models_loaded_one_by_one(series, ids, replays):
    """Passes recorded with the first checkpoints are replayed with the others' weights.

    Those of a model that is asked for the first time are not recorded yet.
    """
    streamed = losses(series, ids)
    assert len(set(replays)) == 2  # one for each arena
    assert len(replays) >= 3
    replays.clear()
    for step, nll_BT in streamed.items():
        alone = pythia_fast.load(series, step, dtype="float16", device="cuda")
        assert torch.equal(alone.nll(ids), nll_BT)
    assert not replays
    assert len({float(nll_BT.sum()) for nll_BT in streamed.values()}) == 5


def test_nobody_waits_for_the_whole_device(series, ids):
    """CUDA's own record of what was called between two checkpoints, by any thread."""
    stream = pythia_fast.stream(series, dtype="float16", device="cuda")
    next(stream)[1].nll(ids).cpu()
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with profile(activities=activities, acc_events=True) as profiled:
        next(stream)[1].nll(ids).cpu()
        with record_function("watched"):
            for _, model in stream:
                model.nll(ids).cpu()
    events = profiled.events()
    (watched,) = [
        event for event in events if event.name == "watched" and event.device_type == DeviceType.CPU
    ]
    inside = {
        event.name
        for event in events
        if watched.time_range.start <= event.time_range.start <= watched.time_range.end
    }
    assert any(name.startswith("cudaLaunchKernel") or "Graph" in name for name in inside)
    assert "cudaDeviceSynchronize" not in inside


def test_losses_wait_for_nothing(series, ids, cuda):
    """Ids are checked on the host: no number of the GPU is looked at before the caller does."""
    model = pythia_fast.load(series, 0, dtype="float16", device=cuda)
    expected_BT = model.nll(ids)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found_BT = model.nll(model.place_ids(ids))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found_BT, expected_BT)


def test_memory_does_not_grow_over_fifty_swaps(series, ids):
    steps, taken = [step % 5 for step in range(52)], []
    arenas_of = open_series(series)
    model = pythia_fast.load(series, 0, dtype="float16", device="cuda")
    other = Weights(model.architecture, dtype=torch.float16, device="cuda")
    both = (model.weights, other)
    for number, step in enumerate(steps):
        weights = both[number % 2]
        checkpoint = arenas_of.open(step)
        weights.load(checkpoint)
        checkpoint.close()
        model.weights = weights
        model.nll(ids).cpu()
        taken.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert taken[-1] == taken[1]


def test_a_batch_that_does_not_fit_is_halved(series, small, cuda):
    """The driver's word on free memory is too hopeful here: only a real failure tells."""
    ids = np.random.default_rng(1).integers(0, small.vocab_rows, (4096, 256))
    expected = pythia_fast.load(series, 0, dtype="float16", device=cuda).nll(ids[:64]).cpu()
    torch.cuda.empty_cache()
    model = pythia_fast.load(series, 0, dtype="float16", device=cuda)
    total = torch.cuda.get_device_properties(cuda).total_memory
    limit = torch.cuda.memory_reserved() + (96 << 20)
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        before = torch.cuda.memory_stats()["num_ooms"]
        found = model.nll(ids).cpu()
        assert torch.cuda.memory_stats()["num_ooms"] > before
        again = torch.cuda.memory_stats()["num_ooms"]
        assert torch.equal(model.nll(ids).cpu(), found)
        assert torch.cuda.memory_stats()["num_ooms"] == again  # it is remembered
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.equal(found[:64], expected)


def test_what_does_not_fit_at_all_is_a_typed_error(series, small, cuda):
    model = pythia_fast.load(series, 0, dtype="float16", device=cuda)
    total = torch.cuda.get_device_properties(cuda).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
    try:
        with pytest.raises(DeviceMemoryError):
            model.nll(np.zeros((1, 256), dtype=np.int64))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


LOST = """
import sys
import numpy as np
import torch
import pythia_fast
from dataclasses import dataclass
from pythia_fast.errors import SweepError


@dataclass(frozen=True)
class Breaking:
    name = "breaking"
    settings = {}

    def __call__(self, model, batch):
        columns = pythia_fast.Perplexity()(model, batch)
        if model.step == 2:  # a device-side assertion: the context is lost
            torch.zeros(4, device=model.device)[batch.ids_BT + 1000].sum().item()
        return columns


series, out = sys.argv[1:]
ids = np.random.default_rng(0).integers(0, 1000, (4, 40)).astype(np.uint16)
try:
    pythia_fast.sweep(series, tokens=ids, metrics=[Breaking()], dtype="float16", device="cuda",
                      out=out, on_error="skip", progress=False)
except SweepError as error:
    print("ended:", error)
"""


def test_a_cuda_error_ends_the_sweep_and_finished_steps_are_kept(series, tmp_path):
    """In a process of its own, which it costs the GPU."""
    command = [sys.executable, "-c", LOST, str(series), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=250)
    assert "ended:" in done.stdout, done.stderr
    counts = pythia_fast.status(tmp_path).counts["breaking"]
    assert (counts.done, counts.of) == (2, 5)
