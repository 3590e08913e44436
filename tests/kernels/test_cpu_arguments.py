"""What the engine is handed is checked: a buffer that does not fit is an error, never a crash."""

import contextlib
import re
import threading

import numpy as np
import pytest

from pythia_fast.core import CpuEngine, instruction_sets
from pythia_fast.errors import ArgumentError

D, F, V, P = 8, 12, 20, 4
PADDED = 32


def aligned(count, dtype=np.float32, offset=0):
    """Zeros that begin `offset` bytes after a multiple of 64."""
    memory = np.zeros(count * np.dtype(dtype).itemsize + 128, np.uint8)
    start = -memory.ctypes.data % 64 + offset
    return memory[start : start + count * np.dtype(dtype).itemsize].view(dtype)


def matrix(rows, columns, dtype=np.float32):
    return np.zeros((rows, columns), dtype)


def operand(rows=D, panels=P, offset=0):
    return aligned(panels * -(-rows // 32) * 32 * 16, offset=offset)


def read_only(array):
    array.flags.writeable = False
    return array


def right_arguments(call):
    """A fresh set of arguments that fit, for a float32 engine."""
    ids = np.zeros(P * 16, np.int32)
    room = 2 * 2 * 2 * 16 * PADDED  # two sequences, two heads, two panels
    shape = (2, 2, 4, 2)
    return {
        "embed": {"table": matrix(V, D), "ids": ids, "x": aligned(P * D * 16), "panels": P},
        "norm": {
            "x": aligned(P * D * 16),
            "epsilon": 1e-5,
            "weights": [aligned(D)] * 2,
            "biases": [aligned(D)] * 2,
            "outs": [operand(), operand()],
            "features": D,
        },
        "heads": {
            "x": operand(),
            "weight": matrix(3 * D, D),
            "bias": aligned(3 * D),
            "cosines": aligned(64),
            "sines": aligned(64),
            "rotary": 4,
            "positions": 32,
            "queries": aligned(room),
            "keys": aligned(room),
            "values": aligned(room),
            "shape": shape,
        },
        "attention": {
            "queries": aligned(room),
            "keys": aligned(room),
            "values": aligned(room),
            "shape": shape,
            "out": operand(),
            "out_rows": D,
        },
        "mlp": {
            "x": operand(),
            "weight": matrix(F, D),
            "bias": aligned(F),
            "gelu": "none",
            "out": operand(D + F),
            "out_rows": D + F,
            "out_row": D,
        },
        "residual": {
            "a": operand(F),
            "weight": matrix(D, F),
            "bias": aligned(D),
            "x": aligned(P * D * 16),
        },
        "pick": {"matrix": matrix(V, D), "rows": ids, "out": operand()},
        "project": {
            "x": operand(),
            "weight": matrix(F, D),
            "bias": aligned(F),
            "to": aligned(P * F * 16),
        },
        "unpack": {
            "x": aligned(P * D * 16),
            "to": aligned(P * D * 16),
            "panels": P,
            "features": D,
        },
        "scores": {
            "x": operand(),
            "weight": matrix(V, D),
            "targets": ids,
            "tokens": 50,
            "nll": aligned(50),
            "logsumexp": aligned(50),
            "target_logit": aligned(50),
            "argmax": aligned(50, np.int64),
            "margin": aligned(50),
        },
    }[call]


CALLS = (
    *("embed", "pick", "norm", "heads", "attention", "mlp", "residual", "project"),
    *("unpack", "scores"),
)
WRITTEN = {
    "embed": ["x"],
    "heads": ["queries", "keys", "values"],
    "attention": ["out"],
    "mlp": ["out"],
    "residual": ["x"],
    "pick": ["out"],
    "project": ["to"],
    "unpack": ["to"],
    "scores": ["nll", "logsumexp", "target_logit", "argmax", "margin"],
}
BUFFERS = [
    (call, name)
    for call in CALLS
    for name, value in right_arguments(call).items()
    if isinstance(value, np.ndarray)
]
# Operands, queries, keys and values are bytes whose form only the kernels know.
BYTES = {"out", "queries", "keys", "values", "a"}
TYPED = [
    (call, name)
    for call, name in BUFFERS
    if name not in BYTES and (name != "x" or call in ("embed", "norm", "residual", "unpack"))
]


@pytest.fixture(scope="module")
def engine():
    return CpuEngine("float32")


def refused(engine, call, changes, match=None):
    with pytest.raises(ArgumentError, match=match):
        getattr(engine, call)(**(right_arguments(call) | {"threads": 1} | changes))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("threads", [1, 5])
def test_the_arguments_that_the_others_vary_are_right(engine, call, threads):
    getattr(engine, call)(**right_arguments(call), threads=threads)


@pytest.mark.parametrize(("call", "name"), BUFFERS)
def test_a_buffer_of_any_other_size_or_layout_is_refused(engine, call, name):
    right = right_arguments(call)[name]
    if right.ndim == 2:
        wrong = [right.T, right[:, ::-1], right[0], right[None], right[:, :0], right[:0]]
        wrong += [np.asfortranarray(right), np.broadcast_to(right[:1], right.shape)]
    else:
        wrong = [right[:-1], right[1:], right[:0], np.repeat(right, 3), np.repeat(right, 2)[::2]]
    for array in wrong:
        refused(engine, call, {name: array})


@pytest.mark.parametrize(("call", "name"), TYPED)
def test_a_buffer_of_any_other_type_is_refused(engine, call, name):
    right = right_arguments(call)[name]
    for dtype in (np.float64, np.int8, np.uint32, right.dtype.newbyteorder(">")):
        refused(engine, call, {name: right.astype(dtype)})


@pytest.mark.parametrize(("call", "name"), BUFFERS)
@pytest.mark.parametrize("offset", [1, 2])
def test_a_buffer_off_its_alignment_is_refused(engine, call, name, offset):
    right = right_arguments(call)[name]
    shifted = aligned(right.size, right.dtype, offset).reshape(right.shape)
    refused(engine, call, {name: shifted}, "aligned")


@pytest.mark.parametrize(
    ("call", "name"),
    [("heads", "x"), ("attention", "out"), ("mlp", "x"), ("mlp", "out"), ("residual", "a")],
)
def test_an_operand_begins_at_a_multiple_of_64_bytes(engine, call, name):
    right = right_arguments(call)[name]
    refused(engine, call, {name: aligned(right.size, offset=16)}, "aligned to 64 bytes")


@pytest.mark.parametrize(("call", "name"), [(c, n) for c, names in WRITTEN.items() for n in names])
def test_what_may_not_be_written_is_refused(engine, call, name):
    refused(engine, call, {name: read_only(right_arguments(call)[name])})


@pytest.mark.parametrize(("call", "name"), BUFFERS)
@pytest.mark.parametrize("thing", [None, 3, "text", [1.0]])
def test_what_has_no_memory_is_refused(engine, call, name, thing):
    if thing is None and (call, name) in (("scores", "argmax"), ("project", "bias")):
        return  # the nll alone; no bias
    refused(engine, call, {name: thing})


@pytest.mark.parametrize(
    ("call", "name"),
    [
        ("embed", "panels"),
        ("norm", "features"),
        ("heads", "rotary"),
        ("heads", "positions"),
        ("attention", "out_rows"),
        ("mlp", "out_rows"),
        ("mlp", "out_row"),
        ("unpack", "panels"),
        ("unpack", "features"),
        ("scores", "tokens"),
    ],
)
@pytest.mark.parametrize("value", [-1, 2**28 + 1, 2**40, 2**63, 2**64, 10**30])
def test_a_size_that_none_has_is_refused(engine, call, name, value):
    refused(engine, call, {name: value})


@pytest.mark.parametrize("value", [1.5, None, "4"])
def test_a_size_is_a_whole_number(engine, value):
    right = right_arguments("unpack") | {"panels": value, "threads": 1}
    with pytest.raises(TypeError):
        engine.unpack(**right)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("threads", [0, -1, 2**70])
def test_no_number_of_threads_is_refused(engine, call, threads):
    refused(engine, call, {"threads": threads})


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("threads", [2**31, 2**63 - 1, 2**63, 2**64 - 1])
def test_more_threads_than_any_machine_has_are_no_more_than_all(engine, call, threads):
    getattr(engine, call)(**right_arguments(call), threads=threads)


@pytest.mark.parametrize("call", ["embed", "norm", "unpack"])
def test_sizes_whose_product_overflows_are_refused(engine, call):
    empty = {"x": aligned(0), "to": aligned(0), "ids": aligned(0, np.int32)}
    sizes = {"panels": 2**28, "features": 2**28}
    right = right_arguments(call)
    changes = {name: value for name, value in (empty | sizes).items() if name in right}
    refused(engine, call, changes)


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (2, 2, 4),
        (2, 2, 4, 2, 1),
        (0, 2, 4, 2),
        (2, 0, 4, 2),
        (2, 2, 0, 2),
        (2, 2, 4, 0),
        (-2, 2, 4, -2),
        (2, 2, 3, 2),
        (1, 1, 258, 2),
        (1, 2, 4, 8),
        (2, 2, 6, 2),
        (2**20, 2**20, 4, 2**20),
        (2**62, 2, 4, 2),
    ],
)
@pytest.mark.parametrize("call", ["heads", "attention"])
def test_a_shape_of_heads_that_does_not_fit_is_refused(engine, call, shape):
    refused(engine, call, {"shape": shape})


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (2, 2),
        (2, 2, 4, 2),
        (0, 2, 4),
        (2, -2, 4),
        (2, 2, 3),
        (1, 1, 258),
        (2**20, 2**20, 256),
        (2**20 + 1, 1, 4),
        (2**24, 2**24, 256),
        (2**62, 2, 4),
    ],
)
def test_a_shape_of_decoding_that_does_not_fit_is_refused(engine, shape):
    room = 2 * 2 * 2 * 16 * PADDED
    right = {"qkv": aligned(2 * 2 * 3 * 4 * 16), "cosines": aligned(64), "sines": aligned(64)}
    right |= {"rotary": 4, "positions": 32, "position": 3}
    right |= {"keys": aligned(room), "values": aligned(room)}
    right |= {"out": operand(panels=2), "out_rows": D, "threads": 1}
    engine.decode(**right, shape=(2, 2, 4))
    with pytest.raises(ArgumentError):
        engine.decode(**right, shape=shape)


def test_ids_that_change_during_a_call_stay_those_that_were_checked(engine):
    panels = 2000
    table = np.arange(1, V + 1, dtype=np.float32)[:, None]
    ids, x = np.zeros(panels * 16, np.int32), aligned(panels * 16)
    done = threading.Event()

    def write():
        while not done.is_set():
            ids.fill(1 << 30)  # a read by it would be of a page that is not there
            ids.fill(V - 1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(200):
            with contextlib.suppress(ArgumentError):
                engine.embed(table, ids, x, panels, 1)
                assert set(np.unique(x)) <= {1.0, float(V)}
    finally:
        done.set()
        writer.join()


@pytest.mark.parametrize(
    ("call", "changes", "match"),
    [
        ("heads", {"rotary": 3}, "even number"),
        ("heads", {"rotary": 6, "cosines": aligned(96), "sines": aligned(96)}, "even number"),
        ("heads", {"positions": 16, "cosines": aligned(32), "sines": aligned(32)}, "positions"),
        ("heads", {"weight": matrix(3 * D + 3, D), "bias": aligned(3 * D + 3)}, "rows are 27"),
        ("heads", {"x": operand(panels=6)}, "panels are 6, not 4"),
        ("heads", {"x": operand(panels=5)}, "even number of panels"),
        ("heads", {"each_its_own": True}, "positions are 32, not 64"),
        ("attention", {"out": operand(panels=2)}, "panels are 2, not 4"),
        ("attention", {"ends": np.full(63, 32, np.int32)}, "ends must be 64 values"),
        ("attention", {"ends": np.full(64, 32, np.int64)}, "ends must be 64 values"),
        ("attention", {"ends": np.full(64, 33, np.int32)}, "ends lie in 1 to 32, got 33"),
        ("attention", {"ends": np.full(64, 31, np.int32)}, "token 0 has 31"),
        ("attention", {"out": operand(6), "out_rows": 6}, "do not fit"),
        ("attention", {"out_rows": 0}, "even number of panels"),
        ("mlp", {"gelu": "relu"}, "'none' .by erf. or 'tanh'"),
        ("mlp", {"out_row": 1}, "in pairs"),
        ("mlp", {"out_row": D + 2}, "fit the output"),
        ("mlp", {"weight": matrix(11, D), "bias": aligned(11)}, "in pairs"),
        ("mlp", {"out": operand(D + F, 6)}, "panels are 6, not 4"),
        ("mlp", {"x": operand(panels=3), "out": operand(D + F, 3)}, "even number of panels"),
        ("residual", {"a": operand(F, 3)}, "even number of panels"),
        ("residual", {"weight": matrix(D, 40)}, "even number of panels|values"),
        ("norm", {"outs": []}, "one or two outputs"),
        ("norm", {"outs": [operand()] * 3}, "one or two outputs"),
        ("norm", {"weights": [aligned(D)]}, "one or two outputs"),
        ("norm", {"biases": [aligned(D), aligned(D + 1)]}, "bias must be 8 values"),
        ("norm", {"weights": [aligned(D), aligned(D, np.float64)]}, "weight must be 8 values"),
        ("norm", {"outs": [operand(), operand(panels=2)]}, "panels are 2, not 4"),
        ("norm", {"outs": [operand(), operand(offset=4)]}, "aligned to 64"),
        ("norm", {"outs": [operand(), read_only(operand())]}, None),
        ("norm", {"features": 40}, None),
        ("scores", {"tokens": 65, "nll": aligned(65)}, "more tokens"),
        ("scores", {"x": operand(panels=1)}, "even number of panels"),
        ("scores", {"targets": np.full(64, V, np.int32)}, "targets lie in 0 to 19, got 20"),
        ("scores", {"targets": np.full(64, -1, np.int32)}, "targets lie in 0 to 19, got -1"),
        ("embed", {"ids": np.full(64, V, np.int32)}, "ids lie in 0 to 19, got 20"),
        ("pick", {"rows": np.full(64, -2, np.int32)}, "rows lie in -1 to 19, got -2"),
        ("pick", {"rows": np.full(64, V, np.int32)}, "rows lie in -1 to 19, got 20"),
    ],
)
def test_what_does_not_fit_the_rest_is_refused(engine, call, changes, match):
    refused(engine, call, changes, match)


def test_a_vocabulary_has_fewer_than_two_to_the_24_rows(engine):
    rows = np.zeros((1 << 24, 1), np.float16)
    refused(engine, "scores", {"weight": rows, "x": operand(1)}, "2\\^24")


@pytest.mark.parametrize("isa", instruction_sets())
def test_products_of_bfloat16_need_amx(isa):
    for arithmetic in ("bfloat16", "split-bf16"):
        if isa == "amx":
            assert CpuEngine(arithmetic, instructions=isa).element_bytes == 2
        else:
            with pytest.raises(ArgumentError, match="need AMX"):
                CpuEngine(arithmetic, instructions=isa)


def test_an_unknown_arithmetic_or_instruction_set_is_refused():
    with pytest.raises(ArgumentError, match=re.escape("not 'float16'")):
        CpuEngine("float16")
    with pytest.raises(ArgumentError, match="neon"):
        CpuEngine("float32", instructions="neon")
