"""Pickles of training states: plain data is understood or passed over, and nothing ever runs."""

import collections
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pythia_fast.errors import FormatError, UnsafePickleError
from pythia_fast.series.pickle_reader import PICKLE_LIMIT_BYTES, TensorView
from pythia_fast.series.plain_pickle import OPAQUE, read_plain_pickle
from pythia_fast.series.torch_zip import read_torch_state

PATH = Path("mp_rank_00_model_states.pt")


def read(raw: bytes) -> Any:
    return read_plain_pickle(raw, PATH, 1000)


def test_plain_data_as_pickle_itself_writes_it() -> None:
    plain = {
        "ints": [0, -1, 255, 65536, 2**31, -(2**40), 2**63 - 1],
        "floats": (0.5, -1e300, float("inf")),
        "nested": {"none": None, "truth": [True, False], 3: {"x": ("y",)}},
        "ordered": collections.OrderedDict(a=1),
        "text": "Grüße",
        "empty": ([], {}, ()),
        "shared": None,
    }
    plain["shared"] = plain["nested"]
    assert read(pickle.dumps(plain, protocol=2)) == plain


def test_shapes_are_tuples_and_arrays_sets_and_bytes_are_passed_over() -> None:
    state = {
        "shape": torch.Size((2, 3)),
        "set": {1, 2},
        "array": np.random.RandomState(0).get_state(),
        "scalar": np.float32(1.5),
        "bytes": b"abc",
        "generator": random.Random(0).getstate(),
    }
    found = read(pickle.dumps(state, protocol=2))
    assert found["shape"] == (2, 3)
    assert found["set"] is found["scalar"] is found["bytes"] is OPAQUE
    kind, array, *rest = found["array"]
    assert (kind, array) == ("MT19937", OPAQUE)
    assert rest == list(state["array"][2:])
    assert found["generator"] == state["generator"]


def test_older_numpy_names_its_functions_otherwise() -> None:
    new = pickle.dumps({"a": np.zeros(2)}, protocol=2)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert read(new) == read(old) == {"a": OPAQUE}


@pytest.mark.parametrize(
    "name",
    [
        *(
            "posix system",
            "builtins eval",
            "builtins set",
            "__builtin__ getattr",
            "__builtin__ list",
        ),
        *("numpy load", "numpy.core.multiarray fromfile", "numpy.core.multiarray  scalar"),
        *("_codecs decode", "_codecs lookup", "torch.serialization load", "argparse Namespace"),
        *("deepspeed.runtime.fp16.loss_scaler LossScaler", "torch Tensor", "pathlib PosixPath"),
    ],
)
def test_any_other_name_is_refused(name: str) -> None:
    module, _, attribute = name.rpartition(" ")
    with pytest.raises(UnsafePickleError, match="asks for") as caught:
        read(f"\u0080\u0002}}c{module}\n{attribute}\n0.".encode("latin-1"))
    assert caught.value.offset == 1003


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"\x80\x02}Na.", "no list"),
        (b"\x80\x02}(NNe.", "no list"),
        (b"\x80\x02(e.", "no list"),
        (b"\x80\x02a.", "more from its stack"),
        (b"\x80\x02]e.", "lacks a mark"),
        (b"\x80\x02G\x00.", "in the middle"),
        (b"\x80\x02}]K\x01s.", "neither text nor an integer"),
        (b"\x80\x02}K\x01Ns.", "the key 1 of the outermost dictionary"),
        (b"\x80\x02}(K\x01NK\x01Nu.", "the key 1 appears twice"),
        (b"\x80\x02].", "holds no dictionary"),
        (b"\x80\x02}c__builtin__\nset\n}b.", "state"),
        (b"\x80\x02cnumpy\nndarray\n)R.", "arguments unknown"),
        (b"\x80\x02ctorch\nSize\n]\x85R.", "arguments unknown"),
        (b"\x80\x02c__builtin__\nset\n]R.", "without a tuple"),
        (b"\x80\x02c__builtin__\nset\n]\x85R(b.", "more from its stack"),
    ],
)
def test_malformed(raw: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        read(raw)


def test_a_pickle_over_the_limit() -> None:
    with pytest.raises(FormatError, match="are allowed"):
        read(b"\x80\x02" + bytes(PICKLE_LIMIT_BYTES))


def test_a_list_that_holds_itself_harms_nobody() -> None:
    found = read(b"\x80\x02}X\x01\x00\x00\x00a]q\x00h\x00as.")
    assert found["a"][0] is found["a"]


BOMBS = {
    "lists in lists": b"]" * 1_000_000 + b"a" * 999_999,
    "a list doubled": b"]" + b"q\x00(h\x00h\x00e" * 250_000,
    "opaque states": b"c__builtin__\nset\n)R" + b"Nb" * 900_000,
    "numbers": b"](" + b"G\x00\x00\x00\x00\x00\x00\x00\x00" * 200_000 + b"e",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_end_soon(bomb: str) -> None:
    with pytest.raises(FormatError):
        read(b"\x80\x02" + BOMBS[bomb] + b".")


def test_random_instructions_end_in_a_typed_error_or_data(pickles) -> None:
    rng = random.Random(20_261_128)
    pieces = [bytes([op]) for op in b"(N\x88\x89)\x85\x86\x87t}subR.Q]ae"]
    pieces += [b"K\x01", b"q\x00", b"h\x00", pickles.text("a"), pickles.storage(2)]
    pieces += [b"c__builtin__\nset\n", b"ctorch\nSize\n", b"G" + bytes(8), pickles.tensor()]
    understood = 0
    for _ in range(5000):
        raw = b"\x80\x02" + b"".join(rng.choices(pieces, k=rng.randint(1, 25))) + b"."
        try:
            understood += isinstance(read(raw), dict)
        except FormatError:
            continue
    assert understood


def test_only_the_tensors_asked_for_are_located(files, pickles) -> None:
    good, bad = pickles.tensor(), pickles.tensor(key="missing")
    inner = b"}(" + pickles.text("w") + good + pickles.text("n") + b"K\x03u"
    raw = pickles.dictionary({"module": inner, "other": bad, "list": b"]"})
    file = files.open(files.archive(raw, {"data/0": bytes(12)}))
    found = read_torch_state(file, "module")
    assert found is not None
    assert {name: tensor.shape for name, tensor in found.items()} == {"w": (2, 3)}
    assert read_torch_state(file, "nothing") is None
    with pytest.raises(FormatError, match="'list' is no dictionary"):
        read_torch_state(file, "list")
    with pytest.raises(FormatError, match="which is missing"):
        read_torch_state(file)


def test_a_tensor_stays_a_tensor(pickles) -> None:
    found = read(pickles.dictionary({"a": pickles.tensor(), "b": b"]"}))
    assert isinstance(found["a"], TensorView)
