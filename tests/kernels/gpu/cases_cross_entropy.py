"""Compile cases of the linear cross-entropy."""

from collections.abc import Callable
from itertools import product

import torch

from pythia_fast.kernels.gpu.cross_entropy import linear_nll, linear_scores

# Narrow and wide, and the tokenizer's own ids without padding: not whole tiles.
SHAPES = {"70m": (50304, 512), "2.8b": (50304, 2560), "unpadded": (50277, 512)}


def _case(
    scorer: Callable[..., object], vocabulary: int, width: int, dtype: torch.dtype
) -> Callable[[], object]:
    h_ND = torch.empty(16384, width, dtype=dtype, device="meta")
    w_VD = torch.empty(vocabulary, width, dtype=dtype, device="meta")
    y_N = torch.empty(16384, dtype=torch.int64, device="meta")
    return lambda: scorer(h_ND, w_VD, y_N)


CASES = {
    f"{scorer.__name__} {name} {dtype}": _case(scorer, *shape, dtype)
    for scorer, (name, shape), dtype in product(
        (linear_nll, linear_scores), SHAPES.items(), (torch.float16, torch.bfloat16)
    )
}

NO_MATRIX = {"join_tiles": "adds up what the tiles say"}
