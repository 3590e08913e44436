"""What a model computes does not depend on the modes of torch that its caller is in."""

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def apart(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Call it without gradients, and outside of autocast and of inference mode.

    Autocast would round what is to be exact, and tensors of inference mode cannot be written to,
    nor be the input of a probe that is trained.
    """

    @functools.wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with torch.inference_mode(False), torch.no_grad(), ExitStack() as stack:
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            return function(*args, **kwargs)

    return called
