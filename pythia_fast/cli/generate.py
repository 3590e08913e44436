"""`pythia-fast generate`."""

from dataclasses import asdict
from pathlib import Path

import click

from pythia_fast.cli.frame import Command, common, print_json
from pythia_fast.cli.options import cache_dir_option, device_option, dtype_option, quiet_option


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
    help="A tokenizer.json, or its folder. [default: the model's own]",
)
@device_option
@dtype_option
@cache_dir_option
@quiet_option
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
    quiet: bool,
    as_json: bool,
) -> None:
    """Let a checkpoint of MODEL go on from PROMPT."""
    from pythia_fast.series import open_series
    from pythia_fast.suite import parse_steps
    from pythia_fast.tokens import load_tokenizer
    from pythia_fast.tokens.prompt import prompt_ids

    series = open_series(model, cache_dir=cache_dir)
    (chosen,) = parse_steps("last" if step is None else step, series.steps, series=series.name)
    text = load_tokenizer(tokenizer or series.tokenizer_file(chosen))
    prompt_ids(text, prompt)
    # Not before all that can be checked without torch.
    from pythia_fast.model import complete, resolve_precision
    from pythia_fast.model.devices import resolve_device
    from pythia_fast.streaming import load

    target = resolve_device(device)
    kind = resolve_precision(dtype, target, series.spec.architecture).name
    if not quiet:
        click.echo(f"{series.name} at step {chosen}: computing in {kind} on {target}", err=True)
    resident = load(
        *(model, chosen),
        device=target,
        dtype=kind,
        cache_dir=cache_dir,
        tokenizer=text,
        progress=not quiet,
    )
    found = complete(
        resident, prompt, max_new_tokens, temperature=temperature, top_k=top_k, seed=seed
    )
    if as_json:
        print_json({"model": series.name, "step": chosen} | asdict(found))
    else:
        click.echo(found.text)
