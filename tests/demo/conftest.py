"""One demo in small for all tests of this room: the same promises, in two seconds of training."""

from pathlib import Path

import pytest

from pythia_fast.demo import Recipe, Story, run_demo

SMALL = Recipe(
    steps=100,
    tokens=64,
    repetitions=(0, 1, 64),
    canaries_each=2,
    decay_steps=40,
    save_every=25,
    swept_rows=40,
)


@pytest.fixture(scope="session")
def small() -> Recipe:
    return SMALL


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Made and swept once; its folder is not to be written to."""
    return run_demo(
        tmp_path_factory.mktemp("made") / "demo", recipe=SMALL, progress=False, say=lambda _: None
    )


@pytest.fixture(scope="session")
def demo_folder(story: Story) -> Path:
    return story.made.folder.path
