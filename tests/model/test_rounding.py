"""Torch rounds no operand of a float32 product inside, and does what the program set outside."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import pythia_fast
from pythia_fast.model import Model, rounding
from pythia_fast.model.apart import apart

CUDA, MKLDNN = rounding._BACKENDS


def _tf32_by_a_flag() -> None:
    CUDA.allow_tf32 = True


def _tf32_of_cuda() -> None:
    CUDA.fp32_precision = "tf32"


def _bfloat16_of_a_processor() -> None:
    MKLDNN.fp32_precision = "bf16"


def _tf32_of_all() -> None:
    torch.backends.fp32_precision = "tf32"


def _older_then_newer() -> None:
    torch.set_float32_matmul_precision("medium")
    CUDA.fp32_precision = "ieee"


SETTINGS: dict[str, Callable[[], None]] = {
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "a flag": _tf32_by_a_flag,
    "cuda": _tf32_of_cuda,
    "a processor": _bfloat16_of_a_processor,
    "all": _tf32_of_all,
    "older, then newer": _older_then_newer,
}


@contextmanager
def forbidden() -> Iterator[None]:
    rounding.forbidding.enter()
    try:
        yield
    finally:
        rounding.forbidding.leave()


@contextmanager
def another_inside() -> Iterator[None]:
    """Another thread is inside from the beginning to the end."""
    entered, leave = threading.Event(), threading.Event()

    def go() -> None:
        with forbidden():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=go)
    thread.start()
    assert entered.wait(60)
    try:
        yield
    finally:
        leave.set()
        thread.join()


def said() -> list[object]:
    """What torch says of these settings, in each way that it can be asked."""
    ways: tuple[Callable[[], object], ...] = (
        torch.get_float32_matmul_precision,
        lambda: CUDA.allow_tf32,
        lambda: CUDA.fp32_precision,
        lambda: MKLDNN.fp32_precision,
        lambda: torch.backends.fp32_precision,
    )
    answers: list[object] = []
    for way in ways:
        try:
            answers.append(way())
        except RuntimeError as error:  # older functions, where newer ones were used
            answers.append(str(error))
    return answers


@pytest.fixture(autouse=True)
def _as_torch_begins() -> Iterator[None]:
    before = said()
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    CUDA.fp32_precision = MKLDNN.fp32_precision = "none"
    assert said() == before, "the next test would not begin as this one did"


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_is_forbidden_inside_and_as_it_was_outside(setting: str) -> None:
    SETTINGS[setting]()
    before = said()
    assert rounding.is_allowed()
    for _ in range(2):
        with forbidden():
            assert not rounding.is_allowed()
            assert torch.get_float32_matmul_precision() == "highest"
            assert not CUDA.allow_tf32
        assert said() == before


@pytest.mark.parametrize("after", ["none", "ieee", "tf32"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_it_is_then_as_if_nobody_had_been_inside(setting: str, after: str) -> None:
    """What was set for all, and not for each, still follows what is set for all."""
    found = []
    for enters in (False, True):
        torch.backends.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        CUDA.fp32_precision = MKLDNN.fp32_precision = "none"
        SETTINGS[setting]()
        if enters:
            with forbidden():
                pass
        torch.backends.fp32_precision = after
        found.append(said())
    assert found[0] == found[1]


def test_nothing_is_set_where_nothing_was_allowed() -> None:
    before = said()
    with forbidden():
        assert said() == before
    assert said() == before


def test_an_error_gives_it_back_too() -> None:
    torch.set_float32_matmul_precision("high")
    with pytest.raises(KeyError), forbidden():
        raise KeyError
    assert torch.get_float32_matmul_precision() == "high"


def test_the_last_of_several_threads_gives_it_back() -> None:
    torch.set_float32_matmul_precision("high")
    with ExitStack() as stack:
        with forbidden():
            stack.enter_context(another_inside())
        assert not rounding.is_allowed()
    assert torch.get_float32_matmul_precision() == "high"


def test_what_another_thread_sets_meanwhile_stays() -> None:
    CUDA.fp32_precision = "tf32"
    with forbidden():
        MKLDNN.fp32_precision = "bf16"
    assert (CUDA.fp32_precision, MKLDNN.fp32_precision) == ("tf32", "bf16")
    with forbidden():
        torch.set_float32_matmul_precision("medium")
    assert torch.get_float32_matmul_precision() == "medium"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # there is another thread
def test_a_child_has_the_settings_of_the_program() -> None:
    """Of the threads that are inside it has none but its own."""
    torch.set_float32_matmul_precision("high")
    with another_inside():
        child = os.fork()
        if not child:  # no test, but a process that says by its end what it has seen
            os._exit(0 if torch.get_float32_matmul_precision() == "high" else 1)
        _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


ANSWERS: dict[str, Callable[[Model, np.ndarray], object]] = {
    "logits": lambda model, ids: model(ids),
    "nll": lambda model, ids: model.nll(ids),
    "score": lambda model, ids: model.score(ids),
    "exact": lambda model, ids: model.exact(ids),
    "decide": lambda model, ids: model.decide(ids),
    "hidden_states": lambda model, ids: model.hidden_states(ids),
    "logit_lens": lambda model, ids: model.logit_lens(ids),
    "lens_scores": lambda model, ids: model.lens_scores(ids),
    "generate": lambda model, ids: model.generate(ids, 3),
    "decoder": lambda model, ids: model.decoder(len(ids), 9).feed(torch.from_numpy(ids[:, :8])),
}


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("name", ANSWERS)
def test_a_model_multiplies_in_full(
    tiny_series: Path,
    tiny_ids: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    gradients: bool,
) -> None:
    model = pythia_fast.load(tiny_series, 8, device="cpu", dtype="float32", progress=False)
    model.native = None
    model._referee.is_native = False
    seen: list[bool] = []
    norm = torch.layer_norm  # of every block, and before every unembedding

    def observed(*args: torch.Tensor) -> torch.Tensor:
        seen.append(rounding.is_allowed())
        return norm(*args)

    monkeypatch.setattr(torch, "layer_norm", observed)
    torch.set_float32_matmul_precision("high")
    with torch.set_grad_enabled(gradients):
        ANSWERS[name](model, tiny_ids[:2])
    assert seen
    assert not any(seen)
    assert torch.get_float32_matmul_precision() == "high"


def test_a_call_counts_that_begins_while_another_is_inside() -> None:
    """Also one of a thread that has switched gradients off itself."""
    torch.set_float32_matmul_precision("high")
    begun, other_left = threading.Event(), threading.Event()
    allowed: list[bool] = []

    @apart
    def look() -> None:
        begun.set()
        assert other_left.wait(60)
        allowed.append(rounding.is_allowed())

    def second() -> None:
        with torch.no_grad():
            look()

    thread = threading.Thread(target=second)

    @apart
    def first() -> None:
        thread.start()
        assert begun.wait(60)

    first()
    other_left.set()
    thread.join()
    assert allowed == [False]
    assert torch.get_float32_matmul_precision() == "high"


def test_a_call_within_a_call_looks_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def look() -> bool:
        nonlocal looks
        looks += 1
        return False

    monkeypatch.setattr(rounding, "is_allowed", look)
    inner = apart(lambda: None)
    apart(lambda: [inner() for _ in range(100)])()
    assert looks == 1
    with pytest.raises(KeyError):
        apart(lambda: {}[0])()
    apart(inner)()
    assert looks == 3, "an error leaves it as it was"
