"""Which series a name means."""

from pathlib import Path

import pytest

from pythia_fast.errors import ArgumentError, MissingCheckpointError, UnknownModelError
from pythia_fast.series import LocalSeries, names_of, open_series
from pythia_fast.series.hub import HubSeries
from pythia_fast.suite import SUITE, Architecture, ModelSpec
from pythia_fast.testing import make_series


@pytest.fixture
def home(tmp_path: Path, tiny: Architecture, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current and the home folder, holding the series `mine`, `14m` and `EleutherAI/x`."""
    for name in ("mine", "14m", "EleutherAI/x"):
        make_series(tmp_path / name, tiny, (0,))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_folders(home: Path) -> None:
    for model in ("./mine", "~/mine", str(home / "mine"), home / "mine", Path("mine"), "mine"):
        series = open_series(model)
        assert isinstance(series, LocalSeries)
        assert series.folder == home / "mine"
    assert open_series("EleutherAI/x").source == str(home / "EleutherAI/x")


def test_models(home: Path) -> None:
    """A folder of a model's name does not hide the model; with ./ it is the folder."""
    for model in ("14m", "pythia-14m", "EleutherAI/pythia-14m"):
        series = open_series(model, cache_dir=home)
        assert isinstance(series, HubSeries)
        assert series.name == "14m"
        assert series.cache_dir == home
    assert isinstance(open_series("./14m"), LocalSeries)
    assert isinstance(open_series(Path("14m")), LocalSeries)


def test_neither(home: Path) -> None:
    with pytest.raises(
        UnknownModelError, match=r"'\./mime' is no folder here, and there is no mod"
    ):
        open_series("./mime")
    with pytest.raises(UnknownModelError, match="no model '15m'"):
        open_series("15m")
    with pytest.raises(UnknownModelError, match="no folder nowhere"):
        open_series(Path("nowhere"))
    (home / "empty").mkdir()
    with pytest.raises(MissingCheckpointError, match="no checkpoints"):
        open_series("./empty")


def test_a_local_spec_has_no_repository(tiny: Architecture) -> None:
    with pytest.raises(ArgumentError, match="no model of the Hub"):
        HubSeries(ModelSpec.local("mine", tiny, (0,)))


def test_an_empty_name_is_not_this_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home / "mine")
    assert isinstance(open_series("."), LocalSeries)
    with pytest.raises(UnknownModelError, match="no model ''"):
        open_series("")


def test_a_cache_that_can_be_none(home: Path) -> None:
    (home / "file").touch()
    (home / "link").symlink_to("nowhere")
    for name, words in (("file", "is a file, not a folder"), ("link", "leads nowhere")):
        with pytest.raises(ArgumentError, match=f"cannot be the cache: .*/{name} .*{words}"):
            open_series("14m", cache_dir=home / name)
    assert isinstance(open_series("14m", cache_dir=home / "new/x"), HubSeries)


def test_an_address_that_is_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub is here already: the module is not imported anew, but it would be asked."""
    monkeypatch.setenv("HF_ENDPOINT", "http://[::1")
    with pytest.raises(ArgumentError, match="HF_ENDPOINT"):
        open_series("14m")
    assert isinstance(open_series("./14m"), LocalSeries)


@pytest.mark.parametrize("model", ["~nobody-here/x", "Hello, I am " * 40, "a\0b"])
def test_what_cannot_be_a_path_is_no_model(home: Path, model: str) -> None:
    """A prompt in the model's place is longer than a file's name may be."""
    with pytest.raises(UnknownModelError):
        open_series(model)


@pytest.mark.parametrize("model", [None, 5, b"70m"])
def test_a_model_is_text_or_a_path(model: object) -> None:
    with pytest.raises(ArgumentError, match="a name or the path"):
        open_series(model)


@pytest.mark.parametrize(
    ("model", "names", "several"),
    [
        ("70m", ("70m",), False),
        (Path("all"), (Path("all"),), False),
        ("all", SUITE, True),
        (["70m"], ("70m",), True),
        (("b", Path("a")), ("b", Path("a")), True),
        (["mine", "all"], ("mine", *SUITE), True),
        ((name for name in "ab"), ("a", "b"), True),
        ([], (), True),
    ],
)
def test_which_models_are_meant(model: object, names: tuple[str, ...], several: bool) -> None:
    assert names_of(model) == (names, several)


@pytest.mark.parametrize("model", [None, 5, 1.5, b"70m", ["70m", 5], [["70m"]], {"70m": 1}.items()])
def test_what_names_no_model(model: object) -> None:
    with pytest.raises(ArgumentError, match="a model is a name or a folder, not"):
        names_of(model)
