"""The cluster's description is one that Ray takes, and what its comments say is so."""

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import pythia_fast

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/ray-cluster.yaml"


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    yaml = pytest.importorskip("yaml")
    found: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    return found


def test_ray_takes_it(described: dict[str, Any]) -> None:
    """By Ray's own schema, and with what it adds for the cloud. A wrong key is refused."""
    pytest.importorskip("ray")
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(described)
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]
    assert {"RAY_HEAD_IP"} <= set(re.findall(r"\$(\w+)", " ".join(_commands(described, "worker"))))
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepared | {"max_worker": 8})


def test_machines_are_of_one_kind_and_hold_the_workers(described: dict[str, Any]) -> None:
    types = described["available_node_types"]
    assert types["head"]["resources"]["CPU"] == 0  # nothing is computed where the results are
    machine = types["gpus"]
    assert machine["max_workers"] == described["max_workers"]
    asked = _example_of_workers()
    places = int(machine["resources"]["GPU"] / asked.num_gpus)
    assert asked.num_cpus * places <= machine["resources"]["CPU"]
    assert asked.count <= places * described["max_workers"]


def test_all_machines_have_the_package_and_the_same_python(described: dict[str, Any]) -> None:
    assert "pip install 'pythia-fast[ray]'" in described["setup_commands"]
    assert re.fullmatch(r"rayproject/ray:[\d.]+-py3\d+-gpu", described["docker"]["image"])
    scratch = [part.split(":")[0] for part in described["docker"]["run_options"] if "/mnt" in part]
    assert scratch == ["--volume /mnt/scratch"]
    for kind in ("head", "worker"):
        commands = _commands(described, kind)
        assert commands[0] == "ray stop"  # Ray's own way: what a machine ran before
        words = shlex.split(commands[1])
        assert words[:3] == ["HF_HOME=/mnt/scratch/huggingface", "ray", "start"]
    assert "--dashboard-host=127.0.0.1" in _commands(described, "head")[1]  # for nobody outside


def test_there_are_no_secrets() -> None:
    text = EXAMPLE.read_text()
    assert not re.search(
        r"hf_\w{8}|AKIA\w+|_TOKEN|password|secret|private_key", text, re.IGNORECASE
    )


def _commands(described: dict[str, Any], kind: str) -> list[str]:
    commands: list[str] = described[f"{kind}_start_ray_commands"]
    return commands


def _example_of_workers() -> Any:
    """The `Workers(…)` of the call in the comments, which is one that `sweep` takes."""
    lines = [line.removeprefix("#").removeprefix("   ") for line in EXAMPLE.read_text().split("\n")]
    begins = lines.index("import pythia_fast")
    ends = lines.index(")", begins)
    module = ast.parse("\n".join(lines[begins : ends + 1]))
    call = module.body[1].value  # type: ignore[attr-defined]
    named = {word.arg: word.value for word in call.keywords}
    assert ast.literal_eval(named["engine"]) == "ray"
    assert named.keys() <= set(pythia_fast.sweep.__kwdefaults__)
    given = {word.arg: ast.literal_eval(word.value) for word in named["workers"].keywords}
    return pythia_fast.Workers(**given)
