import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.progress import Bar
from pythia_fast.tokens import TokenDataset, dataset
from pythia_fast.tokens.passes.summary import summary


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    span=st.tuples(st.integers(0, 12), st.integers(0, 12)),
    block=st.integers(1, 30),
)
def test_it_is_that_of_the_rows(tmp_path_factory, token_files, lengths, span, block):
    random = np.random.default_rng(len(lengths))
    rows = [random.integers(5, 60_000, size=length) for length in lengths]
    data = TokenDataset(token_files(tmp_path_factory.mktemp("summary") / "data", rows))
    chosen = range(*(min(end, len(rows)) for end in sorted(span)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "BLOCK_TOKENS", block)
        with Bar("stats", "rows", on=False) as bar:
            found = summary(data, chosen, bar)
        assert (bar.done, bar.total) == (len(chosen), len(chosen))
    some = [rows[row] for row in chosen]
    every = np.concatenate([*some, np.array([], dtype=int)])
    assert (found["sequences"], found["tokens"]) == (len(some), len(every))
    assert found["shortest"] == min(map(len, some), default=None)
    assert found["longest"] == max(map(len, some), default=0)
    assert found["lowest_id"] == (every.min() if len(every) else None)
    assert found["highest_id"] == (every.max() if len(every) else None)
    assert found["dtype"] == "uint16"
    assert found["fingerprint"] == data.fingerprint(chosen)
    if some:
        assert found["mean_length"] == pytest.approx(len(every) / len(some), abs=0.01)
