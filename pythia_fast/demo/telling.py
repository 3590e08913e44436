"""The demo's story as text."""

from collections.abc import Iterator

from pythia_fast.demo.story import Story


def told(story: Story) -> str:
    """Table, promises, where everything lies, and what to try next."""
    return "\n".join([*_table(story), "", *_outcome(story), "", *_places(story), "", *_next(story)])


def _table(story: Story) -> Iterator[str]:
    times = sorted(story.rows[0].memorized)
    yield f"{'':26}memorized, of texts planted"
    heads = "".join(f"{f'{count}x':>7}" for count in times)
    yield f"{'step':>5}{'loss':>8}{'perplexity':>12}{heads}"
    for row in story.rows:
        shares = "".join(f"{row.memorized[count]:>7.0%}" for count in times)
        yield f"{row.step:>5}{row.loss:>8.3f}{row.perplexity:>12.2f}{shares}"


def _outcome(story: Story) -> Iterator[str]:
    recipe = story.made.recipe
    yield (
        f"Loss in nats per byte over the first {recipe.swept_rows} training sequences. Memorized: "
        "of a random text of"
    )
    yield "64 characters, the first 32 make the model write the other 32 without an error."
    yield ""
    if story.stopped_early:
        yield (
            f"NOTE: training ran out of time and stopped at step {story.made.steps} of "
            f"{recipe.steps}; give --seconds more and --fresh."
        )
    for promise in story.promises:
        yield f"  {'ok    ' if promise.kept else 'FAILED'}  {promise.text}"
    if not story.kept:
        yield "THE DEMO FAILED: what must come out of it did not."


def _places(story: Story) -> Iterator[str]:
    folder = story.made.folder
    yield f"In {folder.path}:"
    yield f"  {'suite/stepN/':<16}the checkpoints, as on the Hub, with suite/tokenizer.json"
    yield f"  {'data/train':<16}.bin and .idx: the training data in the order of training"
    yield f"  {'data/canaries':<16}.bin and .idx: the planted texts; canaries.json says where"
    yield f"  {'runs/':<16}what the sweeps found, in Parquet"
    if story.picture is None:
        extra = "pip install 'pythia-fast[analysis]'"
        yield f"No picture: it needs matplotlib ({extra}), then start again."
    else:
        yield f"  {story.picture.name:<16}the picture"


def _next(story: Story) -> Iterator[str]:
    folder = story.made.folder
    yield "Try next, in Python:"
    yield "  import pythia_fast"
    yield f'  result = pythia_fast.sweep("{folder.suite}", tokens="{folder.training_data}")'
    yield "  print(result.to_pandas())"
    yield "or in the shell:"
    yield f"  pythia-fast view {folder.training_data} --tokenizer {folder.tokenizer}"
    yield f'  pythia-fast generate {folder.suite} "The statement "'
