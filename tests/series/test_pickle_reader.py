"""The pickle interpreter: it understands torch.save, and nothing in a pickle ever runs."""

import collections
import contextlib
import os
import pickle
import random
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from pythia_fast.errors import FormatError, UnsafePickleError
from pythia_fast.series.pickle_reader import (
    PICKLE_LIMIT_BYTES,
    StorageReference,
    TensorView,
    read_pickle,
)

PATH = Path("pytorch_model.bin")
VIEW = TensorView(StorageReference("F16", "0", 6), 0, (2, 3), (3, 1))


def read(raw: bytes) -> dict[str, TensorView]:
    return read_pickle(raw, PATH, 1000)


def test_a_dictionary_of_tensors(pickles) -> None:
    assert read(pickles.dictionary({"a": pickles.tensor(), "b": pickles.tensor()})) == {
        "a": VIEW,
        "b": VIEW,
    }


def test_a_parameter_is_its_tensor(pickles) -> None:
    parameter = (
        b"ctorch._utils\n_rebuild_parameter\n"
        + pickles.pack(pickles.tensor(), b"\x88", pickles.ordered_dict)
        + b"R"
    )
    assert read(pickles.dictionary({"a": parameter})) == {"a": VIEW}


def test_an_ordered_dict_with_metadata(pickles) -> None:
    raw = (
        b"\x80\x02"
        + pickles.ordered_dict
        + (b"q\x00" + pickles.text("a") + pickles.tensor() + b"s")
        + (b"}" + pickles.text("_metadata") + pickles.ordered_dict + b"sb.")
    )
    assert read(raw) == {"a": VIEW}


class Command:
    """Would make a file, if a pickle of it were ever loaded."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_command_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, protocol: int) -> None:
    witness = tmp_path / "it-ran"
    raw = pickle.dumps({"a": Command(os.system, f"touch {witness}")}, protocol=protocol)
    with pytest.raises(UnsafePickleError) as caught:
        read(raw)
    assert caught.value.path == PATH
    assert not witness.exists()


def test_the_error_names_the_function_and_its_offset(pickles) -> None:
    raw = b"\x80\x02}" + pickles.text("a") + b"cposix\nsystem\n" + pickles.text("id") + b"\x85Rs."
    with pytest.raises(UnsafePickleError, match=r"posix\.system") as caught:
        read(raw)
    assert caught.value.offset == 1000 + raw.index(b"c")


FOREIGN = [
    *("builtins eval", "builtins getattr", "__builtin__ exec", "os system", "subprocess Popen"),
    *("torch load", "torch._utils _rebuild_tensor", "torch Tensor", "torch.nn.Module __init__"),
    *("collections defaultdict", "collections OrderedDict.__reduce__", "torch  HalfStorage"),
    *("torch._utils _rebuild_tensor_v2 ", " collections OrderedDict", "runpy run_path"),
    *("torch.storage UntypedStorage", "torch ComplexFloatStorage", "numpy.core.multiarray scalar"),
]


@pytest.mark.parametrize("name", FOREIGN)
def test_any_other_global_is_refused_even_if_it_is_not_called(name: str) -> None:
    module, _, attribute = name.rpartition(" ")
    with pytest.raises(UnsafePickleError, match="asks for"):
        read(f"\u0080\u0002}}c{module}\n{attribute}\n0.".encode("latin-1"))


@pytest.mark.parametrize("opcode", [bytes([i]) for i in range(256)])
def test_every_opcode_ends_in_a_typed_error(opcode: bytes) -> None:
    """Each alone, and after values of several kinds; none of these is a dictionary of tensors."""
    for before in (
        b"",
        b"}",
        b"N",
        b"(",
        b"(N",
        b")N",
        b"}N",
        b"}NN",
        b"ccollections\nOrderedDict\n)",
    ):
        for after in (b".", b"\x00" * 9 + b".", b"a\nb\n."):
            raw = b"\x80\x02" + before + opcode + after
            with contextlib.suppress(FormatError):
                assert read(raw) == {}


@pytest.mark.parametrize(
    "opcode",
    [b"i", b"o", b"\x81", b"\x92", b"\x93", b"\x82", b"]", b"l", b"I", b"S", b"P", b"B", b"\x95"],
)
def test_instructions_that_tensors_do_not_need_are_refused(opcode: bytes) -> None:
    with pytest.raises(UnsafePickleError, match="instruction"):
        read(b"\x80\x02}" + opcode + b"a\nb\n.")


def test_calls_are_of_known_functions_only(pickles) -> None:
    storage = b"ctorch\nHalfStorage\n"
    for called in (b"N", pickles.text("os"), b"}", pickles.tensor(), storage):
        with pytest.raises(UnsafePickleError, match="calls"):
            read(b"\x80\x02}" + pickles.text("a") + called + b")Rs.")
    arguments = [pickles.storage(6), pickles.integer(0), b")", b")", b"\x89", pickles.ordered_dict]
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    assert (
        read(pickles.dictionary({"a": rebuild + pickles.pack(*arguments) + b"R"}))["a"].shape == ()
    )
    for position in range(6):
        for wrong in (b"N", pickles.text("x"), b"\x88" if position != 4 else b"K\x01"):
            spoilt = [*arguments[:position], wrong, *arguments[position + 1 :]]
            with pytest.raises(FormatError, match="arguments unknown"):
                read(pickles.dictionary({"a": rebuild + pickles.pack(*spoilt) + b"R"}))
    with pytest.raises(FormatError, match="arguments unknown"):
        read(b"\x80\x02ccollections\nOrderedDict\nN\x85R.")
    with pytest.raises(FormatError, match="without a tuple"):
        read(b"\x80\x02ccollections\nOrderedDict\n}R.")


def test_state_is_set_on_dictionaries_only(pickles) -> None:
    for target in (b"N", pickles.tensor(), b")"):
        with pytest.raises(UnsafePickleError, match="state"):
            read(b"\x80\x02" + target + b"}b.")
    with pytest.raises(UnsafePickleError, match="state"):
        read(b"\x80\x02}Nb.")


def test_malformed_pickles(pickles) -> None:
    entry = pickles.text("a") + pickles.tensor()
    cases = {
        "appears twice": b"\x80\x02}(" + entry + entry + b"u.",
        "no text": b"\x80\x02}K\x01" + pickles.tensor() + b"s.",
        "no tensor": b"\x80\x02}" + pickles.text("a") + b"K\x01s.",
        "holds no dictionary": b"\x80\x02" + pickles.tensor() + b".",
        "goes on": pickles.dictionary({}) + b"x",
        "never remembered": b"\x80\x02h\x07.",
        "not there": b"\x80\x02q\x07.",
        "more from its stack": b"\x80\x02.",
        "lacks a mark": b"\x80\x02}t.",
        "a key without": b"\x80\x02}(" + pickles.text("a") + b"u.",
        "no dictionary": b"\x80\x02)(NNu.",
        "no UTF-8": b"\x80\x02X\x01\x00\x00\x00\xff.",
        "64 bits": b"\x80\x02\x8a\x09" + bytes(9) + b".",
        "has no end": b"\x80\x02c" + b"a" * 300 + b"\n.",
        "in the middle": b"\x80\x02X\xff\xff\xff\xffabc",
        "a storage is not": b"\x80\x02)Q.",
    }
    for reason, raw in cases.items():
        with pytest.raises(FormatError, match=reason):
            read(raw)


def test_a_pickle_cut_anywhere_is_refused(pickles) -> None:
    raw = pickles.dictionary({"a": pickles.tensor(), "b": pickles.tensor()})
    for length in range(len(raw)):
        with pytest.raises(FormatError):
            read(raw[:length])


def test_flipped_bytes_give_a_typed_error_or_tensors(pickles) -> None:
    whole = pickles.dictionary({f"layer.{i}": pickles.tensor((i, 3)) for i in range(3)})
    rng = random.Random(20_240_502)
    for _ in range(5000):
        flipped = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            flipped[rng.randrange(len(whole))] = rng.randrange(256)
        try:
            found = read(bytes(flipped))
        except FormatError:
            continue
        assert all(isinstance(view, TensorView) for view in found.values())


def test_random_instructions_give_a_typed_error_or_tensors(pickles) -> None:
    rng = random.Random(20_240_503)
    pieces = [bytes([op]) for op in b"(N\x88\x89)\x85\x86\x87t}subR.Q"]
    pieces += [b"K\x01", b"q\x00", b"h\x00", pickles.text("a"), pickles.storage(2)]
    pieces += [b"ccollections\nOrderedDict\n", b"ctorch._utils\n_rebuild_tensor_v2\n"]
    for _ in range(5000):
        raw = b"\x80\x02" + b"".join(rng.choices(pieces, k=rng.randint(1, 25))) + b"."
        try:
            read(raw)
        except FormatError:
            continue


BOMBS = {
    "nested tuples": b")" + b"\x85" * 400_000,
    "doubling": b")" + b"q\x00h\x00\x86" * 150_000,
    "nested dictionaries": b"}X\x01\x00\x00\x00a" * 200_000 + b"s" * 199_999,
    "many marks": b"(" * 1_000_000,
    "many dictionaries": b"}" * 1_000_000,
    "one long shape": b"("
    + b"K\x01" * 300_000
    + b"tq\x00"
    + (b"ctorch._utils\n_rebuild_tensor_v2\n(h\x01K\x00h\x00h\x00\x89}tR0" * 5_000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_end_soon(pickles, bomb: str) -> None:
    storage = pickles.storage(1) + b"q\x01"
    started = time.perf_counter()
    with pytest.raises(FormatError):
        read(b"\x80\x02" + storage + BOMBS[bomb] + b".")
    assert time.perf_counter() - started < 10


def test_a_doubling_tuple_as_a_key_is_never_hashed(pickles) -> None:
    doubling = b")" + b"q\x00h\x00\x86" * 100
    with pytest.raises(FormatError, match="no text"):
        read(b"\x80\x02}" + doubling + b"Ns.")


def test_a_pickle_over_the_limit_is_refused_unread() -> None:
    with pytest.raises(FormatError, match=f"{PICKLE_LIMIT_BYTES} are allowed"):
        read(b"\x80\x02" + bytes(PICKLE_LIMIT_BYTES))


def test_what_pickle_itself_writes_for_plain_data_is_understood() -> None:
    plain = collections.OrderedDict()
    assert read(pickle.dumps(plain, protocol=2)) == {}
    with pytest.raises(FormatError, match="no tensor"):
        read(pickle.dumps({"a": (1, -1, 2**40, True, None, "text", {})}, protocol=2))
    long_memo = b"\x80\x02}r" + struct.pack("<I", 70_000) + b"j" + struct.pack("<I", 70_000)
    with pytest.raises(FormatError, match="goes on"):
        read(long_memo + b".")
