"""Where the user's cache is."""

from pathlib import Path

import pytest

from pythia_fast.cache import cache_folder


@pytest.mark.parametrize("name", ["~/other", "other"])
def test_the_users_cache_is_one_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """However it is written: results are made and looked for in the same folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", name)
    assert cache_folder() == tmp_path / "other" / "pythia_fast"
    assert cache_folder(name) == tmp_path / "other"
