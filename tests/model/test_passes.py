"""In how many passes a batch goes through a GPU, with nothing computed."""

import weakref
from collections.abc import Iterator

import pytest
import torch

from pythia_fast.errors import DeviceMemoryError
from pythia_fast.model import devices, passes
from pythia_fast.model.passes import MOST_TOKENS, Passes, finish

TOKEN_BYTES = 1000


class Memory:
    """Room for so many sequences, and what was tried in it."""

    def __init__(self, sequences: int) -> None:
        self.sequences = sequences
        self.done: list[str] = []

    def work(self, rows: slice) -> int:
        self.done.append(f"{rows.start} to {rows.stop}")
        if rows.stop - rows.start > self.sequences:
            raise torch.OutOfMemoryError("no room")
        return rows.start

    def give_back(self) -> None:
        self.done.append("given back")


@pytest.fixture
def on_cpu() -> Passes:
    return Passes(TOKEN_BYTES, torch.device("cpu"))


def on_gpu_with(free_bytes: int, monkeypatch: pytest.MonkeyPatch) -> Passes:
    monkeypatch.setattr(devices, "free_bytes", lambda device: free_bytes)
    return Passes(TOKEN_BYTES, torch.device("cuda"))


@pytest.mark.parametrize(
    ("free_bytes", "tokens"),
    [(2 * 100 * TOKEN_BYTES, 100), (0, 1), (1 << 40, MOST_TOKENS)],
)
def test_tokens_follow_from_what_is_free(
    monkeypatch: pytest.MonkeyPatch, free_bytes: int, tokens: int
) -> None:
    assert on_gpu_with(free_bytes, monkeypatch).tokens == tokens


def test_what_is_free_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = on_gpu_with(2 * 100 * TOKEN_BYTES, monkeypatch)
    assert planned.tokens == 100
    monkeypatch.setattr(devices, "free_bytes", lambda device: 0)
    assert planned.tokens == 100


def test_in_the_interpreter_half_a_full_pass_goes_at_a_time(on_cpu: Passes) -> None:
    assert on_cpu.tokens == passes.MEMORY_SHARE * MOST_TOKENS


def test_whole_sequences_go_together_and_come_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    planned, memory = on_gpu_with(2 * 100 * TOKEN_BYTES, monkeypatch), Memory(5)
    found = list(planned.run(5, 45, memory.work, memory.give_back))
    assert found == [(slice(0, 2), 0), (slice(2, 4), 2), (slice(4, 5), 4)]
    assert memory.done == ["0 to 2", "2 to 4", "4 to 5"]


def test_one_sequence_goes_however_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    planned, memory = on_gpu_with(2 * 100 * TOKEN_BYTES, monkeypatch), Memory(1)
    assert [rows for rows, _ in planned.run(2, 300, memory.work, memory.give_back)] == [
        slice(0, 1),
        slice(1, 2),
    ]


def test_what_does_not_fit_is_halved_after_memory_is_given_back(on_cpu: Passes) -> None:
    memory = Memory(3)
    found = [rows for rows, _ in on_cpu.run(9, 10, memory.work, memory.give_back)]
    assert memory.done[:5] == ["0 to 9", "given back", "0 to 4", "given back", "0 to 2"]
    assert [rows.stop for rows in found] == [2, 4, 6, 8, 9]
    assert on_cpu.tokens == 2 * 10
    again = Memory(3)
    finish(on_cpu.run(4, 10, again.work, again.give_back))
    assert again.done == ["0 to 2", "2 to 4"]


def test_one_sequence_that_does_not_fit_is_an_error(on_cpu: Passes) -> None:
    memory = Memory(0)
    with pytest.raises(DeviceMemoryError, match="one sequence of 10 tokens does not fit") as told:
        finish(on_cpu.run(3, 10, memory.work, memory.give_back))
    assert "its activations take 10 kB" in str(told.value)
    assert memory.done == ["0 to 3", "given back", "0 to 1", "given back"]


def test_the_failed_pass_is_gone_before_memory_is_given_back(on_cpu: Passes) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def work(rows: slice) -> None:
        activations = torch.empty(8)
        held.append(weakref.ref(activations))
        if rows.stop > 1:
            raise torch.OutOfMemoryError("no room")

    def give_back() -> None:
        assert held[-1]() is None

    finish(on_cpu.run(1, 10, work, give_back))
    finish(on_cpu.run(2, 10, lambda rows: work(slice(0, rows.stop - rows.start)), give_back))
    assert len(held) == 4


def test_finishing_goes_to_the_end() -> None:
    seen: list[int] = []

    def passes() -> Iterator[None]:
        for number in range(3):
            seen.append(number)
            yield

    finish(passes())
    assert seen == [0, 1, 2]
