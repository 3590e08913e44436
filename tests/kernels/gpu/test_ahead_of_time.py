"""Every kernel × configuration × dtype compiles for every chip, within what the chip has.

The ordinary tests compile for one chip of each kind, that which has least room.
`make kernels` tests all, and shows the figures, of one chip more.
"""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

import pytest
from cases import CASES, NO_MATRIX
from resources import ARCHS, BRIEFLY, TESTED, Compiling, compiling

from pythia_fast.kernels import gpu
from pythia_fast.kernels.gpu.chips import SHARED_BYTES, Chip

TOGETHER_S = 280
"""How long a case may take with those before it: the first waits for all that others compile."""


@pytest.fixture(scope="module")
def everything(long_form: bool) -> Iterator[Compiling]:
    with compiling(list(CASES), TESTED if long_form else BRIEFLY) as running:
        yield running


@pytest.fixture(params=TESTED)
def arch(request: pytest.FixtureRequest, everything: Compiling) -> int:
    if request.param not in everything.unread:
        pytest.skip("compiled for in the long form: `make kernels`")
    found: int = request.param
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_kernel_fits_the_chip(everything: Compiling, arch: int, case: str) -> None:
    chip = Chip((arch // 10, arch % 10), 132)
    for it in everything.found[arch, case].result(TOGETHER_S):
        assert it["shared_bytes"] <= chip.shared_bytes, it
        assert it["spilled_bytes"] == 0, it
        if arch == 90:
            assert it["wgmma"] == (it["kernel"] not in NO_MATRIX), it
            assert not it["serialized"], it


def test_every_configuration_is_compiled_by_some_case(everything: Compiling, arch: int) -> None:
    assert everything.unread[arch].result(TOGETHER_S) == []


def test_no_name_without_a_kernel(everything: Compiling) -> None:
    found = [future.result(TOGETHER_S) for future in everything.found.values()]
    assert {it["kernel"] for kernels in found for it in kernels} >= NO_MATRIX.keys()


def test_every_chip_with_configurations_of_its_own_is_compiled_for() -> None:
    for module in iter_modules(gpu.__path__, gpu.__name__ + "."):
        for name, configs in vars(import_module(module.name)).items():
            if name.endswith("CONFIGS"):
                assert {10 * major + minor for major, minor in configs} <= set(ARCHS), module.name
    assert {(arch // 10, arch % 10) for arch in ARCHS} <= SHARED_BYTES.keys()
