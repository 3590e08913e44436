"""`view --find` and `--find-ids`."""

import json

import numpy as np
import pytest

from pythia_fast.tokens import write_tokens


@pytest.fixture
def tokenizer(suite):
    return suite / "tokenizer.json"


def test_a_text_is_found_with_what_is_around_it(run, texts, tokenizer):
    done = run("view", texts, "--find", "4: x", "--tokenizer", tokenizer, "--context", 3)
    assert done.stdout == "row 4, step 1, position 4, column 4: ow >>4: x<<xxx\n1 hit\n"
    assert done.stderr == "looking for '4: x' (52,58,32,120) in rows 0 to 5\n"
    done = run("view", texts, "--find", "x", "--tokenizer", tokenizer, "--batch", 2, "--json")
    found = json.loads(done.stdout)
    assert found["count"] == 15  # overlapping ones, of which row n has n
    assert found["sequences"] == [{"name": "x", "ids": [120], "count": 15}]
    assert found["selection"] == {"rows": [0, 6]}
    assert [(hit["row"], hit["column"]) for hit in found["hits"]] == [
        (row, 7 + place) for row in range(6) for place in range(row)
    ]
    for hit in found["hits"]:
        assert (hit["step"], hit["position"]) == (hit["row"] // 2 + 1, hit["row"] % 2)
        assert hit["match"] == "x"
        whole = f"row {hit['row']}: {'x' * hit['row']}" + "<|endoftext|>" * (hit["row"] == 5)
        assert whole[: hit["column"]].endswith(hit["before"])
        assert whole[hit["column"] + 1 :].startswith(hit["after"])


def test_ids_are_found_and_overlap(run, tmp_path):
    write_tokens(tmp_path / "data", [[1, 1, 1, 2], [2, 1, 1], [1]])
    arguments = ["view", tmp_path / "data", "--find-ids", "1,1", "--context", 1]
    assert run(*arguments).stdout.splitlines() == [
        "row 0, step 1, position 0, column 0:  >> 1,1 << 1",
        "row 0, step 1, position 0, column 1: 1 >> 1,1 << 2",
        "row 1, step 1, position 1, column 1: 2 >> 1,1 << ",
        "3 hits",
    ]
    assert run(*arguments, "--steps", "1:3", "--batch", 1).stdout.splitlines()[:-1] == [
        "row 1, step 2, position 0, column 1: 2 >> 1,1 << ",
    ]
    assert run(*arguments, "--max-hits", 2).stdout.splitlines()[-1] == (
        "3 hits, the first 2 of them shown"
    )
    assert run(*arguments, "--max-hits", 0).stdout == "3 hits, the first 0 of them shown\n"
    assert run("view", tmp_path / "data", "--find-ids", "7").stdout == "0 hits\n"
    assert run("view", tmp_path / "data", "--find-ids", "-1,70000").stdout == "0 hits\n"


def test_ids_are_shown_as_text_with_a_tokenizer(run, texts, tokenizer):
    arguments = ["view", texts, "--find-ids", "53,58", "--tokenizer", tokenizer, "--rows", "5"]
    assert run(*arguments).stdout.startswith(
        "row 5, step 1, position 5, column 4: row >>5:<< xxxxx"
    )
    ids = run(*arguments, "--mode", "ids", "--context", 0).stdout
    assert ids.startswith("row 5, step 1, position 5, column 4:  >> 53,58 << \n")


def test_both_spellings_are_looked_for(run, tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {"cat": 0, "Ġcat": 1, "Ġ": 2, "c": 3, "a": 4, "t": 5, "ca": 6, "Ċ": 7}
    merges = [("c", "a"), ("ca", "t"), ("Ġ", "cat")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write_tokens(tmp_path / "data", [tokenizer.encode("cat cat\ncat").ids, [1, 0]])
    done = run("view", tmp_path / "data", "--find", "cat", "--context", 1)
    assert done.stderr == "looking for 'cat' (0) and ' cat' (1) in rows 0 to 1\n"
    assert done.stdout.splitlines() == [
        "row 0, step 1, position 0, column 0: >>cat<< cat",
        "row 0, step 1, position 0, column 1: cat>> cat<<\\n",
        "row 0, step 1, position 0, column 3: \\n>>cat<<",
        "row 1, step 1, position 1, column 0: >> cat<<cat",
        "row 1, step 1, position 1, column 1:  cat>>cat<<",
        "5 hits (3 of 'cat', 2 of ' cat')",
    ]
    found = json.loads(run("view", tmp_path / "data", "--find", "cat", "--json").stdout)
    assert [hit["sequence"] for hit in found["hits"]] == [0, 1, 0, 1, 0]
    assert [each["count"] for each in found["sequences"]] == [3, 2]


def test_a_text_without_tokens_is_bad_input(run, texts, tokenizer):
    done = run("view", texts, "--find", "", "--tokenizer", tokenizer, exit_code=3)
    assert "gives no tokens" in done.stderr


def test_many_blocks(run, tmp_path, monkeypatch):
    from pythia_fast.tokens import dataset

    monkeypatch.setattr(dataset, "BLOCK_TOKENS", 64)
    ids = np.random.default_rng(0).integers(0, 4, (60, 16))
    write_tokens(tmp_path / "data", ids)
    found = json.loads(run("view", tmp_path / "data", "--find-ids", "3,3,3", "--json",
                           "--max-hits", 5).stdout)  # fmt: skip
    every = [(r, c) for r in range(60) for c in range(14) if (ids[r, c : c + 3] == 3).all()]
    assert found["count"] == len(every) > 5
    assert [(hit["row"], hit["column"]) for hit in found["hits"]] == every[:5]
