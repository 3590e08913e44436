import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import GPTNeoXForCausalLM

from pythia_fast.kernels.cpu import has_amx
from pythia_fast.series import write_checkpoint
from pythia_fast.suite import spec
from pythia_fast.testing import HubServer, random_state_dict

PROMPT = "Hello, I am"


def greedy(folder, count):
    """What transformers writes."""
    model = GPTNeoXForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([list(PROMPT.encode())])
    written = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return written[0, ids.shape[1] :].tolist()


def test_greedy_text_is_that_of_transformers(run, suite):
    arguments = ["generate", suite, PROMPT, "--step", 4, "--max-new-tokens", 20]
    found = json.loads(run(*arguments, "--json").stdout)
    assert found["prompt_ids"] == list(PROMPT.encode())
    assert found["continuation_ids"] == greedy(suite / "step4", 20)
    assert found["step"] == 4
    assert run(*arguments).stdout == PROMPT + found["continuation"] + "\n"


@pytest.mark.parametrize("dtype", ["auto", "float32", "bfloat16"])
def test_it_says_what_it_computes_in(run, suite, dtype):
    done = run("generate", suite, PROMPT, "--step", 4, "--max-new-tokens", 2, "--dtype", dtype)
    expected = ("split-bf16" if has_amx() else "float32") if dtype == "auto" else dtype
    assert done.stderr == f"{suite.name} at step 4: computing in {expected} on cpu\n"


def test_a_dtype_that_is_none_is_wrong_usage(run, suite):
    run("generate", suite, PROMPT, "--dtype", "int8", exit_code=2)


def test_without_a_step_it_is_the_last(run, suite):
    found = json.loads(run("generate", suite, PROMPT, "--json").stdout)
    assert found["step"] == 16
    assert len(found["continuation_ids"]) == 64


def test_a_folder_may_stand_for_its_tokenizer(run, suite):
    arguments = ["generate", suite, PROMPT, "--step", 4, "--max-new-tokens", 5]
    assert run(*arguments, "--tokenizer", suite).stdout == run(*arguments).stdout
    told = run(*arguments, "--tokenizer", suite / "step4", exit_code=3).stderr
    assert "step4': the folder holds no tokenizer.json" in told


def test_the_same_seed_draws_the_same(run, suite):
    arguments = ["generate", suite, PROMPT, "--temperature", "1.5", "--top-k", "50", "--seed"]
    assert run(*arguments, 1).stdout == run(*arguments, 1).stdout
    assert run(*arguments, 1).stdout != run(*arguments, 2).stdout


def test_the_tokenizer_may_lie_in_the_step_or_elsewhere(run, suite, tmp_path):
    series = tmp_path / "series"
    shutil.copytree(suite, series)
    (series / "tokenizer.json").rename(tmp_path / "t.json")
    arguments = ["generate", series, PROMPT, "--step", 2, "--max-new-tokens", 4]
    expected = run("generate", suite, *arguments[2:]).stdout
    assert run(*arguments, "--tokenizer", tmp_path / "t.json").stdout == expected
    missing = run(*arguments, exit_code=3).stderr
    assert str(series / "step2" / "tokenizer.json") in missing
    assert "--tokenizer" in missing
    (tmp_path / "t.json").rename(series / "step2" / "tokenizer.json")
    assert run(*arguments).stdout == expected


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "no tokens"),
        ("x" * 200, "tokens"),
        ("é", "token id 195"),
    ],
)
def test_a_prompt_that_does_not_fit_is_bad_input(run, suite, prompt, words):
    assert words in run("generate", suite, prompt, exit_code=3).stderr


def test_a_model_of_the_hub_brings_its_tokenizer(suite, tmp_path):
    model = spec("14m")
    branch = tmp_path / "step512"
    write_checkpoint(branch, random_state_dict(model.architecture, seed=1), model.architecture)
    command = [sys.executable, "-m", "pythia_fast", "generate", "14m", PROMPT, "--step", "512"]
    command += ["--max-new-tokens", "8", "--cache-dir", str(tmp_path / "cache")]

    def pythia_fast(*more: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
        return subprocess.run(
            [*command, *more], capture_output=True, text=True, env=environment, check=False
        )

    with HubServer({"EleutherAI/pythia-14m": {"step512": branch}}) as hub:
        without = pythia_fast()
        assert without.returncode == 3
        assert "EleutherAI/pythia-14m at step 512 has no tokenizer.json" in without.stderr
        shutil.copy(suite / "tokenizer.json", branch)
        hub.publish("EleutherAI/pythia-14m", "step512", branch)
        done = pythia_fast("--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["continuation_ids"] == greedy(branch, 8)


def test_a_hub_that_is_not_there_is_bad_input(tmp_path):
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pythia_fast", "generate", "14m", PROMPT],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert len(done.stderr.splitlines()) == 1


def test_a_prompt_that_is_no_text_is_bad_input(run, suite):
    assert "no valid text" in run("generate", suite, "\udcff", exit_code=3).stderr


def test_a_seed_of_too_many_digits_is_wrong_usage(run, suite):
    run("generate", suite, "Hello", "--seed", 10**30, exit_code=2)
