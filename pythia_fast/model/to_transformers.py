"""A model as transformers has it, for everything that is done there."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from pythia_fast.errors import ArgumentError, WeightsError
from pythia_fast.extras import require
from pythia_fast.model.parameters import DTYPES

if TYPE_CHECKING:
    import transformers

    from pythia_fast.model.model import Model


def to_transformers(
    model: "Model", dtype: str | torch.dtype | None = None
) -> "transformers.GPTNeoXForCausalLM":
    """A GPTNeoXForCausalLM with a copy of the weights, on the same device, for inference.

    `dtype` None is the resident one. ArgumentError for one that is not of `DTYPES`, or if
    transformers is not installed.
    """
    library = require("transformers")
    kind = model.dtype if dtype is None else _torch_dtype(dtype)
    config = library.GPTNeoXConfig(**model.architecture.to_config())
    state = {name: tensor.to(kind) for name, tensor in model.state_dict().items()}
    with _no_bars():
        loaded, info = library.GPTNeoXForCausalLM.from_pretrained(
            None, config=config, state_dict=state, dtype=kind, output_loading_info=True
        )
    if wrong := {what: names for what, names in info.items() if names}:
        raise WeightsError(f"transformers {library.__version__} does not take them all: {wrong}")
    loaded.config.name_or_path = model.spec.repo or model.spec.name
    peer: transformers.GPTNeoXForCausalLM = loaded.to(model.device)
    return peer


def _torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    for known in DTYPES:
        if dtype in (known, str(known).removeprefix("torch.")):
            return known
    raise ArgumentError(f"dtype is float32, bfloat16 or float16, not {dtype!r}")


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without transformers' bar for every model that is made."""
    logging = require("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
