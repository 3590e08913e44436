"""`pythia-fast generate`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_fast.cli.frame import Command, common, print_json
from pythia_fast.cli.options import device_option, dtype_option

if TYPE_CHECKING:
    from pythia_fast.series import CheckpointSeries
    from pythia_fast.series.hub import HubSeries

TOKENIZER = "tokenizer.json"


@click.command(
    cls=Command,
    examples=(
        'pythia-fast generate 70m --step 512 "Hello, I am"',
        'pythia-fast generate 410m "Hello, I am" --temperature 0.8 --top-k 50 --seed 1',
        'pythia-fast generate demo/suite --step 100 "The statement "',
    ),
)
@click.argument("model")
@click.argument("prompt")
@click.option("--step", type=click.IntRange(min=0), help="The training step. [default: the last]")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="How many tokens to write at most; it ends at an end of text.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="0 takes the likeliest token, more draws more freely.",
)
@click.option(
    "--top-k", type=click.IntRange(min=1), help="Draw from so many likeliest tokens only."
)
@click.option(
    "--seed", type=click.IntRange(0, 2**63 - 1), help="The same seed draws the same tokens."
)
@click.option(
    "--tokenizer",
    type=click.Path(path_type=Path),
    help="A tokenizer.json. [default: the model's own]",
)
@device_option
@dtype_option
@click.option("--cache-dir", type=click.Path(path_type=Path), help="Where downloads go.")
@common
def generate(
    model: str,
    prompt: str,
    step: int | None,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    seed: int | None,
    tokenizer: Path | None,
    device: str | None,
    dtype: str,
    cache_dir: Path | None,
    as_json: bool,
) -> None:
    """Let a checkpoint of MODEL go on from PROMPT."""
    from pythia_fast.errors import ArgumentError
    from pythia_fast.series import open_series
    from pythia_fast.suite import parse_steps
    from pythia_fast.tokens import load_tokenizer

    series = open_series(model, cache_dir=cache_dir)
    (chosen,) = parse_steps("last" if step is None else step, series.steps)
    text = load_tokenizer(tokenizer or find_tokenizer(series, chosen))
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise ArgumentError(f"the prompt is no valid text: {error}") from error
    ids = text.encode(prompt, add_special_tokens=False).ids
    if not ids:
        raise ArgumentError("the prompt gives no tokens: write at least one character")
    # Not before all that can be checked without torch.
    from pythia_fast.model import resolve_precision
    from pythia_fast.runs import load
    from pythia_fast.runs.streaming import resolve_device

    target = resolve_device(device)
    kind = resolve_precision(dtype, target, series.spec.architecture).name
    click.echo(f"{series.name} at step {chosen}: computing in {kind} on {target}", err=True)
    resident = load(model, chosen, device=target, dtype=kind, cache_dir=cache_dir)
    from pythia_fast.tokens.sources import END_OF_TEXT

    stop = text.token_to_id(END_OF_TEXT)
    known = stop is not None and stop < resident.architecture.vocab_rows
    written = resident.generate(
        [ids],
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        stop_token=stop if known else None,
    )[0].tolist()
    continuation = text.decode(written[len(ids) :], skip_special_tokens=True)
    if as_json:
        print_json(
            {
                "model": series.name,
                "step": chosen,
                "prompt": prompt,
                "continuation": continuation,
                "prompt_ids": ids,
                "continuation_ids": written[len(ids) :],
            }
        )
    else:
        click.echo(prompt + continuation)


def find_tokenizer(series: "CheckpointSeries", step: int) -> Path:
    """The model's own tokenizer.json: of the step or beside the steps, or from the Hub.

    MissingTokensError if a folder has none, and the errors of `hub_tokenizer`.
    """
    from pythia_fast.errors import MissingTokensError
    from pythia_fast.series import LocalSeries

    if not isinstance(series, LocalSeries):
        from pythia_fast.series.hub import HubSeries  # here: a folder has no need of the Hub

        if isinstance(series, HubSeries):
            return hub_tokenizer(series, step)
    folder = Path(series.source)
    places = (folder / f"step{step}" / TOKENIZER, folder / TOKENIZER)
    for place in places:
        if place.is_file():
            return place
    raise MissingTokensError(
        f"{series.name} has no tokenizer: neither {places[0]} nor {places[1]} is there; "
        "give one with --tokenizer"
    )


def hub_tokenizer(series: "HubSeries", step: int) -> Path:
    """The tokenizer.json in the revision of a step. MissingTokensError; HubSeries.file's errors."""
    from pythia_fast.errors import MissingCheckpointError, MissingTokensError

    series.commit(step)  # a branch that is missing is another error than its tokenizer
    try:
        return series.file(step, TOKENIZER)
    except MissingCheckpointError as error:
        raise MissingTokensError(
            f"{series.repo} at step {step} has no {TOKENIZER}; give one with --tokenizer"
        ) from error
