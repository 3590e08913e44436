"""What a model computes does not depend on the modes of torch that its caller is in."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch

from pythia_fast.model.rounding import forbidding

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_DEVICES = ("cpu", "cuda")


def apart(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Call it without gradients, outside of autocast and inference mode, in full float32.

    Autocast, and TF32, would round what is to be exact, and tensors of inference mode cannot be
    written to, nor be the input of a probe that is trained.
    """

    @functools.wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        is_apart = not (
            torch.is_inference_mode_enabled()
            or torch.is_grad_enabled()
            or any(map(torch.is_autocast_enabled, _DEVICES))
        )
        if is_apart and forbidding.here:  # within another such call: several for each token
            return function(*args, **kwargs)
        with torch.inference_mode(False), torch.no_grad(), ExitStack() as stack:
            for device in _DEVICES:
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            if forbidding.here:
                return function(*args, **kwargs)
            try:
                forbidding.enter()
                return function(*args, **kwargs)
            finally:
                forbidding.leave()

    return called
