"""The compiled module's names, or an error that says how to build it.

All other modules import from here, never from `pythia_fast._core`.
"""

from pythia_fast.errors import CoreNotBuiltError

try:
    from pythia_fast._core import (
        CpuEngine,
        Cutter,
        File,
        LegacyRandom,
        OrderedStore,
        PackedWeight,
        Read,
        TermCounter,
        TokenStore,
        check_doc_idx,
        check_sample_idx,
        check_shuffle_idx,
        highest_document,
        instruction_sets,
        read_tensors,
        sum_lengths,
    )
except ImportError as error:
    raise CoreNotBuiltError(
        f"the compiled module pythia_fast._core cannot be imported ({error}). "
        "Build it with `pip install -e .` in the repository (this needs a C++20 compiler: "
        "g++ 12 or clang 14), or install the package with `pip install .`"
    ) from error

__all__ = [
    "CpuEngine",
    "Cutter",
    "File",
    "LegacyRandom",
    "OrderedStore",
    "PackedWeight",
    "Read",
    "TermCounter",
    "TokenStore",
    "check_doc_idx",
    "check_sample_idx",
    "check_shuffle_idx",
    "highest_document",
    "instruction_sets",
    "read_tensors",
    "sum_lengths",
]
