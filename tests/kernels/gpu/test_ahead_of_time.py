"""Every kernel × configuration × dtype compiles for every chip, within what the chip has.

The ordinary tests compile for each chip in one of the dtypes, whose configurations are the same.
`make kernels` tests both, and shows the figures, of one chip more.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from pkgutil import iter_modules

import pytest
from cases import CASES, NO_MATRIX
from resources import ARCHS, TESTED, Compiling, compiling

from pythia_fast.kernels import gpu
from pythia_fast.kernels.gpu.chips import SHARED_BYTES, Chip

TOGETHER_S = 280
"""How long a case may take with those before it: the first waits for all that others compile."""

BRIEFLY = {80: "float16", 86: "bfloat16", 90: "float16", 100: "bfloat16"}


def chosen(config: pytest.Config) -> dict[int, list[str]]:
    """The cases of each chip."""
    every = config.getoption("--long")
    return {
        arch: [case for case in CASES if every or re.split("[/ .]", case)[-1] == BRIEFLY[arch]]
        for arch in TESTED
    }


@pytest.fixture(scope="module")
def everything(request: pytest.FixtureRequest) -> Iterator[Compiling]:
    with compiling(chosen(request.config)) as running:
        yield running


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        cases = chosen(metafunc.config).items()
        pairs = [(arch, case) for arch, of_arch in cases for case in of_arch]
        metafunc.parametrize(("arch", "case"), pairs)


def test_a_kernel_fits_the_chip(everything: Compiling, arch: int, case: str) -> None:
    chip = Chip((arch // 10, arch % 10), 132)
    for it in everything.found[arch, case].result(TOGETHER_S):
        assert it["shared_bytes"] <= chip.shared_bytes, it
        assert it["spilled_bytes"] == 0, it
        if arch == 90:
            assert it["wgmma"] == (it["kernel"] not in NO_MATRIX), it
            assert not it["serialized"], it


@pytest.mark.parametrize("arch", TESTED)
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
