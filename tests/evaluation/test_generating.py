import pytest

import pythia_fast
from pythia_fast.demo.corpus import byte_tokenizer
from pythia_fast.errors import ArgumentError
from pythia_fast.evaluation.encoding import Encoder
from pythia_fast.evaluation.generating import Wish, generate_texts, prepared, wish_of


@pytest.fixture(scope="module")
def model(suite):
    return pythia_fast.load(suite, 64, dtype="float32")


@pytest.fixture(scope="module")
def encoder():
    return Encoder(byte_tokenizer())


def greedy(model, encoder, ids, count):
    """Token by token, by whole forward passes."""
    written = list(ids)
    for _ in range(count):
        token = int(model([written])[0, -1].argmax())
        if token == encoder.end_of_text:
            break
        written.append(token)
    return encoder.text(written[len(ids) :])


PROMPTS = ("the cat", "a mat s", "the cat", "on", "good to be there")


def test_it_is_greedy_up_to_a_stop_string(model, encoder):
    prompts = encoder.prompts(PROMPTS)
    whole = [greedy(model, encoder, ids, 10) for ids in prompts]
    wish = Wish(10, ())
    assert generate_texts(model, encoder, [(ids, wish) for ids in prompts]) == whole
    stops = tuple({text[3:5] for text in whole})
    expected = [min((text.partition(stop)[0] for stop in stops), key=len) for text in whole]
    assert any(0 < len(text) < 9 for text in expected)
    stopped = generate_texts(model, encoder, [(ids, Wish(10, stops)) for ids in prompts])
    assert stopped == expected


def test_a_long_prompt_loses_its_left(model, encoder):
    ids = encoder.ids("the cat sat on a mat " * 10)
    expected = greedy(model, encoder, ids[-(128 - 7) :], 7)
    assert generate_texts(model, encoder, [(ids, Wish(7, ()))]) == [expected]


def test_nothing_is_said_after_an_end_of_text(model, encoder, monkeypatch):
    import torch

    from pythia_fast.evaluation import generating

    def steps(_, ids_BT, n):
        for token in (104, 256, 105):
            yield torch.full((len(ids_BT),), token), torch.ones(len(ids_BT))

    monkeypatch.setattr(generating, "greedy_steps", steps)
    assert generate_texts(model, encoder, [([1, 2], Wish(3, ()))]) == ["h"]


def test_an_empty_prompt_is_refused(encoder):
    with pytest.raises(ArgumentError, match="a prompt has no tokens"):
        prepared(encoder, [("a", {}), ("", {})], 512)


@pytest.mark.parametrize(
    ("options", "wish"),
    [
        ({}, Wish(256, ())),
        ({"until": "x"}, Wish(256, ("x",))),
        ({"until": ["x", ""], "max_gen_toks": 5, "max_new_tokens": 7}, Wish(5, ("x",))),
        ({"max_tokens": 9, "do_sample": False, "temperature": 1.0}, Wish(9, ())),
        ({"do_sample": True, "temperature": 0, "top_p": 0.9, "num_beams": 1}, Wish(256, ())),
    ],
)
def test_options_of_tasks(options, wish):
    before = dict(options)
    assert wish_of(options, 2048) == wish
    assert options == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"do_sample": True, "temperature": 0.7}, "ask for sampling"),
        ({"temperature": 0.7}, "ask for sampling"),
        ({"do_sample": True}, "ask for sampling"),
        ({"num_beams": 4, "length_penalty": 2.0}, "num_beams, length_penalty are not known"),
        ({"max_gen_toks": 2048}, "max_gen_toks is 1 to 2047"),
        ({"max_gen_toks": 0}, "max_gen_toks is 1 to 2047"),
        ({"until": [3]}, "until is a string"),
        ({"max_gen_toks": "many"}, "max_gen_toks is a whole number, not 'many'"),
        ({"max_gen_toks": 1.5}, "max_gen_toks is a whole number, not 1.5"),
    ],
)
def test_options_that_are_refused(options, said):
    with pytest.raises(ArgumentError, match=said):
        wish_of(options, 2048)
