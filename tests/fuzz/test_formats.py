"""Any bytes give a typed error or the right tensors, in bounded time and memory.

Valid files are changed: bytes, numbers, spans, and pieces of one file put into another. Where a
format has checksums or sizes around it, they are made right again, so that the change is seen by
the parser behind them. What is accepted is compared with the format's own library, if that accepts
it too. An ordinary run tries a few hundred inputs of each kind; `--fuzz-seconds` as many as it can.
"""

import io
import json
import os
import pickle
import random
import resource
import signal
import struct
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.core import File
from pythia_fast.errors import PythiaFastError
from pythia_fast.series import TensorRange, open_series, read_safetensors, read_torch_zip
from pythia_fast.series.gpt_neox.config import read_yml
from pythia_fast.series.layout import choose_weights, read_architecture
from pythia_fast.series.pickle_reader import TensorView, read_pickle
from pythia_fast.series.plain_pickle import read_plain_pickle
from pythia_fast.series.tensors import ITEM_BYTES
from pythia_fast.series.torch_zip import read_torch_state
from pythia_fast.testing import gpt_neox_yml, make_series, random_state_dict, tiny
from pythia_fast.testing.gpt_neox import write_gpt_neox

EXECUTIONS = 400
MORE_MEMORY_BYTES = 1 << 30
HANG_S = 20
SMALL = tiny(layers=1, width=8, heads=2, vocab_rows=8, max_positions=16)

# Changing


INTERESTING = (
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**31,
    2**32 - 1,
    2**63,
    2**64 - 1,
)


def change(raw: bytes, other: bytes, rng: random.Random) -> bytes:
    """`raw` with one to six changes, some of which bring pieces of `other`."""
    changed = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(changed) + 1)
        length = min(rng.choice((1, 2, 4, 8, 16, 64)), len(changed) - at)
        match rng.randrange(8):
            case 0 if length:
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if length:
                changed[at] = rng.randrange(256)
            case 2:
                width = rng.choice((1, 2, 4, 8))
                value = rng.choice(INTERESTING) + rng.choice((0, 0, -1, 1, len(raw)))
                changed[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, "little")
            case 3:
                del changed[at : at + length]
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                start = rng.randrange(len(other) + 1)
                changed[at : at + length] = other[start : start + rng.randrange(65)]
            case 6 if rng.randrange(4) == 0:
                del changed[at:]
            case 7:
                changed[at:at] = rng.randbytes(rng.randrange(9))
    return bytes(changed)


def change_text(text: str, rng: random.Random) -> str:
    """JSON or yml with tokens replaced, doubled, moved and removed."""
    pieces = [
        *'{}[]:,"\\',
        "null",
        "true",
        "NaN",
        "-1",
        "1e999",
        "0.5",
        "[[",
        '"x"',
        "\ud7ff",
        "\x00",
    ]
    pieces += [str(2**53), str(2**64), "9" * 30, '"../x"', '"/etc/passwd"', "- ", "\n", "&a ", "*a"]
    pieces += ['"a/b.bin"', '"pytorch_model-00001-of-00002.bin"', '"gpt_neox"', "<<: ", "!!set "]
    pieces += ["!!timestamp ", "!!int ", "!!float ", "!!bool ", "!!binary ", "!!omap ", "1:1"]
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(text) + 1)
        end = min(len(text), at + rng.choice((0, 0, 1, 2, 5, 20)))
        if rng.randrange(3):
            text = text[:at] + rng.choice(pieces) + text[end:]
        else:
            start = rng.randrange(len(text) + 1)
            text = text[:at] + text[start : start + rng.randrange(30)] + text[end:]
    return text


# Judging


@contextmanager
def opened(raw: bytes) -> Iterator[File]:
    """A file of these bytes, in memory."""
    descriptor = os.memfd_create("fuzz")
    try:
        os.write(descriptor, raw)
        yield File(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def check_ranges(tensors: dict[str, TensorRange], raw: bytes) -> None:
    for name, tensor in tensors.items():
        assert tensor.name == name
        assert 0 <= tensor.offset <= tensor.offset + tensor.nbytes <= len(raw)
        elements = 1
        for size in tensor.shape:
            assert size >= 0
            elements *= size
        assert tensor.nbytes == elements * ITEM_BYTES[tensor.dtype]


def check_as_torch(tensors: dict[str, TensorRange], raw: bytes) -> None:
    """The same bytes that torch finds, if it finds any."""
    try:
        theirs = torch.load(io.BytesIO(raw), weights_only=True)
    except Exception:
        return
    assert isinstance(theirs, dict)
    for name, tensor in tensors.items():
        assert tuple(theirs[name].shape) == tensor.shape
        flat = torch.empty(theirs[name].numel(), dtype=theirs[name].dtype)
        flat.copy_(theirs[name].reshape(-1))
        content = flat.view(torch.uint8).numpy().tobytes()
        assert content == raw[tensor.offset : tensor.offset + tensor.nbytes]


def archive(pickled: bytes, records: dict[str, bytes]) -> bytes:
    """What torch.save would have written around this pickle, checksums included."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as writer:
        for name, content in {"data.pkl": pickled, "version": b"3\n", **records}.items():
            writer.writestr(f"archive/{name}", content)
    return target.getvalue()


def saved(content: object) -> bytes:
    target = io.BytesIO()
    torch.save(content, target)
    return target.getvalue()


def unpacked(raw: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The pickle in an archive, and its storages."""
    with zipfile.ZipFile(io.BytesIO(raw)) as reader:
        records = {name.partition("/")[2]: reader.read(name) for name in reader.namelist()}
    storages = {name: content for name, content in records.items() if name.startswith("data/")}
    return records["data.pkl"], storages


# Parsers: each takes a number generator, tries one input, and says whether it was accepted


class Corpus:
    """Valid files of every kind, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        state = random_state_dict(SMALL)
        make_series(folder / "series", SMALL, (0,), formats=("safetensors",))
        self.safetensors = (folder / "series/step0/model.safetensors").read_bytes()
        few = {"a": torch.ones(2, 3).half(), "b": torch.arange(4), "c": torch.ones(())}
        self.archives = [
            saved(few),
            saved(OrderedDict(state)),
            saved({"m": torch.nn.Linear(2, 2).weight}),
        ]
        for layout in ("layers", "ranks"):
            write_gpt_neox(
                folder / layout / "global_step0", state, SMALL, model_parallel=2, layout=layout
            )
        self.layer = folder / "layers/global_step0/layer_02-model_01-model_states.pt"
        self.rank = folder / "ranks/global_step0/mp_rank_00_model_states.pt"
        self.states = [self.layer.read_bytes(), self.rank.read_bytes()]
        self.pickles = [unpacked(raw) for raw in (*self.archives, *self.states)]
        self.config = json.dumps(SMALL.to_config())
        self.yml = gpt_neox_yml(SMALL, 2)
        shards = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
        self.shards = shards
        names = [*SMALL.shapes()]
        self.index = json.dumps(
            {"metadata": {}, "weight_map": {name: shards[i % 2] for i, name in enumerate(names)}}
        )


def fuzz_safetensors(corpus: Corpus, rng: random.Random) -> bool:
    raw = change(corpus.safetensors, corpus.safetensors, rng)
    return _safetensors(raw)


def fuzz_safetensors_header(corpus: Corpus, rng: random.Random) -> bool:
    """The header's size fits, and often the data too."""
    size = struct.unpack_from("<Q", corpus.safetensors)[0]
    header, data = corpus.safetensors[8 : 8 + size], corpus.safetensors[8 + size :]
    if rng.randrange(2):
        changed = change_text(header.decode(), rng).encode("utf-8", "surrogatepass")
    else:
        entries = json.loads(header)
        entry = entries[rng.choice([name for name in entries if name != "__metadata__"])]
        entry["shape"] = [rng.choice((0, 1, 2, 8, 64, 2**62, -1)) for _ in range(rng.randrange(4))]
        if rng.randrange(2):
            entry["dtype"] = rng.choice((*ITEM_BYTES, "F4", ""))
        if rng.randrange(2):
            entry["data_offsets"][rng.randrange(2)] += rng.choice((-2, -1, 1, 2, 2**40))
        changed = json.dumps(entries).encode()
    return _safetensors(struct.pack("<Q", len(changed)) + changed + data)


def _safetensors(raw: bytes) -> bool:
    with opened(raw) as file:
        found = read_safetensors(file)
    check_ranges(found, raw)
    spans = sorted((t.offset, t.offset + t.nbytes) for t in found.values() if t.nbytes)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))
    try:
        theirs = dict(safetensors.deserialize(raw))
    except safetensors.SafetensorError:
        return True
    assert theirs.keys() == found.keys()
    for name, tensor in found.items():
        assert (theirs[name]["dtype"], tuple(theirs[name]["shape"])) == (tensor.dtype, tensor.shape)
        assert theirs[name]["data"] == raw[tensor.offset : tensor.offset + tensor.nbytes]
    return True


def fuzz_zip(corpus: Corpus, rng: random.Random) -> bool:
    raw = change(rng.choice(corpus.archives), rng.choice(corpus.archives), rng)
    with opened(raw) as file:
        found = read_torch_zip(file)
    check_ranges(found, raw)
    check_as_torch(found, raw)
    return True


def fuzz_pickle_in_zip(corpus: Corpus, rng: random.Random) -> bool:
    """A changed pickle with the right checksum, read in both ways."""
    pickled, storages = rng.choice(corpus.pickles)
    raw = archive(change(pickled, rng.choice(corpus.pickles)[0], rng), storages)
    with opened(raw) as file:
        state = read_torch_state(file, rng.choice((None, None, "module")))
        check_ranges(state or {}, raw)
        found = read_torch_zip(file)
    check_ranges(found, raw)
    check_as_torch(found, raw)
    assert state is None or state.keys() <= found.keys()
    return True


def fuzz_pickle(corpus: Corpus, rng: random.Random) -> bool:
    pickled = change(rng.choice(corpus.pickles)[0], rng.choice(corpus.pickles)[0], rng)
    plain = read_plain_pickle(pickled, "plain", 0)
    strict = read_pickle(pickled, "strict", 0)
    assert all(isinstance(view, TensorView) for view in strict.values())
    assert strict == plain  # whatever the stricter one reads, the other reads alike
    return True


def fuzz_plain_pickle(corpus: Corpus, rng: random.Random) -> bool:
    """Plain data alone, which Python itself may read as well."""
    ours = {"a": [1, 2.5, (True, None)], "b": {3: "x", "y": []}, "c": ("z", -1, 2**40)}
    pickled = change(pickle.dumps(ours, protocol=2), rng.choice(corpus.pickles)[0], rng)
    found = read_plain_pickle(pickled, "plain", 0)
    if b"c" not in pickled.replace(b"\x00\x00\x00c", b""):  # no functions: safe to run
        # Not the unpickler in C: a number in the pickle tells it how much memory to take.
        with suppress(AttributeError, RecursionError):  # of BUILD, and of lists in themselves
            theirs = pickle._Unpickler(io.BytesIO(pickled)).load()  # type: ignore[attr-defined]
            assert repr(theirs) == repr(found)
    return True


def fuzz_index(corpus: Corpus, rng: random.Random) -> bool:
    path = corpus.folder / "index.json"
    path.write_bytes(change_text(corpus.index, rng).encode("utf-8", "surrogatepass"))
    available = {*corpus.shards, "pytorch_model.bin.index.json", "config.json"}
    found = choose_weights(available, lambda name: path, "here")
    assert set(found.names) <= set(corpus.shards)
    assert found.shard_of is not None
    assert set(found.shard_of.values()) == set(found.names)
    return True


def fuzz_config(corpus: Corpus, rng: random.Random) -> bool:
    path = corpus.folder / "config.json"
    path.write_bytes(change_text(corpus.config, rng).encode("utf-8", "surrogatepass"))
    found = read_architecture(path)
    assert 1 <= len(list(found.shapes())) <= 120_004
    return True


def fuzz_yml(corpus: Corpus, rng: random.Random) -> bool:
    path = corpus.folder / "model.yml"
    path.write_bytes(change_text(corpus.yml, rng).encode("utf-8", "surrogatepass"))
    read_yml([path], SMALL.vocab_rows)
    return True


def fuzz_gpt_neox(corpus: Corpus, rng: random.Random) -> bool:
    """A whole checkpoint, one file of which is changed: opened, merged and read."""
    path, raw = rng.choice([(corpus.layer, corpus.states[0]), (corpus.rank, corpus.states[1])])
    pickled, storages = unpacked(raw)
    path.write_bytes(archive(change(pickled, rng.choice(corpus.pickles)[0], rng), storages))
    try:
        checkpoint = open_series(path.parents[1]).open(0)
    finally:
        path.write_bytes(raw)
    assert [*checkpoint.tensors] == [*SMALL.shapes()]
    for name, tensor in checkpoint.tensors.items():
        assert tensor.shape == SMALL.shapes()[name]
        assert len(tensor.file.read(tensor.offset, tensor.nbytes)) == tensor.nbytes
    return True


PARSERS: dict[str, Callable[[Corpus, random.Random], bool]] = {
    name.removeprefix("fuzz_"): parser
    for name, parser in list(globals().items())
    if name.startswith("fuzz_")
}


# Running


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return Corpus(tmp_path_factory.mktemp("corpus"))


@contextmanager
def bounded() -> Iterator[None]:
    """MemoryError for an input that asks for a lot, TimeoutError for one that takes long."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"one input took more than {HANG_S} s")

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    previous = signal.signal(signal.SIGALRM, stop)
    most = pages * resource.getpagesize() + MORE_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def try_one(parser: Callable[[Corpus, random.Random], bool], corpus: Corpus, seed: int) -> bool:
    """Whether the input of this seed was accepted. Anything but a typed error gets out."""
    try:
        return parser(corpus, random.Random(seed))
    except PythiaFastError:
        return False


@pytest.mark.filterwarnings("ignore")  # torch's, on files that nobody would write
@pytest.mark.parametrize("name", PARSERS)
def test_changed_files(
    name: str, corpus: Corpus, fuzz_seconds: float | None, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = PARSERS[name]
    first = 0 if fuzz_seconds is None else int.from_bytes(os.urandom(6), "little")
    end_s = time.monotonic() + (fuzz_seconds or 0)
    executions = accepted = 0
    with bounded():
        while executions < EXECUTIONS if fuzz_seconds is None else time.monotonic() < end_s:
            seed = first + executions
            signal.setitimer(signal.ITIMER_REAL, HANG_S)
            try:
                accepted += try_one(parser, corpus, seed)
            except BaseException as error:
                error.add_note(f"to see it again: try_one(PARSERS[{name!r}], corpus, {seed})")
                raise
            executions += 1
    if fuzz_seconds is not None:
        with capsys.disabled():
            print(f"\n{name}: {executions:,} inputs, {accepted:,} accepted, no other error")
    assert accepted < executions
    if executions >= EXECUTIONS:
        assert accepted, "no input gets through: the changes are too coarse"


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(PARSERS)), seed=st.integers(0, 2**40))
def test_changed_files_by_hypothesis(corpus: Corpus, name: str, seed: int) -> None:
    try_one(PARSERS[name], corpus, seed)


@settings(max_examples=150, deadline=None)
@given(raw=st.binary(max_size=300), start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"{"]))
def test_any_bytes_at_all(raw: bytes, start: bytes) -> None:
    for read in (read_safetensors, read_torch_zip, read_torch_state):
        with opened(start + raw) as file, pytest.raises(PythiaFastError):
            read(file)
    for parse in (read_pickle, read_plain_pickle):
        try:
            assert parse(start + raw, "x", 0) == {}
        except PythiaFastError:
            continue
