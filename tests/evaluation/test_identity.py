"""What determines an evaluation: the same in every process, and of what was only typed in."""

import os
import subprocess
import sys

PROGRAM = """
from pythia_fast.evaluation.identity import _digest, _sources


class Typed:
    def __call__(self):
        return 1


class Odd:
    def __repr__(self):
        return f"<Odd at 0x{id(self):X}>"

    __str__ = __repr__


words = {"one", "two", "three", "four", "five", "six"}
print(_digest([{"words": words, "odd": Odd()}, {1: "a", None: "b"}]))
print(_sources([Typed, Typed(), len, lambda: 1]))
"""


def test_it_is_the_same_in_every_process_and_takes_what_was_typed_in() -> None:
    said = set()
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        said.add(done.stdout)
    assert len(said) == 1
    digest, sources = said.pop().splitlines()
    assert len(digest) == 64
    assert sources == "[]"
