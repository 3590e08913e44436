"""Where Pythia's own training data lies on the Hub, in the order in which the models saw it.

The preshuffled sets hold 146,432,000 rows of 2049 uint16: 2048 inputs and the shifted label.
"""

REPOSITORIES = {
    "pile-standard": "EleutherAI/pile-standard-pythia-preshuffled",
    "pile-deduped": "EleutherAI/pile-deduped-pythia-preshuffled",
}

ROWS = 146_432_000
ROW_TOKENS = 2049
