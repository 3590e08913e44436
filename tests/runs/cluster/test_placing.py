"""How many workers a cluster is asked for, and what each of them gets."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pythia_fast.errors import ArgumentError
from pythia_fast.runs.cluster.placing import (
    Node,
    Placing,
    check_device,
    check_places,
    in_words,
    placing,
)
from pythia_fast.runs.workers import Workers, resolve_workers

CPUS = st.lists(st.integers(1, 64), min_size=1, max_size=6)


@given(cpus=CPUS, head=st.booleans())
def test_of_machines_without_gpus_each_has_a_worker(cpus: list[int], head: bool) -> None:
    """All are alike: a machine with more CPUs takes as many as it has room for."""
    nodes = [Node(each, 0) for each in cpus] + [Node(0, 0)] * head
    placed = placing(Workers(), nodes, None)
    assert placed.gpus == 0
    assert placed.cpus == placed.threads == min(cpus)
    assert placed.count == sum(each // min(cpus) for each in cpus)


@given(cpus=CPUS, count=st.integers(1, 40))
def test_so_many_workers_share_the_cpus(cpus: list[int], count: int) -> None:
    """Each has the most CPUs with which all find a place; one where there is no such number."""
    nodes = [Node(each, 0) for each in cpus]
    placed = placing(Workers(count=count), nodes, "cpu")

    def places(size: int) -> int:
        return sum(each // size for each in cpus)

    assert placed.count == count
    fitting = [size for size in range(1, max(cpus) + 1) if places(size) >= count]
    assert placed.cpus == max(fitting, default=1)


@given(
    gpus=st.lists(st.integers(0, 8), min_size=1, max_size=6).filter(any),
    part=st.sampled_from([0.1, 0.25, 0.5, 1, 2]),
    cpus=st.integers(8, 96),
)
def test_every_gpu_has_its_workers(gpus: list[int], part: float, cpus: int) -> None:
    nodes = [Node(cpus, each) for each in gpus]
    placed = placing(Workers(num_gpus=part), nodes, None)
    places = [math.floor(each / part + 1e-9) for each in gpus]
    assert placed.gpus == part
    assert placed.count == max(1, sum(places))
    taking = [each for each in places if each]
    for each in taking:  # what a node has is enough for all of its workers
        assert placed.cpus == 1 or each * placed.cpus <= cpus
    if taking:
        assert placed.cpus == max(1, cpus // max(taking))


def test_what_is_said_counts() -> None:
    nodes = [Node(16, 2), Node(16, 0)]
    assert placing(Workers(), nodes, None) == Placing(2, 8, 1)
    assert placing(Workers(), nodes, "cuda") == Placing(2, 8, 1)
    assert placing(Workers(), nodes, "cpu") == Placing(2, 16, 0)
    assert placing(Workers(num_gpus=0), nodes, None) == Placing(2, 16, 0)
    assert placing(Workers(count=3, num_cpus=0.5), nodes, "cpu") == Placing(3, 0.5, 0)
    assert placing(Workers(num_cpus=0.5), nodes, "cpu") == Placing(64, 0.5, 0)
    assert placing(Workers(count=5, num_gpus=1, num_cpus=3), nodes, None) == Placing(5, 3, 1)
    assert Placing(1, 0.5, 0).threads == 1
    assert Placing(1, 2.5, 0).threads == 2


def test_before_any_machine_is_there_what_is_said_is_asked_for() -> None:
    """On a cluster whose machines are started for the workers that wait."""
    head = [Node(0, 0)]
    assert placing(Workers(count=16, num_gpus=1, num_cpus=24), head, None) == Placing(16, 24, 1)
    assert placing(Workers(), head, None) == Placing(1, 1, 0)


@pytest.mark.parametrize("device", ["cuda:1", "mps", "CPU", ""])
def test_ray_gives_out_the_gpus(device: str) -> None:
    with pytest.raises(ArgumentError, match=f"which gives out the GPUs, not {device!r}"):
        check_device(device)
    with pytest.raises(ArgumentError, match="which gives out the GPUs"):
        placing(Workers(), [Node(1, 1)], device)


@pytest.mark.parametrize("device", [None, "cpu", "cuda"])
def test_these_devices_can_be_asked_for(device: str | None) -> None:
    check_device(device)


@given(
    offered=st.lists(
        st.dictionaries(st.sampled_from(["CPU", "GPU", "memory", "disk"]), st.integers(0, 8)),
        max_size=3,
    ),
    count=st.integers(1, 4),
    cpus=st.integers(0, 4),
    gpus=st.integers(0, 2),
    memory=st.none() | st.integers(1, 8),
    disk=st.none() | st.integers(0, 3),
)
def test_all_find_a_place_or_it_is_said_what_is_too_much(
    offered: list[dict[str, float]],
    count: int,
    cpus: int,
    gpus: int,
    memory: int | None,
    disk: int | None,
) -> None:
    resources = {} if disk is None else {"disk": disk}
    workers = Workers(memory=memory, resources=resources)
    wanted = {"CPU": cpus, "GPU": gpus, "memory": memory or 0, "disk": disk or 0}
    too_much = [
        name
        for name, each in wanted.items()
        if count * each > sum(node.get(name, 0) for node in offered)
    ]
    placed = Placing(count, cpus, gpus)
    if not too_much:
        check_places(placed, workers, offered)
        return
    there = sum(node.get(too_much[0], 0) for node in offered)
    words = (
        f"{count} x {wanted[too_much[0]]} {too_much[0]} for the workers are more than the {there} "
    )
    with pytest.raises(ArgumentError, match=f"^{words}of this machine"):
        check_places(placed, workers, offered)


def test_what_each_is_to_have_is_said() -> None:
    own = Workers(memory=10**10, resources={"fast_disk": 0.5, "none": 0})
    assert in_words(Placing(3, 8, 0.5), own) == (
        "8 CPUs, 0.5 GPUs, 1e+10 bytes of memory, 0.5 fast_disk"
    )
    assert in_words(Placing(1, 2, 0), Workers()) == "2 CPUs"


def test_a_gpu_is_not_both_asked_for_and_denied() -> None:
    for workers, nodes in ((Workers(num_gpus=0), [Node(1, 1)]), (Workers(), [Node(1, 0)])):
        with pytest.raises(ArgumentError, match="the workers have no GPU"):
            placing(workers, nodes, "cuda")


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"count": 0}, "positive number, not 0"),
        ({"count": True}, "not True"),
        ({"count": "all"}, "not 'all'"),
        ({"num_cpus": -1}, "num_cpus of a worker"),
        ({"num_cpus": math.inf}, "num_cpus of a worker"),
        ({"num_cpus": math.nan}, "num_cpus of a worker"),
        ({"num_gpus": "1"}, "num_gpus of a worker"),
        ({"num_gpus": True}, "num_gpus of a worker"),
        ({"num_gpus": math.inf}, "num_gpus of a worker"),
        ({"memory": 0}, "memory of a worker"),
        ({"memory": math.inf}, "memory of a worker"),
        ({"memory": 1e9}, "a whole number of bytes, not 1000000000.0"),
        ({"placement": "PACK"}, "not 'PACK'"),
        ({"resources": "fast_disk"}, "such as {'fast_disk': 1}, not 'fast_disk'"),
        ({"resources": {"fast_disk": "1"}}, "resources of a worker are numbers by name"),
        ({"resources": {"fast_disk": -1}}, "resources of a worker are numbers by name"),
        ({"resources": {"fast_disk": math.inf}}, "resources of a worker are numbers by name"),
        ({"resources": {"fast_disk": True}}, "resources of a worker are numbers by name"),
        ({"resources": {1: 1}}, "resources of a worker are numbers by name"),
        ({"resources": None}, "resources of a worker are numbers by name"),
        ({"runtime_env": "HF_TOKEN"}, "runtime_env is a mapping or None, not 'HF_TOKEN'"),
        ({"runtime_env": [("a", 1)]}, "runtime_env is a mapping or None"),
        ({"address": 6379}, "address is a text such as '10.0.0.1:6379', not 6379"),
    ],
)
def test_workers_that_make_no_sense(given: dict[str, object], match: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(match)):
        Workers(**given)  # type: ignore[arg-type]


def test_workers_may_be_a_number() -> None:
    assert resolve_workers(None) == resolve_workers("auto") == Workers()
    assert resolve_workers(3) == Workers(count=3)
    own = Workers(num_cpus=2)
    assert resolve_workers(own) is own
    for wrong in ("three", 2.5, True, [1]):
        with pytest.raises(ArgumentError, match="workers is 'auto', a number or Workers"):
            resolve_workers(wrong)
