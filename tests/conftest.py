"""Small models for all rooms: random weights, so that every path runs in milliseconds."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from pythia_fast.suite import Architecture
from pythia_fast.testing import make_series

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before a kernel is defined: triton looks at it then

# The same inputs in every run: what passes here passes in CI. `make search` tries others.
settings.register_profile("same", settings.get_profile("ci"))
settings.register_profile("search", settings.get_profile("default"), deadline=None, print_blob=True)
settings.load_profile("same")

TINY = Architecture(
    layers=2, width=64, heads=4, vocab_rows=160, intermediate=256, rotary_dims=4, max_positions=128
)


@pytest.fixture(scope="session")
def tiny() -> Architecture:
    return TINY


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long",
        action="store_true",
        help="tests that have a long form run it: `make faults`, `make kernels`",
    )


@pytest.fixture(scope="session")
def kernel_device() -> torch.device:
    """Where Triton kernels run: a GPU if there is one, else the CPU, in triton's interpreter."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    numpy, triton = (tuple(map(int, version(it).split(".")[:2])) for it in ("numpy", "triton"))
    if triton < (3, 7) and numpy >= (2, 4):
        pytest.skip("before 3.7, triton's interpreter needs a numpy before 2.4")
    return torch.device("cpu")


@pytest.fixture(scope="session")
def tiny_series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 0, 1, 2, 4, 8 and 16; safetensors and torch files in turn. Not to be written to."""
    folder = tmp_path_factory.mktemp("series") / "tiny"
    return make_series(folder, TINY, (0, 1, 2, 4, 8, 16), seed=7)


@pytest.fixture(scope="session")
def tiny_ids() -> np.ndarray:
    """24 sequences of 80 tokens, int64."""
    return np.random.default_rng(0).integers(0, TINY.vocab_rows, (24, 80))


@pytest.fixture
def interrupted() -> Callable[[Callable[[], bool]], AbstractContextManager[None]]:
    """`with interrupted(when):` presses Ctrl-C once `when()` is true, and then every five seconds.

    Python loses one that falls into a destructor, which a whole run of the tests has many of.
    """

    @contextmanager
    def pressing(when: Callable[[], bool]) -> Iterator[None]:
        over = threading.Event()

        def press() -> None:
            while not when():
                if over.wait(0.01):
                    return
            while not over.is_set():
                os.kill(os.getpid(), signal.SIGINT)
                over.wait(5.0)

        thread = threading.Thread(target=press)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    return pressing


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """`until(there)` waits for what another thread does, but not for ever."""

    def wait(there: Callable[[], bool]) -> None:
        end_s = time.monotonic() + 60
        while not there():
            assert time.monotonic() < end_s, "it did not come"
            time.sleep(0.001)

    return wait


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees or fills the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True, scope="session")
def _one_seed() -> None:
    torch.manual_seed(0)


WORDS = (
    *("She", "she", "He", "Him", "His", "Her", "he", "him", "his", "her", "mat", "saw", "said"),
    *("was", "and", "times", "plus"),
)


def _merged(words: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges that make each of `words`, and " word", a single token.

    Earlier merges come first, those of a space before all others.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(alphabet)}
    merges = []
    for text in (
        *("Ġ" + word for word in words),
        *words,
    ):
        for end in range(2, len(text) + 1):
            if text[:end] not in vocabulary:
                vocabulary[text[:end]] = len(vocabulary)
                merges.append((text[: end - 1], text[end - 1]))
    return vocabulary, merges


@pytest.fixture(scope="session")
def words() -> Tokenizer:
    """A tokenizer that is like Pythia's where words matter: a space belongs to what follows it.

    Some words and the numbers 0 to 99 are single tokens, and two spaces are a token of their own.
    """
    vocabulary, merges = _merged((*WORDS, *map(str, range(100))))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.add_tokens([AddedToken("  ", normalized=False)])
    return tokenizer
