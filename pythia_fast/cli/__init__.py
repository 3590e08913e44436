"""The command line. What a command needs is imported when it runs, so that --help is quick."""

import click

from pythia_fast.cli.audit import audit
from pythia_fast.cli.cache import cache
from pythia_fast.cli.checksum import checksum
from pythia_fast.cli.convert import convert
from pythia_fast.cli.demo import demo
from pythia_fast.cli.eval import evaluate
from pythia_fast.cli.frame import Group
from pythia_fast.cli.generate import generate
from pythia_fast.cli.models import models
from pythia_fast.cli.order import order
from pythia_fast.cli.plan import plan
from pythia_fast.cli.plot import plot
from pythia_fast.cli.published import published
from pythia_fast.cli.report import report
from pythia_fast.cli.shards import shard, unshard
from pythia_fast.cli.stats import stats
from pythia_fast.cli.status import status
from pythia_fast.cli.study import study
from pythia_fast.cli.swap_pronouns import swap_pronouns
from pythia_fast.cli.sweep import sweep
from pythia_fast.cli.tokenize import tokenize
from pythia_fast.cli.view import view

__all__ = ["main"]


@click.group(
    cls=Group,
    examples=(
        "pythia-fast demo                   watch a model learn, in about a minute",
        "pythia-fast models 70m             what is known of a model",
        "pythia-fast sweep 70m --steps log  how it learned to predict its training data",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="pythia-fast", message="%(prog)s %(version)s")
def main() -> None:
    """Stream the training checkpoints of Pythia through one resident model.

    Exit codes: 0 done, 2 wrong usage, 3 bad input, 4 not all of it done, 130 interrupted.
    """


for _command in (
    *(demo, plan, sweep, status, evaluate, plot, report, study, published),
    *(models, audit, generate, view, convert, swap_pronouns),
    *(tokenize, stats, order, unshard, shard, checksum, cache),
):
    main.add_command(_command)
