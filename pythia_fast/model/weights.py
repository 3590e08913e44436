"""The resident arena: all weights of a model in one allocation, overwritten in place by each load.

Addresses never change, so whatever was captured of them (views, CUDA graphs) stays valid. What is
derived from weights lies in the arena too and is refreshed with them.

On a GPU an arena is filled from files through a ring of pinned memory, or from an arena of the host
that is pinned as a whole, layer after layer, while the first layers compute already.
"""

import mmap
import time
from collections.abc import Mapping

import torch

from pythia_fast.errors import ArgumentError, WeightsError
from pythia_fast.model.pages import huge_pages
from pythia_fast.model.parameters import (
    DTYPES,
    BlockWeights,
    Layout,
    Norm,
    Parameters,
    parameters,
)
from pythia_fast.model.reading import LoadReport, read_places
from pythia_fast.model.ring import Ring, ring_of
from pythia_fast.model.streams import Event, Streams, streams_of
from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.series.tensors import TensorRange
from pythia_fast.suite.architecture import Architecture
from pythia_fast.words import listed


class Weights:
    """The arena of one architecture: `flat` [numel] and named views of it.

    ArgumentError for a dtype other than float32, bfloat16 and float16. The values are zero until
    something is loaded. `generation` counts the loads, which tells whether a derived fact is stale.

    `ring` is what files come through into memory that is a device's; a GPU has one. `pinned_by`
    makes an arena of the host out of which a device's arena can `pour`. `unawaited` are its `views`
    for who waits layer by layer until what is poured is there.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        ring: Ring | None = None,
        pinned_by: Streams | None = None,
    ) -> None:
        if dtype not in DTYPES:
            raise ArgumentError(f"dtype is float32, bfloat16 or float16, not {dtype}")
        self.architecture = architecture
        self.layout = Layout(architecture, dtype.itemsize)
        # Whoever makes it in inference mode does not load it there: another thread does.
        with torch.inference_mode(False):
            if pinned_by is not None:
                self.flat = pinned_by.pinned(self.layout.numel * dtype.itemsize).view(dtype)
            elif torch.device(device).type == "cpu":
                pages = huge_pages(mmap.mmap, self.layout.numel * dtype.itemsize)
                self.flat = torch.frombuffer(pages, dtype=dtype)
            else:
                self.flat = torch.zeros(self.layout.numel, dtype=dtype, device=device)
            self.unawaited = parameters(self.layout, self.flat)
            # Views that stay without gradients if the arena is trained.
            self._summed = tuple(
                (block.attention_out_bias_D, block.mlp_out_bias_D, block.out_bias_D)
                for block in parameters(self.layout, self.flat.detach()).layers
            )
        self.generation = 0
        self._streams = _streams(self.device, ring)
        self._ring = ring
        self._pinned_by = pinned_by
        self._arriving: tuple[Event, ...] = ()  # for each of the layout's parts
        self._poured_out: Event | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every weight."""
        return self.flat.dtype

    @property
    def device(self) -> torch.device:
        """Where the arena lies."""
        return self.flat.device

    @property
    def views(self) -> Parameters:
        """All weights by name. The computing stream waits until they have arrived."""
        self.await_layer(self.architecture.layers)
        return self.unawaited

    @property
    def embed_VD(self) -> torch.Tensor:
        """The input embedding."""
        return self.views.embed_VD

    @property
    def layers(self) -> tuple[BlockWeights, ...]:
        """The blocks' weights."""
        return self.views.layers

    @property
    def final_norm(self) -> Norm:
        """The LayerNorm before the unembedding."""
        return self.views.final_norm

    @property
    def unembed_VD(self) -> torch.Tensor:
        """The output embedding."""
        return self.views.unembed_VD

    @property
    def arrived(self) -> bool:
        """Whether all that was poured is there, so that nobody need wait for a layer."""
        if self._arriving and self._arriving[-1].query():
            self._arriving = ()
        return not self._arriving

    def await_layer(self, layer: int) -> None:
        """Let the computing stream wait for a layer and those before it; this thread goes on.

        -1 is the embedding, L the final LayerNorm and the unembedding, with which all is there.
        """
        if self._streams is not None and not self.arrived:
            self._streams.compute_after(self._arriving[layer + 1])

    def last_use(self) -> Event | None:
        """After which these weights may be overwritten, as far as this thread's work goes.

        What it has given to the GPU so far, or, of an arena of the host, what was poured out of it.
        """
        return self._poured_out if self._streams is None else self._streams.computed()

    def load(
        self, checkpoint: Checkpoint, *, threads: int | None = None, after: Event | None = None
    ) -> LoadReport:
        """Overwrite everything with a checkpoint's weights, converted to this arena's dtype.

        `threads` read (default: torch's number of threads). Nothing is overwritten before `after`;
        None is what the calling thread's `last_use` is. When it returns, all is there.

        WeightsError, before anything is written, if the checkpoint is of another architecture. A
        read that fails part of the way leaves the arena full of NaN, so that no number comes from
        mixed weights. PinnedMemoryError where a GPU cannot be copied to.
        """
        start_s = time.perf_counter()
        if checkpoint.architecture != self.architecture:
            raise WeightsError(
                f"{checkpoint.source} holds {checkpoint.architecture}, but the resident model is "
                f"{self.architecture}: make a model for each architecture"
            )
        self._check_names(checkpoint.tensors)
        ranges = [checkpoint.tensors[name] for name in self.layout.places]
        after = self.last_use() if after is None else after
        if self._streams is not None and self._ring is None:
            self._ring = ring_of(self._streams)
        try:
            counts, copy_s = self._read(ranges, threads or torch.get_num_threads(), after)
        except BaseException:
            self._spoil()
            raise
        self._arriving = ()
        self.generation += 1
        return LoadReport(
            nonfinite={
                name: count for name, count in zip(self.layout.places, counts, strict=True) if count
            },
            read_bytes=sum(tensor.nbytes for tensor in ranges),
            elapsed_s=time.perf_counter() - start_s,
            copy_s=copy_s,
        )

    def _read(
        self, ranges: list[TensorRange], threads: int, after: Event | None
    ) -> tuple[list[int], float]:
        """How many values of each tensor are not finite, and the seconds waited for copies."""
        if self._ring is not None:
            return self._ring.load(ranges, self.layout, self.flat.detach(), threads, after)
        if after is not None:
            after.synchronize()
        pairs = zip(ranges, self.layout.places.values(), strict=True)
        counts = read_places(pairs, self.flat.detach(), threads)
        self._sum_biases()
        return counts, 0.0

    def pour(self, source: "Weights") -> None:
        """Overwrite everything with what an arena of the host holds, pinned by the same streams.

        Returns at once: the layers arrive one after the other, when what this thread has given to
        the computing stream so far is done (`await_layer`, `arrived`). `source` is not to be
        written to before its `last_use`, for which its `load` waits. ArgumentError for an arena of
        another kind.
        """
        streams = self._streams
        if streams is None or source._pinned_by is not streams:
            raise ArgumentError("only pinned memory of the host can be poured, and only into a GPU")
        if source.layout != self.layout or source.dtype != self.dtype:
            raise ArgumentError(
                f"an arena of {source.architecture} in {source.dtype} cannot be poured into one of "
                f"{self.architecture} in {self.dtype}"
            )
        streams.copy_after(streams.computed())
        arriving = []
        for begin, end in self.layout.parts:
            streams.copy(self.flat.detach()[begin:end], source.flat[begin:end])
            arriving.append(streams.copied())
        self._arriving = tuple(arriving)
        self.generation += 1
        source._poured_out = arriving[-1]

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Overwrite everything from tensors under Hugging Face names, converted to this dtype.

        WeightsError, before anything is written, for a missing or unknown name or a wrong shape. A
        copy that fails part of the way leaves NaN, as `load` does.
        """
        self._check_names(state)
        for name, place in self.layout.places.items():
            if tuple(state[name].shape) != place.shape:
                raise WeightsError(
                    f"{name} has shape {tuple(state[name].shape)}, but the architecture has "
                    f"{place.shape}"
                )
        self.await_layer(self.architecture.layers)
        try:
            with torch.no_grad():
                for name, place in self.layout.places.items():
                    self._view(place.offset, place.shape, place.stride).copy_(state[name])
        except BaseException:
            self._spoil()
            raise
        self.refresh()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """A copy of every weight under its Hugging Face name, in this arena's dtype."""
        self.await_layer(self.architecture.layers)
        return {
            name: self._view(place.offset, place.shape, place.stride).clone()
            for name, place in self.layout.places.items()
        }

    def refresh(self) -> None:
        """Recompute what is derived from weights; needed after writing to `flat` by hand."""
        self.await_layer(self.architecture.layers)
        self._sum_biases()
        self.generation += 1

    @torch.no_grad()
    def _sum_biases(self) -> None:
        for attention_D, mlp_D, sum_D in self._summed:
            torch.add(attention_D, mlp_D, out=sum_D)

    def trainable(self) -> tuple[torch.Tensor, Parameters]:
        """(leaf, parameters): `flat` with `requires_grad`, and views of it that carry gradients.

        Give the leaf to an optimizer, the parameters to `neox.logits`, and take new ones each step.
        Call `refresh` before the arena is used for inference again.
        """
        self.await_layer(self.architecture.layers)
        self.flat.requires_grad_()
        return self.flat, parameters(self.layout, self.flat)

    @torch.no_grad()
    def _spoil(self) -> None:
        """Leave no number that mixed weights could give."""
        self.generation += 1
        self._arriving = ()
        if self._streams is None:
            self.flat.fill_(torch.nan)
            return
        self._streams.fill(self.flat.detach(), torch.nan)  # in the order of the copies
        self._streams.copied().synchronize()

    def _view(self, offset: int, shape: tuple[int, ...], stride: int) -> torch.Tensor:
        strides = (1,) if len(shape) == 1 else (stride, 1)
        return self.flat.detach().as_strided(shape, strides, offset)

    def _check_names(self, names: Mapping[str, object]) -> None:
        missing = [name for name in self.layout.places if name not in names]
        unknown = [name for name in names if name not in self.layout.places]
        if missing or unknown:
            parts = [
                f"{what} {listed(sorted(some), 4)}"
                for what, some in (("lack", missing), ("have the unknown", unknown))
                if some
            ]
            raise WeightsError(f"the weights {' and '.join(parts)}")


def _streams(device: torch.device, ring: Ring | None) -> Streams | None:
    """What copies into the arena, if that is a device's."""
    if ring is not None:
        return ring.streams
    return streams_of(device) if device.type == "cuda" else None
