"""Every kernel in every configuration and dtype: launches on meta tensors, which compile only.

Each kernel's own are in a module `cases_*.py` beside this one: `CASES`, and `NO_MATRIX`, which says
of a kernel (by its name) why it has no matrix product on tiles that a warp group could take.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

CASES: dict[str, Callable[[], object]] = {}
NO_MATRIX: dict[str, str] = {}
for path in sorted(Path(__file__).parent.glob("cases_*.py")):
    module = import_module(path.stem)
    assert not CASES.keys() & module.CASES.keys()
    CASES.update(module.CASES)
    NO_MATRIX.update(getattr(module, "NO_MATRIX", {}))
