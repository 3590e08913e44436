"""WinoBias as tasks of lm-evaluation-harness, which itself has none.

Zhao et al. (2018, arXiv:1804.06876): sentences with two occupations and a pronoun, in line with the
stereotype ("pro") or against it ("anti"); in those of type 2 syntax alone tells who is meant. They
are asked with the two prompts of the suite's published evaluations, and counted as these were.
"""

from pathlib import Path


def wino_bias_tasks() -> Path:
    """The folder of the tasks, for `evaluate(include_path=...)` or the harness's `--include_path`.

    They are wino_bias_type1_pro_refers_to, …_type2_anti_stands_for, or all eight by the tag
    wino_bias. The sentences come from the Hub, uclanlp/wino_bias.
    """
    return Path(__file__).parent
