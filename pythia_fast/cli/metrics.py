"""Metrics as `--metrics` names them: built-in ones, and a user's own."""

import sys
import sysconfig
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pythia_fast.errors import ArgumentError
from pythia_fast.named import find_here, load, told

if TYPE_CHECKING:
    from pythia_fast.metrics import Metric


def load_metrics(
    names: Sequence[str], *, per_token: bool = False, for_ray: bool = False
) -> list["str | Metric"]:
    """Built-in names as they are, and what module:name and file.py:name stand for.

    A class is called without arguments. With `per_token` perplexity is that with each token's loss.
    What `for_ray` is sent to workers comes with its code, as they may not have its module.
    ArgumentError.
    """
    metrics: list[str | Metric] = []
    for name in names:
        if per_token and name == "perplexity":
            from pythia_fast.metrics import Perplexity

            metrics.append(Perplexity(per_token=True))
        elif ":" in name:
            metrics.append(_own(name))
            if for_ray:
                _send_code_of(metrics[-1])
        else:
            metrics.append(name)
    return metrics


def _own(name: str) -> Any:
    find_here()
    with redirect_stdout(sys.stderr):  # standard output is for results
        found = load(name, "metric")
        if not isinstance(found, type):
            return found
        try:
            return found()
        except (Exception, SystemExit) as error:
            raise ArgumentError(
                f"{name!r} is a class, and no metric came of calling it without arguments: "
                f"{told(error, __file__)}"
            ) from error


def _send_code_of(metric: object) -> None:
    """Have Ray send the package of a metric too, unless it is an installed one."""
    from pythia_fast.extras import require
    from pythia_fast.metrics.code import module_of

    module = sys.modules.get(module_of(metric))
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return
    installed = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    if any(Path(file).is_relative_to(folder) for folder in installed):
        return
    package = module.__name__.partition(".")[0] if module.__spec__ else module.__name__
    require("ray").cloudpickle.register_pickle_by_value(sys.modules[package])
