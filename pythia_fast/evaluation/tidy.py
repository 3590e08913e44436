"""The tidy form of evaluation results: one row for each step, task and metric."""

import pyarrow as pa

TIDY = pa.schema(
    [
        ("model", pa.string()),
        ("step", pa.int64()),
        ("task", pa.string()),
        ("metric", pa.string()),
        ("num_fewshot", pa.int64()),
        ("value", pa.float64()),
        ("stderr", pa.float64()),
    ]
)
"""The columns that every table of evaluations begins with.

`model` is the suite's name ("70m-deduped"), `step` the label of the checkpoint. `num_fewshot` and
`stderr` are null where they are not known.
"""
