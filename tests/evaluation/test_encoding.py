"""Texts to ids, against the harness's own splitting of pairs and windows."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from pythia_fast.demo.corpus import byte_tokenizer
from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation import encoding
from pythia_fast.evaluation.encoding import Encoder


@pytest.fixture(scope="module")
def template():
    """The harness's own rules, over the same tokenizer."""
    from lm_eval.api.model import TemplateLM

    text = byte_tokenizer()

    class Bare(TemplateLM):
        eot_token_id = 256

        def tok_encode(self, string, add_special_tokens=None, **_):
            return text.encode(string).ids

        def _loglikelihood_tokens(self, requests, **_):
            return [(context, continuation) for _, context, continuation in requests]

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            raise NotImplementedError

        def generate_until(self, requests, disable_tqdm=False):
            raise NotImplementedError

    return Bare()


@pytest.fixture(scope="module")
def encoder():
    return Encoder(byte_tokenizer())


texts = st.text(st.sampled_from("ab é\n\t "), max_size=8)


@settings(max_examples=80, deadline=None)
@example([("", "<|endoftext|>a"), ("a  ", "b"), (" a", " b "), ("", " b")])
@given(pairs=st.lists(st.tuples(texts, texts.filter(bool)), max_size=6))
def test_pairs_are_those_of_the_harness(template, encoder, pairs):
    from lm_eval.api.instance import Instance

    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=0)
        for pair in pairs
        if not pair[0] or pair[0].strip()  # of spaces alone the harness makes no context
    ]
    expected = template.loglikelihood(requests, disable_tqdm=True)
    found = encoder.pairs([each.args for each in requests])
    assert [(list(context), list(continuation)) for context, continuation in found] == expected


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 60), size=st.integers(1, 20))
def test_windows_are_those_of_the_harness(encoder, length, size):
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    text = "abcdefghij" * 6
    ids = list(text[:length].encode())
    expected = [
        make_disjoint_window(window)
        for window in get_rolling_token_windows(
            token_list=ids, prefix_token=256, max_seq_len=size, context_len=1
        )
    ]
    (found,) = encoder.windows([text[:length]], size)
    assert [(list(before), list(window)) for before, window in found] == expected


def test_texts_come_back_without_special_tokens(encoder):
    assert encoder.text([104, 105, 256, 33]) == "hi!"
    assert [list(ids) for ids in encoder.prompts(["hi", "", "hi"])] == [[104, 105], [], [104, 105]]


def test_texts_are_encoded_in_parts_and_kept_small(encoder, monkeypatch):
    monkeypatch.setattr(encoding, "TEXTS_AT_ONCE", 3)
    sizes = []

    class Counted:
        def encode_batch_fast(self, texts, **more):
            sizes.append(len(texts))
            return byte_tokenizer().encode_batch_fast(texts, **more)

    texts = [f"text {number}" for number in range(8)]
    few = Encoder(encoder.tokenizer)
    few.tokenizer = Counted()
    found = few.prompts(texts)
    assert sizes == [3, 3, 2]
    assert found == encoder.prompts(texts)
    assert [list(ids) for ids in found] == [list(text.encode()) for text in texts]
    assert {ids.itemsize for ids in found} == {4}


def test_a_tokenizer_without_an_end_of_text_is_refused():
    with pytest.raises(ArgumentError, match="endoftext"):
        Encoder(Tokenizer(models.BPE(vocab={"a": 0}, merges=[])))
