"""The resident arena: all weights of a model in one allocation, overwritten in place by each load.

Addresses never change, so whatever was captured of them (views, CUDA graphs) stays valid. What is
derived from weights lies in the arena too and is refreshed with them.
"""

import contextlib
import mmap
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from pythia_fast.core import Read, read_tensors
from pythia_fast.errors import ArgumentError, WeightsError
from pythia_fast.model.parameters import BlockWeights, Layout, Norm, Parameters, Place, parameters
from pythia_fast.series.checkpoint import Checkpoint
from pythia_fast.series.tensors import TensorRange
from pythia_fast.suite.architecture import Architecture

DTYPES = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
"""The dtypes that a model can have, with their names in files."""


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a load read. `nonfinite`: NaN and Inf by weight name, for the weights that hold any.

    Values are counted as they lie in the arena, after conversion. `copy_s` of `elapsed_s` went
    into the copy to the GPU.
    """

    nonfinite: Mapping[str, int]
    read_bytes: int
    elapsed_s: float
    copy_s: float = 0.0


def read_places(
    pairs: Iterable[tuple[TensorRange, Place]], flat: torch.Tensor, threads: int | None = None
) -> list[int]:
    """Read tensors of files to their places in `flat` (on the CPU), converted to its dtype.

    Returns how many values of each are NaN or Inf. `threads` None is torch's number of threads.
    """
    itemsize, dtype = flat.dtype.itemsize, DTYPES[flat.dtype]
    reads = [
        Read(
            tensor.file,
            tensor.offset,
            tensor.dtype,
            place.rows,
            place.columns,
            place.offset * itemsize,
            dtype,
            place.stride * itemsize,
        )
        for tensor, place in pairs
    ]
    memory = flat.view(torch.uint8).numpy().data
    return read_tensors(reads, memory, threads or torch.get_num_threads())


def _huge_zeros(numel: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros [numel] in memory of their own, in huge pages where the system gives any.

    An arena is read and written whole, all the time: with pages of 4 KB a swap takes 10 to 30%
    longer, for looking up where they are (one thread, 70m in bfloat16, on a busy machine).
    """
    memory = mmap.mmap(-1, numel * dtype.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype)


class Weights:
    """The arena of one architecture: `flat` [numel] and named views of it.

    ArgumentError for a dtype other than float32, bfloat16 and float16. The values are zero until
    something is loaded. `generation` counts the loads, which tells whether a derived fact is stale.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        if dtype not in DTYPES:
            raise ArgumentError(f"dtype is float32, bfloat16 or float16, not {dtype}")
        self.architecture = architecture
        self.layout = Layout(architecture, dtype.itemsize)
        if torch.device(device).type == "cpu":
            self.flat = _huge_zeros(self.layout.numel, dtype)
        else:
            self.flat = torch.zeros(self.layout.numel, dtype=dtype, device=device)
        self.views = parameters(self.layout, self.flat)
        # Views that stay without gradients if the arena is trained.
        self._summed = tuple(
            (block.attention_out_bias_D, block.mlp_out_bias_D, block.out_bias_D)
            for block in parameters(self.layout, self.flat.detach()).layers
        )
        self.generation = 0
        self._staging: torch.Tensor | None = None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every weight."""
        return self.flat.dtype

    @property
    def device(self) -> torch.device:
        """Where the arena lies."""
        return self.flat.device

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

    def load(self, checkpoint: Checkpoint, *, threads: int | None = None) -> LoadReport:
        """Overwrite everything with a checkpoint's weights, converted to this arena's dtype.

        `threads` read (default: torch's number of threads). WeightsError, before anything is
        written, if the checkpoint is of another architecture. A read that fails part of the way
        leaves the arena full of NaN, so that no number comes from mixed weights.
        """
        start_s = time.perf_counter()
        if checkpoint.architecture != self.architecture:
            raise WeightsError(
                f"{checkpoint.source} holds {checkpoint.architecture}, but the resident model is "
                f"{self.architecture}: make a model for each architecture"
            )
        self._check_names(checkpoint.tensors)
        ranges = [checkpoint.tensors[name] for name in self.layout.places]
        host = self._host()
        try:
            counts = read_places(
                zip(ranges, self.layout.places.values(), strict=True), host, threads
            )
        except BaseException:
            self._spoil()
            raise
        read_s = time.perf_counter()
        copied = host.data_ptr() != self.flat.data_ptr()
        if copied:
            self.flat.detach().copy_(host)
        self.refresh()
        end_s = time.perf_counter()
        return LoadReport(
            nonfinite={
                name: count for name, count in zip(self.layout.places, counts, strict=True) if count
            },
            read_bytes=sum(tensor.nbytes for tensor in ranges),
            elapsed_s=end_s - start_s,
            copy_s=end_s - read_s if copied else 0.0,
        )

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
        return {
            name: self._view(place.offset, place.shape, place.stride).clone()
            for name, place in self.layout.places.items()
        }

    @torch.no_grad()
    def refresh(self) -> None:
        """Recompute what is derived from weights; needed after writing to `flat` by hand."""
        for attention_D, mlp_D, sum_D in self._summed:
            torch.add(attention_D, mlp_D, out=sum_D)
        self.generation += 1

    def trainable(self) -> tuple[torch.Tensor, Parameters]:
        """(leaf, parameters): `flat` with `requires_grad`, and views of it that carry gradients.

        Give the leaf to an optimizer, the parameters to `neox.logits`, and take new ones each step.
        Call `refresh` before the arena is used for inference again.
        """
        self.flat.requires_grad_()
        return self.flat, parameters(self.layout, self.flat)

    @torch.no_grad()
    def _spoil(self) -> None:
        """Leave no number that mixed weights could give."""
        self.flat.fill_(torch.nan)
        self.generation += 1

    def _host(self) -> torch.Tensor:
        """Memory that files are read into: the arena on a CPU, else a pinned copy kept for use."""
        if self.device.type == "cpu":
            return self.flat.detach()
        if self._staging is None:
            self._staging = torch.zeros(
                self.layout.numel, dtype=self.dtype, pin_memory=self.device.type == "cuda"
            )
        return self._staging

    def _view(self, offset: int, shape: tuple[int, ...], stride: int) -> torch.Tensor:
        strides = (1,) if len(shape) == 1 else (stride, 1)
        return self.flat.detach().as_strided(shape, strides, offset)

    def _check_names(self, names: Mapping[str, object]) -> None:
        missing = [name for name in self.layout.places if name not in names]
        unknown = [name for name in names if name not in self.layout.places]
        if missing or unknown:
            parts = [
                f"{what} {', '.join(sorted(some)[:4])}{' …' if len(some) > 4 else ''}"
                for what, some in (("lack", missing), ("have the unknown", unknown))
                if some
            ]
            raise WeightsError(f"the weights {' and '.join(parts)}")
