"""What a model computes does not depend on the modes of torch that its caller is in."""

import functools
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import ParamSpec, TypeVar

import torch

from pythia_fast.model import rounding

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
_DEVICES = ("cpu", "cuda")


class _OfThread(threading.local):
    inside = False


_thread = _OfThread()


def apart(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Call it without gradients, outside of autocast and inference mode, in full float32.

    Autocast, and TF32, would round what is to be exact, and tensors of inference mode cannot be
    written to, nor be the input of a probe that is trained.
    """

    @functools.wraps(function)
    def called(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        apart_already = not (
            torch.is_inference_mode_enabled()
            or torch.is_grad_enabled()
            or any(map(torch.is_autocast_enabled, _DEVICES))
        )
        if apart_already and (_thread.inside or not rounding.is_allowed()):
            return function(*args, **kwargs)  # there are several such calls for each token
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            for device in _DEVICES:
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            if not _thread.inside:
                stack.enter_context(rounding.forbidden())
                stack.callback(setattr, _thread, "inside", False)
                _thread.inside = True
            return function(*args, **kwargs)

    return called
