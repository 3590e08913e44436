"""tokenize against the tokenizers library itself, document by document."""

import importlib
import json
import signal
import struct
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from pythia_fast.demo.corpus import END_OF_TEXT, byte_tokenizer
from pythia_fast.errors import ArgumentError, FormatError, MissingTokensError, WriteError
from pythia_fast.tokens import TokenDataset
from pythia_fast.tokens.text.tokenize import tokenize

TEXTS = ["one", "grün ✓", "a longer text with several words", "x", "\n\n", "<|endoftext|>y"]


@pytest.fixture(scope="module")
def tokenizer():
    """Bytes, and <|endoftext|>."""
    return byte_tokenizer()


@pytest.fixture
def small_batches(monkeypatch):
    module = importlib.import_module("pythia_fast.tokens.text.tokenize")
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 20)
    monkeypatch.setattr(module, "BATCH_DOCUMENTS", 3)


def jsonl(path, texts):
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def encoded(tokenizer, texts, *, end=False):
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    return [[*each, END_OF_TEXT] if end else each for each in ids]


def rows(prefix):
    return [row.tolist() for row in TokenDataset(prefix)]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("end", [False, True])
def test_each_document_is_a_row(tmp_path, tokenizer, end):
    done = tokenize(
        [jsonl(tmp_path / "a.jsonl", TEXTS), jsonl(tmp_path / "b.jsonl", TEXTS[::-1])],
        tokenizer,
        tmp_path / "out",
        append_eod=end,
    )
    wanted = encoded(tokenizer, TEXTS + TEXTS[::-1], end=end)
    assert rows(tmp_path / "out") == wanted
    assert (done.documents, done.rows, done.dtype) == (12, 12, "uint16")
    assert done.tokens == sum(map(len, wanted))
    assert (done.empty, done.mistakes, done.first_mistakes, done.tokens_left) == (0, 0, (), 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a.jsonl", "b.jsonl", "out.bin", "out.idx")
    ]
    head = (tmp_path / "out.idx").read_bytes()
    assert struct.unpack_from("<9sQBQQ", head) == (b"MMIDIDX\0\0", 1, 8, 12, 13)
    documents = np.frombuffer(head, "<i8", 13, len(head) - 13 * 8)
    assert documents.tolist() == list(range(13))


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("end", [False, True])
def test_empty_documents_are_left_out_and_counted_or_kept(tmp_path, tokenizer, keep, end):
    path = jsonl(tmp_path / "a.jsonl", ["", "one", "", "", "two", ""])
    done = tokenize([path], tokenizer, tmp_path / "out", keep_empty=keep, append_eod=end)
    texts = ["", "one", "", "", "two", ""] if keep else ["one", "two"]
    assert rows(tmp_path / "out") == encoded(tokenizer, texts, end=end)
    assert done.empty == (0 if keep else 4)


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text("abc é", max_size=30), max_size=12),
    row_tokens=st.integers(2, 20),
    end=st.sampled_from([None, True, False]),
)
def test_rows_of_equal_length_begin_with_the_last_token_of_the_one_before(
    tmp_path_factory, tokenizer, texts, row_tokens, end
):
    folder = tmp_path_factory.mktemp("packed")
    path = jsonl(folder / "a.jsonl", texts)
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("pythia_fast.tokens.text.tokenize")
        patch.setattr(module, "BATCH_CHARACTERS", 10)
        kept = [text for text in texts if text]
        stream = [i for ids in encoded(tokenizer, kept, end=end is not False) for i in ids]
        wanted = []
        while len(stream) >= row_tokens:
            wanted.append(stream[:row_tokens])
            stream = stream[row_tokens - 1 :]
        if not wanted:
            with pytest.raises(ArgumentError, match="no row to write"):
                tokenize([path], tokenizer, folder / "out", row_tokens=row_tokens, append_eod=end)
            return
        done = tokenize([path], tokenizer, folder / "out", row_tokens=row_tokens, append_eod=end)
    assert rows(folder / "out") == wanted
    assert done.tokens_left == len(stream) - bool(wanted)
    assert done.rows == len(wanted)


def test_ids_that_do_not_fit_16_bits_are_32(tmp_path):
    vocabulary = {f"w{number}": number for number in range(65_536)}
    for extra, dtype in (({}, "uint16"), ({"large": 65_536}, "int32")):
        words = Tokenizer(models.WordLevel(vocabulary | extra, unk_token="w0"))
        words.pre_tokenizer = pre_tokenizers.Whitespace()
        (tmp_path / "a.txt").write_text("w3 w65535 large")
        assert tokenize([tmp_path / "a.txt"], words, tmp_path / "out").dtype == dtype
        assert TokenDataset(tmp_path / "out").dtype == dtype
        assert rows(tmp_path / "out") == [[3, 65_535, 65_536 if extra else 0]]


def test_padding_truncation_and_added_tokens_of_the_tokenizer_are_left_out(tmp_path, tokenizer):
    padded = Tokenizer.from_str(tokenizer.to_str())
    padded.enable_padding(length=50)
    padded.enable_truncation(2)
    path = jsonl(tmp_path / "a.jsonl", TEXTS)
    tokenize([path], padded, tmp_path / "out")
    assert rows(tmp_path / "out") == encoded(tokenizer, TEXTS)


def test_a_tokenizer_by_its_path_and_one_without_an_end(tmp_path, tokenizer_json):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    tokenize([str(tmp_path / "a.txt")], tokenizer_json, str(tmp_path / "out"), split="line")
    assert TokenDataset(tmp_path / "out").lengths.tolist() == [3, 3]
    for options in ({"append_eod": True}, {"row_tokens": 3}):
        with pytest.raises(ArgumentError, match=r"no <\|endoftext\|>"):
            tokenize([tmp_path / "a.txt"], tokenizer_json, tmp_path / "no", **options)
    tokenize([tmp_path / "a.txt"], tokenizer_json, tmp_path / "out", row_tokens=3, append_eod=False)
    assert TokenDataset(tmp_path / "out").lengths.tolist() == [3, 3, 3]
    assert not list(tmp_path.glob("no*"))


def test_nothing_is_left_after_a_mistake_and_an_older_pair_is_what_it_was(tmp_path, tokenizer):
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": \n{"text": "two"}\n')
    with pytest.raises(FormatError, match="line 2"):
        tokenize([tmp_path / "a.jsonl"], tokenizer, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl"]
    done = tokenize([tmp_path / "a.jsonl"], tokenizer, tmp_path / "out", on_error="skip")
    assert (done.documents, done.mistakes) == (2, 1)
    assert "line 2" in done.first_mistakes[0]
    with pytest.raises(FormatError):
        tokenize([tmp_path / "a.jsonl"], tokenizer, tmp_path / "out")
    assert rows(tmp_path / "out") == encoded(tokenizer, ["one", "two"])


def test_a_text_that_the_tokenizer_does_not_take_is_named(tmp_path):
    words = Tokenizer(models.WordLevel({"one": 0}, unk_token="absent"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    path = jsonl(tmp_path / "a.jsonl", ["one", "one two", "one one"])
    with pytest.raises(FormatError, match="line 2: the tokenizer does not take this text"):
        tokenize([path], words, tmp_path / "out")
    done = tokenize([path], words, tmp_path / "out", on_error="skip")
    assert done.mistakes == 1
    assert rows(tmp_path / "out") == [[0], [0, 0]]


@pytest.mark.usefixtures("small_batches")
def test_errors_of_each_thread_arrive(tmp_path, tokenizer, monkeypatch):
    path = jsonl(tmp_path / "a.jsonl", TEXTS * 3)
    module = importlib.import_module("pythia_fast.tokens.text.tokenize")

    def append(*_):
        raise WriteError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.TokenWriter, "append", append)
        with pytest.raises(WriteError, match="No space left"):
            tokenize([path], tokenizer, tmp_path / "out")

    def progress(documents, tokens):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenize([path], tokenizer, tmp_path / "out", progress=progress)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.jsonl"]


@pytest.mark.usefixtures("small_batches")
def test_progress(tmp_path, tokenizer):
    told = []
    path = jsonl(tmp_path / "a.jsonl", TEXTS)
    done = tokenize(
        [path], tokenizer, tmp_path / "out", progress=lambda *numbers: told.append(numbers)
    )
    assert told == sorted(told)
    assert len(told) > 1
    assert told[-1] == (done.documents, done.tokens)


def test_arguments_that_are_none(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("one")
    with pytest.raises(ArgumentError, match="one input at least"):
        tokenize([], tokenizer, tmp_path / "out")
    with pytest.raises(MissingTokensError, match="no text"):
        tokenize([tmp_path / "nothing"], tokenizer, tmp_path / "out")
    with pytest.raises(MissingTokensError, match=r"tokenizer\.json"):
        tokenize([tmp_path / "a.txt"], tmp_path / "nothing", tmp_path / "out")
    with pytest.raises(ArgumentError, match="rows of 1 tokens"):
        tokenize([tmp_path / "a.txt"], tokenizer, tmp_path / "out", row_tokens=1)
    with pytest.raises(WriteError, match="No such file"):
        tokenize([tmp_path / "a.txt"], tokenizer, tmp_path / "no" / "out")


@pytest.mark.parametrize("name", ["format", "split", "on_error"])
def test_choices_that_are_none(tmp_path, tokenizer, name):
    path = jsonl(tmp_path / "in.jsonl", TEXTS)
    with pytest.raises(ArgumentError, match=f"{name} is '.*', not 'x'"):
        tokenize([path], tokenizer, tmp_path / "out", **{name: "x"})


KILLED = """
import os, signal, sys
from pathlib import Path
from pythia_fast.demo.corpus import byte_tokenizer
from pythia_fast.tokens.text import tokenize as module

source, out, when = sys.argv[1:]

def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)

replace = Path.replace
if when in (".bin", ".idx"):
    Path.replace = lambda path, to: kill() if to.suffix == when else replace(path, to)
module.BATCH_DOCUMENTS = 1
told = lambda count, _: kill() if when == str(count) else None
module.tokenize([source], byte_tokenizer(), out, progress=told)
"""


@pytest.mark.parametrize("when", ["4", ".bin", ".idx"])
def test_a_kill_leaves_nothing_that_the_next_call_minds(tmp_path, tokenizer, when):
    source, out = jsonl(tmp_path / "a.jsonl", TEXTS), tmp_path / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, source, out, when], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = {path.name for path in tmp_path.iterdir()} - {"a.jsonl"}
    assert len(left) == 2
    assert "out.idx" not in left
    assert ("out.bin" in left) is (when == ".idx")  # whole by then, and no pair without the other
    tokenize([source], tokenizer, out, overwrite=False)
    assert rows(out) == encoded(tokenizer, TEXTS)
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "out.bin", "out.idx"}


def test_a_bin_of_somebody_else_is_not_replaced(tmp_path, tokenizer):
    source, out = jsonl(tmp_path / "a.jsonl", TEXTS), tmp_path / "out"
    for name in (".out.idx.0a.partial", ".out.bin.0a.partial"):  # of a kill before either name
        (tmp_path / name).write_bytes(b"left")
    (tmp_path / "out.bin").write_bytes(b"another's")
    with pytest.raises(ArgumentError, match=r"out.bin is there already"):
        tokenize([source], tokenizer, out, overwrite=False)
    assert (tmp_path / "out.bin").read_bytes() == b"another's"
