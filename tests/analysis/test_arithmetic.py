"""The questions, their shots, and the metric: against transformers, one question at a time."""

import random
import re
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPTNeoXForCausalLM

import pythia_fast
from pythia_fast.analysis import arithmetic
from pythia_fast.analysis.arithmetic import Questions, _Reply
from pythia_fast.errors import ArgumentError

SMALL = {"firsts": [3, 40, 7], "seconds": [1, 2, 20]}


def test_all_of_the_case_study():
    questions = Questions()
    assert len(questions) == 2 * 5 * 100 * 50
    assert questions[0].text == "Q:What is 0 times 1? A:"
    last = questions[-1]
    assert (last.operation, last.shots, last.first, last.second) == ("plus", 16, 99, 50)
    assert last.answer == 149
    assert last.text.endswith("\n\nQ:What is 99 plus 50? A:")
    assert len({question.text for question in questions}) == len(questions)


@pytest.mark.parametrize("shots", [2, 16])
def test_shots_are_drawn_as_the_published_evaluations_drew_them(shots):
    """As the harness of that time did: shuffle the questions, then draw for each in turn."""
    for operation, sign in (("times", int.__mul__), ("plus", int.__add__)):
        questions = Questions(operations=[operation], shots=[shots])
        by_numbers = {(each.first, each.second): each.text for each in questions}
        for first in (0, 57):
            documents = [(first, second) for second in range(1, 51)]
            others = [(a, b) for a in range(100) if a != first for b in range(1, 51)]
            drawing = random.Random()
            drawing.seed(42)
            drawing.shuffle(documents)
            for a, b in documents:
                drawn = [each for each in drawing.sample(others, shots + 1) if each != (a, b)]
                before = [
                    f"Q:What is {x} {operation} {y}? A:{sign(x, y)}\n\n" for x, y in drawn[:shots]
                ]
                assert by_numbers[a, b] == "".join(before) + f"Q:What is {a} {operation} {b}? A:"


def test_settings_make_the_same_questions():
    questions = Questions(operations=["plus"], shots=[0, 2], **SMALL)
    again = Questions.of_settings(questions.settings)
    assert list(again) == list(questions)
    with pytest.raises(ArgumentError, match="'seconds' of its questions"):
        Questions.of_settings({"operations": ["plus"], "shots": [0], "firsts": [1]})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"operations": ["minus"]}, "times or plus, not 'minus'"),
        ({"shots": []}, "shots are different numbers"),
        ({"firsts": [-1]}, "firsts are different numbers"),
        ({"seconds": [1, 1]}, "seconds are different numbers"),
        ({"shots": [2], "firsts": [1, 2], "seconds": [1, 2]}, "2 shots are drawn from the 2"),
        ({"firsts": ["1"]}, "must be an int"),
    ],
)
def test_no_questions(options, words):
    with pytest.raises(ArgumentError, match=words):
        Questions(**options)


@pytest.mark.parametrize(
    ("text", "number", "known"),
    [
        ("", "", False),
        (" 12", "12", False),
        (" 12.", "12", True),
        (" 12\n\nQ", "12", True),
        ("\n 12", "", True),
        (" it is 123456", "12345", True),
        (" 7\ufffd", "7", False),
        (" no", "", False),
    ],
)
def test_when_a_reply_is_known(text, number, known):
    reply = _Reply()
    reply.read(text)
    assert (reply.number, reply.known) == (number, known)


def digits_tokenizer(rows: int) -> Tokenizer:
    """The characters of the questions, and all other ids are numbers or parts of replies.

    Random weights say mostly the latter.
    """
    letters = sorted(set("Q:Whatis0123456789 timesplus? A:\n".replace(" ", "Ġ").replace("\n", "Ċ")))
    others = [f"{n}{('Ċ', 'x', '')[n % 3]}" for n in range(10, 10 + rows - len(letters))]
    vocabulary = {text: number for number, text in enumerate((*letters, *others))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def answers(series: Path, step: int, texts, tokenizer):
    """The first number in the first line of what transformers generates, or None."""
    model = GPTNeoXForCausalLM.from_pretrained(series / f"step{step}", dtype=torch.float32).eval()
    found = []
    for text in texts:
        ids = torch.tensor([tokenizer.encode(text).ids])
        new = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=16,
            do_sample=False,
            pad_token_id=0,
            eos_token_id=None,
        )[0, ids.shape[1] :]
        digits = re.findall(r"\d{1,5}", tokenizer.decode(new.tolist()).split("\n")[0])
        found.append(int(digits[0]) if digits else None)
    return found


def test_a_sweep_answers_as_transformers_does(tiny, tiny_series, tmp_path, monkeypatch):
    tokenizer = digits_tokenizer(tiny.vocab_rows)
    questions = Questions(shots=[0, 2], **SMALL)
    texts = [question.text for question in questions]
    wanted = answers(tiny_series, 16, texts, tokenizer)
    assert len({*wanted}) > 3  # some numbers, and None
    # Random weights know no arithmetic: so every third answer of theirs is made the right one.
    right = {
        text: number if i % 3 == 0 else -1
        for i, (text, number) in enumerate(zip(texts, wanted, strict=True))
    }
    monkeypatch.setattr(
        arithmetic.Question, "answer", property(lambda question: right[question.text])
    )
    result = pythia_fast.sweep(
        tiny_series,
        [16],
        tokens=questions.dataset(tokenizer),
        sequences=len(questions),
        metrics=questions.metric(tokenizer),
        out=tmp_path / "run",
        dtype="float32",
        batch_tokens=500,  # several batches
        progress=False,
    )
    table = result.sequences.sort_by("sequence")
    assert table["answer"].to_pylist() == wanted
    correct = [right[text] == number for text, number in zip(texts, wanted, strict=True)]
    assert table["correct"].to_pylist() == correct
    assert 0 < sum(correct) < len(correct)
    row = result.table.to_pylist()[0]
    assert row["value"] == row["accuracy"] == pytest.approx(sum(correct) / len(correct))
    assert row["answered"] == pytest.approx(sum(each is not None for each in wanted) / len(wanted))
    assert row["status"] == "ok"
    again = Questions.of_settings(result.specification["metrics"][0]["settings"])
    assert list(again) == list(questions)
