"""The ten sizes of Pythia: shapes, learning rates and what the model cards say of each.

Sources: the table in every model card on the Hub, arXiv:2304.01373 (tables 1 and 5), and the
configuration files `models/*/*.yml` of github.com/EleutherAI/pythia, called "the yml" below.
"""

from dataclasses import dataclass

from pythia_fast.suite.architecture import Architecture
from pythia_fast.suite.steps import TOKENS_PER_STEP


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What all models of one size share."""

    name: str
    architecture: Architecture
    learning_rate: float
    """The highest one, after warm-up."""
    equivalent: tuple[str, ...] = ()
    """Models of other suites with the same shape, as the model card lists them."""
    old_names: tuple[str, ...] = ()
    batch_tokens_v0: int | None = None
    """Tokens in a batch of the first release; None where there was none."""


def _shape(layers: int, width: int, heads: int, vocab_rows: int = 50_304) -> Architecture:
    """A Pythia: F = 4D, a quarter of each head rotated, parallel residual."""
    return Architecture(
        layers=layers,
        width=width,
        heads=heads,
        vocab_rows=vocab_rows,
        intermediate=4 * width,
        rotary_dims=width // heads // 4,
    )


_2M, _4M = TOKENS_PER_STEP, 2 * TOKENS_PER_STEP

SIZES = (
    Size(name="14m", architecture=_shape(6, 128, 4), learning_rate=1e-3),
    Size(name="31m", architecture=_shape(6, 256, 8), learning_rate=1e-3),
    Size(
        name="70m",
        architecture=_shape(6, 512, 8),
        learning_rate=1e-3,
        old_names=("19m",),
        batch_tokens_v0=_2M,
    ),
    Size(
        name="160m",
        architecture=_shape(12, 768, 12),
        learning_rate=6e-4,
        equivalent=("GPT-Neo 125M", "OPT-125M"),
        old_names=("125m",),
        batch_tokens_v0=_4M,
    ),
    Size(
        name="410m",
        architecture=_shape(24, 1024, 16),
        learning_rate=3e-4,
        equivalent=("OPT-350M",),
        old_names=("350m", "400m"),
        batch_tokens_v0=_4M,
    ),
    Size(
        name="1b",
        architecture=_shape(16, 2048, 8),
        learning_rate=3e-4,
        old_names=("800m",),
        batch_tokens_v0=_2M,
    ),
    Size(
        name="1.4b",
        architecture=_shape(24, 2048, 16),
        learning_rate=2e-4,
        equivalent=("GPT-Neo 1.3B", "OPT-1.3B"),
        old_names=("1.3b",),
        batch_tokens_v0=_4M,
    ),
    Size(
        name="2.8b",
        architecture=_shape(32, 2560, 32),
        learning_rate=1.6e-4,
        equivalent=("GPT-Neo 2.7B", "OPT-2.7B"),
        old_names=("2.7b",),
        batch_tokens_v0=_2M,
    ),
    Size(
        name="6.9b",
        architecture=_shape(32, 4096, 32, vocab_rows=50_432),
        learning_rate=1.2e-4,
        equivalent=("OPT-6.7B",),
        old_names=("6.7b",),
        batch_tokens_v0=_2M,
    ),
    Size(
        name="12b",
        architecture=_shape(36, 5120, 40, vocab_rows=50_688),
        learning_rate=1.2e-4,
        old_names=("13b",),
        batch_tokens_v0=_2M,
    ),
)
