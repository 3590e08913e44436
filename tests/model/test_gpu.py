"""The forward pass by the Triton kernels: on a GPU, or else in triton's interpreter."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

from pythia_fast.errors import ArgumentError, DeviceMemoryError
from pythia_fast.kernels import reference
from pythia_fast.kernels.scores import TokenScores
from pythia_fast.metrics import Batch, Memorization, MemorizationScore
from pythia_fast.model import Model, Weights, greedy_steps, neox, resolve_precision
from pythia_fast.model.decode_gpu import GpuDecoder
from pythia_fast.model.gpu import Gpu, Room
from pythia_fast.model.graphs import Recorder, Tensors
from pythia_fast.model.parameters import Layout, parameters
from pythia_fast.suite import Architecture, ModelSpec
from pythia_fast.testing import tiny

ARCHITECTURE = replace(
    tiny(width=64, heads=2), layers=2, vocab_rows=197, max_positions=48, rotary_dims=8
)
SEQUENTIAL = replace(ARCHITECTURE, parallel_residual=False, activation="gelu_tanh")


@pytest.fixture(autouse=True)
def products_that_do_not_see_their_place(
    kernel_device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interpreted products are numpy's, whose float32 sums depend on a row's place in the tile.

    Summed in float64 and rounded once they do not, as on tensor cores, so that here too a row's
    bits are its own unless something above the products mixes rows.
    """
    if kernel_device.type == "cuda":
        return

    def create_dot(self: object, a: Any, b: Any, d: Any, *rest: object) -> TensorHandle:
        product = np.matmul(a.data, b.data, dtype=np.float64).astype(d.data.dtype)
        return TensorHandle(product + d.data, d.dtype.scalar)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


class Rerun:
    """Replays by doing the work again on the same memory, which shows what a graph would do."""

    def __init__(self) -> None:
        self.recorded = self.replayed = 0

    def record(self, work: Callable[[], Tensors]) -> tuple[Callable[[], None], Tensors]:
        self.recorded += 1
        outputs = work()
        for output in outputs:
            output.fill_(-1)  # as under capture: they have their memory, and nothing in it

        def replay() -> None:
            self.replayed += 1
            for output, now in zip(outputs, work(), strict=True):
                output.copy_(now)

        return replay, outputs


def fill(weights: Weights, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in weights.architecture.shapes().items():
        noise = torch.randn(shape, generator=generator)
        scale = 0.1 if name.endswith("bias") else 1 / shape[-1] ** 0.5
        state[name] = 1 + 0.2 * noise if name.endswith("norm.weight") else noise * scale
    weights.load_state_dict(state)


def model_of(
    architecture: Architecture,
    device: torch.device,
    dtype: torch.dtype,
    recorder: Recorder | None = None,
) -> Model:
    """With the Triton kernels on any device, as `Model` has them on a GPU."""
    weights = Weights(architecture, dtype=dtype, device=device)
    fill(weights, seed=3)
    model = Model(weights, ModelSpec.local("random", architecture, (0,)))
    model.native = None
    model.gpu = Gpu(architecture, model.shape, dtype, device, recorder=recorder)
    return model


@pytest.fixture(params=[torch.float16, torch.float32], ids=str)
def dtype(request: pytest.FixtureRequest, kernel_device: torch.device) -> torch.dtype:
    if kernel_device.type == "cuda" and request.param == torch.float32:
        pytest.skip("on a GPU, torch computes in float32")
    found: torch.dtype = request.param
    return found


@pytest.fixture
def model(kernel_device: torch.device) -> Model:
    return model_of(ARCHITECTURE, kernel_device, torch.float16)


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.randint(0, 197, (3, 21), generator=torch.Generator().manual_seed(0))


def by_torch(model: Model) -> Model:
    """The same weights, computed by torch."""
    other = Model(model.weights, model.spec)
    other.native = other.gpu = None
    return other


def in_float64(model: Model, ids: torch.Tensor, end_BT: torch.Tensor | None = None) -> torch.Tensor:
    """Logits [B, T, V] by the definition."""
    flat = model.weights.flat.detach().double()
    layout = Layout(model.architecture, model.weights.layout.itemsize)
    shape = neox.Shape.of(model.architecture, model.device)
    w = parameters(layout, flat)
    ids = ids.to(model.device)
    end_BT = None if end_BT is None else end_BT.to(model.device)
    return neox.hidden(ids, w, shape, end_BT=end_BT) @ w.unembed_VD.T


def truth(model: Model, ids: torch.Tensor, start: int = 0) -> TokenScores:
    logits = in_float64(model, ids[:, :-1])[:, start:]
    flat = logits.flatten(0, 1)
    targets = ids[:, 1 + start :].flatten().to(flat.device)
    scores = reference.linear_scores(flat, torch.eye(flat.shape[1]).to(flat), targets)
    return scores.map(lambda x_N: x_N.view(logits.shape[:2]))


def worst(found: torch.Tensor, true: torch.Tensor) -> float:
    return float((found.double() - true.double()).abs().max())


@pytest.mark.parametrize("architecture", [ARCHITECTURE, SEQUENTIAL], ids=["parallel", "sequential"])
def test_losses_and_scores_are_as_near_to_float64_as_torchs(
    architecture: Architecture, kernel_device: torch.device, dtype: torch.dtype, ids: torch.Tensor
) -> None:
    model = model_of(architecture, kernel_device, dtype)
    peer, true = by_torch(model), truth(model, ids)
    bound = 2 * worst(peer.nll(ids), true.nll) + 1e-6
    assert worst(model.nll(ids), true.nll) <= bound
    scores, peers = model.score(ids), peer.score(ids)
    for name in ("nll", "logsumexp", "target_logit", "margin"):
        error = worst(getattr(peers, name), getattr(true, name))
        assert worst(getattr(scores, name), getattr(true, name)) <= 2 * error + 1e-6
    clear = true.margin > bound
    assert torch.equal(scores.argmax[clear], true.argmax[clear])
    assert clear.float().mean() > 0.9


def test_from_a_start_on_the_scores_are_the_same_bits(model: Model, ids: torch.Tensor) -> None:
    whole, part = model.score(ids), model.score(ids, start=13)
    assert torch.equal(part.nll, whole.nll[:, 13:])
    assert torch.equal(part.argmax, whole.argmax[:, 13:])


def test_a_sequences_bits_are_its_own(model: Model, ids: torch.Tensor) -> None:
    together = model.nll(ids)
    alone = torch.cat([model.nll(ids[row : row + 1]) for row in range(len(ids))])
    assert torch.equal(together, alone)


def test_logits_and_lenses(model: Model, ids: torch.Tensor) -> None:
    true = in_float64(model, ids)
    peer = by_torch(model)
    bound = 2 * worst(peer(ids), true) + 1e-6
    logits = model(ids)
    assert worst(logits, true) <= bound
    lens = model.logit_lens(ids)
    assert torch.equal(lens[2], logits)
    states, peers = model.hidden_states(ids), peer.hidden_states(ids)
    deeper = {layer: states[layer].float() - peers[layer].float() for layer in states}
    unit = torch.finfo(model.dtype).eps
    for layer, difference in deeper.items():
        assert difference.abs().max() <= 16 * unit * peers[layer].abs().max(), layer
    scores = model.lens_scores(ids, [1, 2])
    assert torch.equal(scores[2].nll, model.score(ids).nll)


def test_trees_and_places(model: Model) -> None:
    ids = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13, 14]])
    end = torch.tensor([[10, 10, 10, 10, 10, 7, 7, 10, 10, 10]])
    row, place = torch.tensor([0, 0, 0]), torch.tensor([9, 6, 4])
    target = torch.tensor([3, 4, 5])
    found = model.score_at(ids, row, place, target, end)
    peer = by_torch(model).score_at(ids, row, place, target, end)
    logits = in_float64(model, ids, end)[0][place.to(model.device)]
    true = torch.logsumexp(logits, -1) - logits.gather(1, target[:, None].to(logits.device))[:, 0]
    assert worst(found.nll, true) <= 2 * worst(peer.nll, true) + 2e-6
    other = torch.cat([ids[:, :5], ids[:, 7:]], 1)
    alone = model.score_at(other, row[:1], torch.tensor([7]), target[:1])
    assert worst(found.nll[:1], alone.nll) <= 2 * worst(peer.nll, true) + 2e-6


class TestDecoding:
    def test_greedy_steps_are_the_models_own_arg_maxes(
        self, model: Model, ids: torch.Tensor
    ) -> None:
        tokens, margins = zip(*greedy_steps(model, ids, 5), strict=True)
        new = torch.stack(tokens, 1)
        seen = torch.cat([ids.to(new.device), new], 1)
        scores = model.score(seen, start=ids.shape[1] - 1)
        clear = scores.margin > 0.02
        assert torch.equal(new[clear], scores.argmax[clear])
        assert clear.float().mean() > 0.6
        assert worst(torch.stack(margins, 1)[clear], scores.margin[clear]) < 0.02

    def test_the_bits_do_not_depend_on_company(self, model: Model, ids: torch.Tensor) -> None:
        together = [margin for _, margin in greedy_steps(model, ids, 3)]
        alone = [margin for _, margin in greedy_steps(model, ids[1:2], 3)]
        assert torch.equal(torch.stack(together)[:, 1:2], torch.stack(alone))

    def test_a_stopped_sequence_leaves_and_the_others_go_on_alike(
        self, model: Model, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        free = model.generate(ids, 4)[:, 21:]
        stop = int(free[0, 1])
        kept: list[int] = []
        keep = GpuDecoder.keep

        def noting(self: GpuDecoder, row_B: torch.Tensor) -> None:
            kept.append(len(row_B))
            keep(self, row_B)

        monkeypatch.setattr(GpuDecoder, "keep", noting)
        found = model.generate(ids, 4, stop_token=stop)[:, 21:]
        assert kept
        for row, tokens in enumerate(free.tolist()):
            end = tokens.index(stop) if stop in tokens else len(tokens)
            width = found.shape[1]
            expected = (tokens[:end] + [stop] * width)[:width]
            assert found[row].tolist() == expected

    def test_more_than_the_room_is_refused(self, model: Model, ids: torch.Tensor) -> None:
        decoder = model.decoder(3, 22)
        decoder.feed(ids.to(model.device))
        decoder.feed(ids[:, :1].to(model.device))
        with pytest.raises(ArgumentError, match="1 tokens after 22 are more than the 22"):
            decoder.feed(ids[:, :1].to(model.device))

    def test_prompts_go_through_in_parts(
        self, model: Model, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = model.generate(ids, 2)
        assert model.gpu is not None
        monkeypatch.setattr(model.gpu.passes, "_tokens", 21)
        assert torch.equal(model.generate(ids, 2), whole)


class TestRecorded:
    """Passes that come again are replayed, for whatever weights are in the arena then.

    What is recorded, and when it goes, is in `test_graphs`.
    """

    @pytest.fixture
    def recorder(self) -> Rerun:
        return Rerun()

    @pytest.fixture
    def recording(self, kernel_device: torch.device, recorder: Rerun) -> Model:
        if kernel_device.type == "cuda":
            pytest.skip("tests/gpu looks at real graphs")
        return model_of(ARCHITECTURE, kernel_device, torch.float32, recorder)

    def test_checkpoint_after_checkpoint(
        self, recording: Model, recorder: Rerun, ids: torch.Tensor
    ) -> None:
        plain = model_of(ARCHITECTURE, recording.device, torch.float32)
        for seed in range(2):
            fill(recording.weights, seed)
            fill(plain.weights, seed)
            for shift in (0, 1):
                some = (ids + shift) % 197
                assert torch.equal(recording.nll(some), plain.nll(some))
        assert torch.equal(recording.score(ids).margin, plain.score(ids).margin)
        assert (recorder.recorded, recorder.replayed) == (1, 3)

    def test_a_step_of_decoding_is_recorded_once_for_all_positions(
        self, recording: Model, recorder: Rerun, ids: torch.Tensor
    ) -> None:
        plain = model_of(ARCHITECTURE, recording.device, torch.float32)
        assert torch.equal(recording.generate(ids, 4), plain.generate(ids, 4))
        assert recorder.recorded == 1
        assert recorder.replayed == 2  # all steps but the prompt's and the first

    def test_a_larger_pass_takes_new_memory_and_forgets(
        self, recording: Model, recorder: Rerun, ids: torch.Tensor
    ) -> None:
        plain = model_of(ARCHITECTURE, recording.device, torch.float32)
        few, many = ids[:1], torch.cat([ids, ids])
        expected = {1: plain.nll(few), 6: plain.nll(many)}
        for some in (few, few, many, few, few):
            assert torch.equal(recording.nll(some), expected[len(some)])
        assert recorder.recorded == 2

    def test_weights_that_are_arriving_are_waited_for_layer_by_layer(
        self,
        recording: Model,
        recorder: Rerun,
        ids: torch.Tensor,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for _ in range(2):
            recording.nll(ids)
        awaited: list[int] = []
        monkeypatch.setattr(Weights, "arrived", property(lambda self: False))
        monkeypatch.setattr(Weights, "await_layer", lambda self, layer: awaited.append(layer))
        recording.nll(ids)
        assert awaited == [-1, 0, 1, 2]
        assert recorder.replayed == 1


class TestMemory:
    def test_a_pass_that_does_not_fit_is_halved_from_then_on(
        self, model: Model, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        many = torch.cat([ids, ids])[:5]
        whole, tried = model.nll(many), []
        gpu = model.gpu
        assert gpu is not None
        monkeypatch.setattr(gpu.passes, "_tokens", 1000)
        room = gpu.room

        def scarce(tokens: int):  # type: ignore[no-untyped-def]
            tried.append(tokens)
            if tokens > 2 * 20:
                raise torch.OutOfMemoryError("no room")
            return room(tokens)

        monkeypatch.setattr(gpu, "room", scarce)
        assert torch.equal(model.nll(many), whole)
        assert gpu.passes.tokens == 40
        assert [tokens for tokens in tried if tokens > 40] == [100]
        assert torch.equal(model.score(many).nll, whole)

    def test_prompts_that_do_not_fit_are_halved_too(
        self, model: Model, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, gpu, tried = model.generate(ids, 3), model.gpu, []
        assert gpu is not None
        room = gpu.room

        def scarce(tokens: int) -> Room:
            tried.append(tokens)
            if tokens > 2 * 21:
                raise torch.OutOfMemoryError("no room")
            return room(tokens)

        monkeypatch.setattr(gpu, "room", scarce)
        assert torch.equal(model.generate(ids, 3), whole)
        assert tried[:4] == [63, 21, 21, 21]

    def test_one_sequence_that_does_not_fit_is_an_error(
        self, model: Model, ids: torch.Tensor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def scarce(tokens: int) -> None:
            raise torch.OutOfMemoryError("no room")

        monkeypatch.setattr(model.gpu, "room", scarce)
        with pytest.raises(DeviceMemoryError, match="one sequence of 20 tokens does not fit"):
            model.nll(ids)


def test_memorization_is_that_of_torch(model: Model) -> None:
    ids = torch.randint(0, 197, (3, 12), generator=torch.Generator().manual_seed(1))
    ids[:2, 4:] = by_torch(model).generate(ids[:2, :4], 8).cpu()[:, 4:]
    batch = Batch(
        ids.to(model.device), torch.full((3,), 12).to(model.device), torch.arange(3).numpy()
    )
    for metric in (Memorization(4, 8), MemorizationScore(4, 8)):
        found, true = metric(model, batch), metric(by_torch(model), batch)
        for name in set(true) - {"margin", "redecided"}:
            assert str(found[name]) == str(true[name]), name


def test_who_computes_is_said(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Triton kernels" in model._repr_html_()
    assert "Triton kernels" not in by_torch(model)._repr_html_()
    monkeypatch.setattr(Model, "device", property(lambda self: torch.device("cuda")))
    assert repr(model).endswith("torch.float16 by Triton, cuda)")
    assert repr(by_torch(model)).endswith("torch.float16 by torch, cuda)")


@pytest.mark.parametrize(("head_dim", "taken"), [(32, True), (96, False)])
def test_what_the_kernels_take_is_reproducible(
    monkeypatch: pytest.MonkeyPatch, head_dim: int, taken: bool
) -> None:
    monkeypatch.setattr("pythia_fast.kernels.gpu.takes", lambda device, dtype: True)
    architecture = replace(ARCHITECTURE, width=2 * head_dim)
    found = resolve_precision("auto", torch.device("cuda"), architecture)
    assert (found.triton, found.reproducible) == (taken, taken)
