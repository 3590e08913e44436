"""Text in and out: what is written, beside transformers, and every prompt that may be given."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer, GPTNeoXForCausalLM

import pythia_fast
from pythia_fast.errors import ArgumentError, MissingTokensError, TokenRangeError
from pythia_fast.model import Model, complete
from pythia_fast.suite import Architecture
from pythia_fast.testing import tiny, tiny_suite
from pythia_fast.testing.tokenizer import END_OF_TEXT, byte_tokenizer

PROMPT = "Hello, I am"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_suite(tmp_path_factory.mktemp("text") / "suite", steps=(0, 1000))


@pytest.fixture(scope="module")
def model(suite: Path) -> Model:
    """Its tokenizer knows every byte, and the end of text."""
    return pythia_fast.load(suite, 1000, dtype="float32")


@pytest.fixture(scope="module")
def peer(suite: Path) -> GPTNeoXForCausalLM:
    return GPTNeoXForCausalLM.from_pretrained(suite / "step1000", dtype=torch.float32)


@pytest.mark.parametrize(
    "prompt", [PROMPT, "naïve 😀 日本", " \n\t ", "<|endoftext|>Once", "\0\x07"]
)
def test_it_writes_what_transformers_writes(
    model: Model, peer: GPTNeoXForCausalLM, suite: Path, prompt: str
) -> None:
    words = AutoTokenizer.from_pretrained(suite / "step1000")
    inputs = words(prompt, return_tensors="pt")
    written = peer.generate(
        inputs["input_ids"], attention_mask=inputs["attention_mask"], max_new_tokens=20,
        do_sample=False, eos_token_id=END_OF_TEXT, pad_token_id=END_OF_TEXT,
    )  # fmt: skip
    new = written[0, inputs["input_ids"].shape[1] :]
    text = model.complete(prompt)
    assert text == prompt + words.decode(new, skip_special_tokens=True)
    found = complete(model, prompt, 20)
    assert found.text == text
    assert list(found.prompt_ids) == inputs["input_ids"][0].tolist()
    assert list(found.continuation_ids) == new.tolist()


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12))
def test_any_prompt_comes_back_as_it_was(model: Model, prompt: str) -> None:
    assert model.complete(prompt, 2).startswith(prompt)
    assert model.complete(prompt, 0) == prompt


def test_options_are_those_of_generate(model: Model) -> None:
    drawn = model.complete(PROMPT, 10, temperature=2.0, top_k=200, seed=1)
    assert drawn == model.complete(PROMPT, 10, temperature=2.0, top_k=200, seed=1)
    assert drawn != model.complete(PROMPT, 10, temperature=2.0, top_k=200, seed=2)
    ids = model.tokenizer.encode(PROMPT).ids
    written = model.generate([ids], 10, temperature=2.0, top_k=200, seed=1, stop_token=END_OF_TEXT)
    assert drawn == PROMPT + model.tokenizer.decode(written[0, len(ids) :].tolist())
    with pytest.raises(ArgumentError, match="temperature"):
        model.complete(PROMPT, temperature=-1.0)
    with pytest.raises(ArgumentError, match="positions"):
        model.complete(PROMPT, 10_000)
    for count in (-1, 1.5, None, "9"):
        with pytest.raises(ArgumentError, match="new tokens"):
            model.complete(PROMPT, count)


def test_it_ends_at_the_end_of_text(suite: Path) -> None:
    ends = pythia_fast.load(suite, 0)
    ends.weights.unembed_VD.zero_()
    ends.weights.unembed_VD[END_OF_TEXT] = ends.weights.final_norm.bias_D  # h · bias, likeliest
    ends.weights.final_norm.weight_D.zero_()
    ends.weights.final_norm.bias_D.fill_(1.0)
    ends.weights.unembed_VD[END_OF_TEXT].fill_(1.0)
    ends.weights.refresh()
    found = complete(ends, PROMPT, 20)
    assert found.continuation_ids == (END_OF_TEXT,)
    assert (found.continuation, found.text) == ("", PROMPT)


@pytest.mark.parametrize("prompt", ["", b"Hello", None, 3, ["Hello"], "\ud800"])
def test_what_is_no_prompt_is_refused(model: Model, prompt: object) -> None:
    with pytest.raises(ArgumentError, match="prompt"):
        model.complete(prompt)


def test_an_empty_prompt_is_told_how_to_begin(model: Model) -> None:
    with pytest.raises(ArgumentError, match=r"<\|endoftext\|>"):
        model.complete("")
    assert model.complete("<|endoftext|>", 3).startswith("<|endoftext|>")


def test_a_tokenizer_may_know_more_than_the_model(tmp_path: Path) -> None:
    """No end of text in its 160 rows, and no bytes above."""
    suite = tiny_suite(tmp_path / "s", steps=(0,), architecture=tiny(vocab_rows=160))
    byte_tokenizer().save(str(suite / "tokenizer.json"))
    small = pythia_fast.load(suite, 0)
    assert small.tokenizer.get_vocab_size() == 257
    assert small.complete(PROMPT, 4).startswith(PROMPT)
    for prompt in ("é", "<|endoftext|>"):
        with pytest.raises(TokenRangeError, match="tokenizer"):
            small.complete(prompt)


def test_a_token_that_the_tokenizer_lacks_is_not_shown(suite: Path) -> None:
    """Pythia's embeddings have rows that no token stands for."""
    padded = pythia_fast.load(suite, 0)
    unembed_VD = padded.weights.unembed_VD
    unembed_VD.zero_()
    padded.weights.final_norm.weight_D.zero_()
    padded.weights.final_norm.bias_D.fill_(1.0)
    unembed_VD[259].fill_(1.0)
    padded.weights.refresh()
    found = complete(padded, PROMPT, 3)
    assert found.continuation_ids == (259, 259, 259)
    assert found.continuation == ""


def test_what_a_tokenizer_cuts_or_pads_elsewhere_is_whole_here(suite: Path) -> None:
    cutting = byte_tokenizer()
    cutting.enable_truncation(4)
    cutting.enable_padding(length=4)
    one = pythia_fast.load(suite, 0, tokenizer=cutting)
    assert len(complete(one, PROMPT, 1).prompt_ids) == len(PROMPT)
    assert len(complete(one, "a", 1).prompt_ids) == 1
    assert cutting.truncation is not None


def test_a_tokenizer_can_be_given(suite: Path, tmp_path: Path, pair_of: Callable) -> None:
    one = pythia_fast.load(suite, 0)
    own = one.tokenizer
    assert one.tokenizer is own
    given = byte_tokenizer()
    one.tokenizer = given
    assert one.tokenizer is given
    given.save(str(tmp_path / "t.json"))
    one.tokenizer = tmp_path / "t.json"
    assert one.tokenizer.to_str() == given.to_str()
    one.tokenizer = str(tmp_path / "t.json")
    with pytest.raises(MissingTokensError, match=r"none\.json"):
        one.tokenizer = tmp_path / "none.json"
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ArgumentError, match="no tokenizer"):
        one.tokenizer = tmp_path / "bad.json"
    with pytest.raises(ArgumentError, match="tokenizer"):
        one.tokenizer = 3
    assert isinstance(one.tokenizer, Tokenizer)


def test_a_model_made_by_hand_has_none_until_it_is_given(
    tiny: Architecture, pair_of: Callable
) -> None:
    ours = pair_of(tiny).ours
    with pytest.raises(MissingTokensError, match=r"model\.tokenizer"):
        _ = ours.tokenizer
    with pytest.raises(MissingTokensError):
        ours.complete("Hello")
    ours.tokenizer = byte_tokenizer()
    assert ours.complete("Hello", 2).startswith("Hello")
