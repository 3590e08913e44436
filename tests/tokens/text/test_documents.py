"""Documents out of files: every form, every mistake with its file and line."""

import bz2
import gzip
import io
import json
import lzma
import sys

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError, FormatError, MissingTokensError, ReadError
from pythia_fast.tokens.text.compressed import check_input
from pythia_fast.tokens.text.documents import Mistakes, read_documents

TEXTS = ("one", "two\nlines", "grün ✓", "", "\x0c\x85\u2028 are no ends of lines")


def zstd(data):
    """Two frames, as tools write that compress in pieces."""
    compress = zstandard.ZstdCompressor().compress
    return compress(data[: len(data) // 2]) + compress(data[len(data) // 2 :])


COMPRESSIONS = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
    ".GZ": gzip.compress,
}


def read(*inputs, on_error="raise", **options):
    mistakes = Mistakes(on_error)
    return list(read_documents(inputs, mistakes, **options)), mistakes


def texts(*inputs, **options):
    return [text for text, _, _ in read(*inputs, **options)[0]]


@pytest.mark.parametrize("ending", COMPRESSIONS)
@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.JSONL"])
def test_json_lines(tmp_path, name, ending):
    lines = [json.dumps({"meta": 3, "text": text}, ensure_ascii=name == "a.json") for text in TEXTS]
    path = tmp_path / f"{name}{ending}"
    path.write_bytes(COMPRESSIONS[ending]("\n".join(lines).encode()))
    documents, _ = read(path)
    assert documents == [(text, str(path), line) for line, text in enumerate(TEXTS, start=1)]


@pytest.mark.parametrize("ending", COMPRESSIONS)
def test_text_is_split_as_asked(tmp_path, ending):
    content = "one\n\n\ntwo\r\nmore\n \t\nthree \x0c\x85\n"
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(COMPRESSIONS[ending](content.encode()))
    assert read(path)[0] == [(content, str(path), 1)]
    lines = ["one", "", "", "two", "more", " \t", "three \x0c\x85"]
    assert texts(path, split="line") == lines
    paragraphs = [("one", 1), ("two\nmore", 4), ("three \x0c\x85", 7)]
    assert read(path, split="paragraph")[0] == [(text, str(path), at) for text, at in paragraphs]


@settings(max_examples=60, deadline=None)
@given(documents=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20)))
def test_any_text_comes_back_from_json(tmp_path_factory, documents):
    path = tmp_path_factory.mktemp("texts") / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    assert texts(path) == documents


def test_fields_forms_and_several_files(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"body": "one"}\n\n   \n{"body": "two", "text": 3}\n')
    (tmp_path / "b").write_text('{"body": "three"}')
    assert texts(tmp_path / "a.jsonl", tmp_path / "b", field="body", format="jsonl") == [
        *("one", "two", "three")
    ]
    assert texts(tmp_path / "b", tmp_path / "b") == ['{"body": "three"}'] * 2
    assert texts(tmp_path / "a.jsonl", format="text", split="line")[0] == '{"body": "one"}'
    (tmp_path / "empty").write_text("")
    assert texts(tmp_path / "empty") == [""]
    assert texts(tmp_path / "empty", split="line") == []
    assert texts(tmp_path / "empty", split="paragraph") == []


@pytest.mark.parametrize("split", ["file", "line", "paragraph"])
def test_a_byte_order_mark_is_left_out(tmp_path, split):
    (tmp_path / "a.txt").write_text("\ufeffone", encoding="utf-8")
    (tmp_path / "a.jsonl").write_text('\ufeff{"text": "two"}', encoding="utf-8")
    assert texts(tmp_path / "a.txt", tmp_path / "a.jsonl", split=split) == ["one", "two"]


def test_standard_input(monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"one\ntwo\n"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert read("-", split="line")[0] == [("one", "-", 1), ("two", "-", 2)]
    assert not stdin.closed
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ReadError, match="closed"):
        read("-")


BAD = [
    (b'{"text": "a"}\n{"text": "b\xff"}\n{"text": "c"}\n', 2, "no UTF-8: invalid start byte"),
    (b'{"text": "a"}\n{"text": \n{"text": "c"}\n', 2, "no valid JSON"),
    (b'{"text": "a"}\n' + b"[" * 100_000 + b'\n{"text": "c"}\n', 2, "no valid JSON"),
    (b'{"text": "a"}\n["b"]\n{"text": "c"}\n', 2, "a JSON object is expected, not a list"),
    (b'{"text": "a"}\n{"body": "b", "x": 1}\n{"text": "c"}', 2, "only 'body', 'x'"),
    (b'{"text": "a"}\n\n{}\n{"text": "c"}', 3, "only nothing"),
    (b'{"text": "a"}\n{"text": null}\n{"text": "c"}', 2, "no text but NoneType"),
    (b'{"text": "a"}\n{"text": "\\ud83d"}\n{"text": "c"}', 2, "surrogate"),
]


@pytest.mark.parametrize(("data", "line", "words"), BAD, ids=[words for *_, words in BAD])
def test_a_mistake_names_its_line_and_can_be_skipped(tmp_path, data, line, words):
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=f"line {line}: .*{words}") as caught:
        read(path)
    assert caught.value.path == path
    documents, mistakes = read(path, on_error="skip")
    assert [text for text, _, _ in documents] == ["a", "c"]
    assert mistakes.count == 1
    assert f"line {line}: " in mistakes.first[0]


@pytest.mark.parametrize(
    ("split", "line", "left"),
    [("file", 3, []), ("line", 3, ["a", "", "d"]), ("paragraph", 3, ["a"])],
)
def test_text_that_is_no_utf_8(tmp_path, split, line, left):
    (tmp_path / "a.txt").write_bytes(b"a\n\nb\xc3\nd\n")
    with pytest.raises(FormatError, match=f"line {line}: no UTF-8"):
        read(tmp_path / "a.txt", split=split)
    documents, mistakes = read(tmp_path / "a.txt", split=split, on_error="skip")
    assert [text for text, _, _ in documents] == left
    assert mistakes.count == 1


def test_of_many_mistakes_a_few_are_kept_and_all_are_counted(tmp_path):
    (tmp_path / "a.jsonl").write_text("{\n" * 500)
    _, mistakes = read(tmp_path / "a.jsonl", on_error="skip")
    assert mistakes.count == 500
    assert len(mistakes.first) == 10


@pytest.mark.parametrize("ending", [each for each in COMPRESSIONS if each])
@pytest.mark.parametrize("damage", ["cut", "none", "flipped"])
def test_damaged_compression_is_told_and_what_was_before_is_kept(tmp_path, ending, damage):
    lines = [json.dumps({"text": str(number) * 50}) for number in range(20_000)]
    good = COMPRESSIONS[ending]("\n".join(lines).encode())
    if damage == "cut":
        data = good[: len(good) * 9 // 10]
    elif damage == "none":
        data = b"this was never compressed"
    else:
        at = len(good) * 9 // 10
        data = good[:at] + bytes(byte ^ 0x5A for byte in good[at : at + 50]) + good[at + 50 :]
    path = tmp_path / f"a.jsonl{ending}"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        read(path)
    assert caught.value.path == path
    (tmp_path / "b.jsonl").write_text('{"text": "after"}')
    documents, mistakes = read(path, tmp_path / "b.jsonl", on_error="skip")
    assert documents[-1][0] == "after"
    assert mistakes.count >= 1
    kept = [text for text, _, _ in documents[:-1]]
    if damage != "flipped":
        assert kept == [str(number) * 50 for number in range(len(kept))]
        assert mistakes.count == 1
        assert "damaged" in mistakes.first[0]


def test_inputs_are_looked_at_beforehand(tmp_path, monkeypatch):
    check_input("-")
    with pytest.raises(MissingTokensError, match="no text at"):
        check_input(str(tmp_path / "nothing.txt"))
    with pytest.raises(ArgumentError, match="is a folder"):
        check_input(str(tmp_path))
    (tmp_path / "a.jsonl.zst").write_bytes(b"")
    check_input(str(tmp_path / "a.jsonl.zst"))
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ArgumentError, match=r"pythia-fast\[zstd\]"):
        check_input(str(tmp_path / "a.jsonl.zst"))


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(ReadError, match="cannot read"):
        read(tmp_path / "nothing")
    with pytest.raises(ReadError, match="cannot read"):
        read(tmp_path)
