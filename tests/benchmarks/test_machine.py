"""What a results file says of the machine."""

import json
import os
import re

from machine import FLAGS, describe_machine, machine_name


def test_the_description_is_plain_json_and_says_what_matters():
    machine = describe_machine()
    assert json.loads(json.dumps(machine)) == machine
    assert {"cpu", "cores", "flags", "threads", "torch", "caches", "load_average"} <= set(machine)
    assert set(machine["flags"]) <= set(FLAGS)
    assert machine["cores"] == os.cpu_count()


def test_the_name_can_be_part_of_a_file_name():
    assert re.fullmatch(r"[a-z0-9-]+core", machine_name())


def test_the_name_says_what_the_processor_can_do(monkeypatch):
    fields = {"model name": "Intel(R) Xeon(R) Gold 6430 CPU @ 2.10GHz", "flags": "avx2 avx512f"}
    monkeypatch.setattr("machine._cpu_field", lambda name: fields.get(name, ""))
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert machine_name() == "intel-xeon-gold-6430-avx512-8core"
