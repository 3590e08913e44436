"""GPT-NeoX's own checkpoints, `global_stepN/`, whose weights its model-parallel ranks share."""

from pythia_fast.series.gpt_neox.folder import GptNeoxSeries

__all__ = ["GptNeoxSeries"]
