"""How much memory is free, where."""

from pathlib import Path

import pytest
import torch

from pythia_fast.model import devices

GB = 10**9


def test_what_torch_keeps_for_later_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10 * GB, 80 * GB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60 * GB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 24 * GB)
    assert devices.free_bytes(torch.device("cuda")) == 46 * GB


@pytest.mark.parametrize(
    ("limit", "free"), [("3000000000", 1_500_000_000), ("max", None), ("1000000000", 0)]
)
def test_a_containers_memory_is_less_than_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, free: int | None
) -> None:
    (tmp_path / "memory.max").write_text(limit)
    (tmp_path / "memory.current").write_text("2000000000")
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 500000000\nfile 9\n")
    whole = devices.free_bytes(torch.device("cpu"))
    monkeypatch.setattr(devices, "CGROUP", tmp_path)
    found = devices.free_bytes(torch.device("cpu"))
    if free is None:
        assert abs(found - whole) < 2 << 30
    else:
        assert found == free
