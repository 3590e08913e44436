"""Exit codes, errors, help: what is the same for every command, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

COMMANDS = (
    *("demo", "sweep", "study", "models", "generate", "view"),
    *("tokenize", "stats", "unshard", "shard", "checksum"),
)


def pythia_fast(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pythia_fast", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **options,
    )


def test_the_installed_command_is_the_module():
    command = Path(sys.executable).with_name("pythia-fast")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"pythia-fast {version('pythia-fast')}\n"
    assert pythia_fast("--version").stdout == done.stdout


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_has_examples_that_name_real_options(run, command):
    arguments = [command, "--help"] if command else ["-h"]
    text = run(*arguments).stdout
    examples = text.partition("Examples:\n")[2].splitlines()
    assert examples
    for line in examples:
        assert line.startswith(f"  pythia-fast {command}".rstrip())
        options = [word for word in line.split() if word.startswith("--")]
        assert all(option in text for option in options if command)


def loaded_by(*arguments: object) -> set[str]:
    """The top packages that a command imports, in a process of its own, whatever its exit code."""
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('LOADED', *{n.partition('.')[0] for n in sys.modules}))\n"
        "from pythia_fast.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    loaded = set(done.stdout.rpartition("LOADED ")[2].split())
    assert "click" in loaded, done.stderr
    return loaded


FOR_NUMBERS = {"numpy", "tokenizers"}
FOR_WORK = {"torch", "pyarrow", "pandas", "matplotlib", "transformers", "safetensors"}
FOR_THE_HUB = {"huggingface_hub", "stamina", "httpx"}


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["--version"], ["models"], ["models", "12b"], ["models", "12b", "--json"]),
        *([command, "--help"] for command in COMMANDS),
        *(["nonsense"], ["sweep"], ["sweep", "70m", "--dtype", "float8"], ["models", "12c"]),
        ["sweep", "12c"],
    ],
    ids=" ".join,
)
def test_what_says_something_about_the_suite_or_itself_imports_nothing_heavy(arguments):
    assert not loaded_by(*arguments) & (FOR_NUMBERS | FOR_WORK | FOR_THE_HUB)


@pytest.mark.parametrize(
    "arguments",
    [
        ["models", "SUITE"],
        ["generate", "12c", "hello"],
        ["generate", "SUITE", "hello", "--step", "3"],
        ["sweep", "SUITE", "--steps", "3"],
        ["sweep", "SUITE", "--tokens", "/nowhere/train"],
        ["view", "/nowhere/train"],
    ],
    ids=" ".join,
)
def test_a_folder_is_looked_at_and_mistakes_are_told_without_torch(suite, arguments):
    loaded = loaded_by(*(suite if each == "SUITE" else each for each in arguments))
    assert not loaded & (FOR_WORK | FOR_THE_HUB)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["sweep"],
        ["sweep", "70m", "--dtype", "float8"],
        ["sweep", "70m", "--sequences", "many"],
        ["sweep", "70m", "--steps", "many"],
        ["sweep", "70m", "--steps", "0,,1"],
        ["plan", "70m", "--steps", "0:10:0"],
        ["plan", "70m", "--disk-budget", "much"],
        ["convert", "70m", "out", "--disk-budget", "0"],
        ["audit", "70m", "--steps", "-1"],
        ["sweep", "70m", "--batch-tokens", "0"],
        ["sweep", "70m", "--tokenizer", "t.json"],
        ["generate", "70m", "hello", "--step", "-1"],
        ["view", "data", "--rows", "0:2", "--steps", "1:2"],
        ["view", "data", "--rows", "one"],
        ["view", "data", "--mode", "text"],
        ["demo", "--seconds", "0"],
    ],
)
def test_wrong_usage_ends_with_2(run, arguments):
    result = run(*arguments, exit_code=2)
    assert "Usage: pythia-fast" in result.stderr
    assert result.stdout == ""


def test_bad_input_ends_with_3_and_one_line(suite):
    done = pythia_fast("sweep", suite, "--tokens", "/nowhere/train")
    assert done.returncode == 3
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("pythia-fast: no token data at '/nowhere/train'")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["models", "12c"], "near is 12b"),
        (["sweep", "12c"], "near is 12b"),
        (["generate", "SUITE", "hello", "--step", "3"], "the nearest: 2 and 4"),
        (["sweep", "SUITE", "--tokens", "TOKENS", "--steps", "3"], "the nearest"),
        (["sweep", "SUITE", "--tokens", "TOKENS", "--metrics", "charm"], "no metric 'charm'"),
        (["sweep", "SUITE"], "give tokens=, --tokens"),
        (["view", "/nowhere/train"], "no token data"),
        (["demo", "--folder", "SUITE"], "is no demo"),
    ],
)
def test_bad_input_of_every_command_ends_with_3(run, suite, tokens, arguments, words):
    places = {"SUITE": suite, "TOKENS": tokens}
    result = run(*(places.get(each, each) for each in arguments), exit_code=3)
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_debug_shows_where_an_error_arose():
    done = pythia_fast("models", "12c", "--debug")
    assert done.returncode == 3
    assert "Traceback" in done.stderr
    assert "UnknownModelError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("pythia-fast: there is no model '12c'")


def test_a_reader_that_has_seen_enough_is_no_error(tokens):
    with subprocess.Popen(
        [sys.executable, "-m", "pythia_fast", "view", str(tokens), "--rows", "0:24"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize(
    "arguments", [["models"], ["models", "--json"], ["--help"], ["--version"], ["models", "-h"]]
)
def test_standard_output_that_is_full_ends_with_3_and_one_line(arguments):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pythia_fast", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr == (
        "pythia-fast: standard output cannot be written: No space left on device\n"
    )


def test_a_tokenizer_that_cannot_be_looked_for_ends_with_3_and_one_line(run, tokens):
    name = "x" * 300  # the system refuses, as for a folder that may not be looked into
    result = run("view", tokens, "--tokenizer", name, exit_code=3)
    (line,) = result.stderr.splitlines()
    assert line == f"pythia-fast: cannot read {name}: File name too long"


SLOW = """
import time
from pythia_fast.cli import main
from pythia_fast.runs import measure

real = measure._asked

def asked(*arguments):
    time.sleep(1)
    return real(*arguments)

measure._asked = asked
main(prog_name="pythia-fast")
"""


def test_an_interrupt_ends_with_130_and_the_same_command_goes_on(suite, tokens, tmp_path):
    out = tmp_path / "run"
    arguments = [
        *("sweep", suite, "--tokens", tokens, "--out", out, "--quiet", "--json"),
        *("--metrics", "memorization-score", "--deterministic"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        give_up = time.monotonic() + 60
        while not list(out.rglob("*.parquet")) and time.monotonic() < give_up:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout == ""
    (line,) = stderr.splitlines()
    assert "goes on from there" in line
    kept = set(out.rglob("*.parquet"))
    assert 1 <= len(kept) < 6
    done = pythia_fast(*arguments, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["rows"]) == 6
    assert kept < set(out.rglob("*.parquet"))


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream_is_no_error(suite, tokens, tmp_path, closed):
    """Python then has None in its place; daemons are started so."""
    command = [sys.executable, "-m", "pythia_fast", "sweep", suite, "--tokens", tokens]
    words = [*map(str, command), "--steps", "0", "--out", str(tmp_path / "run")]
    shell = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", *words]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_an_interrupt_of_the_imports_is_no_traceback():
    program = (
        "import runpy, sys\n"
        "class Pressed:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Pressed())\n"
        "runpy.run_module('pythia_fast', run_name='__main__')\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "pythia-fast: interrupted\n")


@pytest.mark.parametrize(
    "arguments", [("plan", "14m"), ("sweep", "14m"), ("cache", "ls")], ids=" ".join
)
def test_an_address_that_is_none_is_no_traceback(arguments):
    done = pythia_fast(*arguments, env={**os.environ, "HF_ENDPOINT": "http://[::1"})
    assert done.returncode == 3
    assert done.stderr.startswith("pythia-fast: HF_ENDPOINT is 'http://[::1', which is no address")


def test_a_folder_needs_no_address(suite: Path):
    """With a prompt, for which a tokenizer is looked for beside the steps."""
    done = pythia_fast(
        *("generate", suite, "hello", "--max-new-tokens", 1),
        env={**os.environ, "HF_ENDPOINT": "http://[::1"},
    )
    assert done.returncode == 0, done.stderr
