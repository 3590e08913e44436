"""The way to a cluster, with a Ray that is played."""

import logging
import os
import socket
import sys
import threading
import time
from types import ModuleType
from typing import Any

import pytest

from pythia_fast.errors import ArgumentError, WorkerError
from pythia_fast.runs.cluster import reaching
from pythia_fast.runs.cluster.reaching import connect, connected, logged

TRIES = "RAY_gcs_server_port_wait_time_s"


class Ray:
    """Of each call of `init` the address, and how often Ray would have tried."""

    def __init__(self, *errors: Exception | None) -> None:
        self._errors = list(errors)
        self.calls: list[tuple[str, str | None]] = []

    def init(self, address: str, **_: Any) -> None:
        self.calls.append((address, os.environ.get(TRIES)))
        error = self._errors.pop(0) if self._errors else None
        if error is not None:
            raise error


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaching, "PATIENCE_S", 0.05)
    for name in ("RAY_ADDRESS", TRIES):
        monkeypatch.delenv(name, raising=False)


def test_what_is_named_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
        monkeypatch.setenv("RAY_ADDRESS", f"localhost:{port}")
        for given, used in (
            (f"127.0.0.1:{port}", f"127.0.0.1:{port}"),
            (f"ray://127.0.0.1:{port}", f"ray://127.0.0.1:{port}"),
            (None, f"localhost:{port}"),
        ):
            ray = Ray()
            assert connect(ray, given) is False
            assert ray.calls == [(used, "1")]
    assert TRIES not in os.environ


def test_a_cluster_of_this_machine_or_a_new_one() -> None:
    ray = Ray()
    assert connect(ray, None) is False
    assert [address for address, _ in ray.calls] == ["auto"]
    ray = Ray(ConnectionError("none"))
    assert connect(ray, None) is True
    assert ray.calls == [("auto", "1"), ("local", None)]
    ray = Ray()
    assert connect(ray, "local") is True
    assert ray.calls == [("local", None)]


def test_one_that_is_gone_or_of_another_version_is_told(caplog: pytest.LogCaptureFixture) -> None:
    ray = Ray(RuntimeError("Version mismatch"))
    assert connect(ray, None) is True
    assert "of no use: Version mismatch" in caplog.text


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "[::1]:1", "a:99999"])
def test_nobody_is_there(address: str) -> None:
    ray = Ray()
    with pytest.raises(WorkerError, match="nobody listens there"):
        connect(ray, address)
    assert not ray.calls


@pytest.mark.parametrize("error", [ConnectionError, RuntimeError, ValueError])
def test_who_is_there_is_no_cluster(error: type[Exception]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        address = f"127.0.0.1:{there.getsockname()[1]}"
        with pytest.raises(WorkerError, match=f"no Ray cluster answers at {address}: no way"):
            connect(Ray(error("no way")), address)
    with pytest.raises(WorkerError, match="no Ray cluster answers at nonsense: no way"):
        connect(Ray(error("no way")), "nonsense")


def test_a_cluster_of_another_python_answers() -> None:
    ray = Ray(RuntimeError("Version mismatch: The cluster was started with: Python: 3.12"))
    with pytest.raises(
        WorkerError, match=r"^the Ray cluster at there is another: Version .* 3\.12"
    ):
        connect(ray, "there")


def test_the_user_may_say_how_often_ray_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TRIES, "20")
    ray = Ray()
    connect(ray, None)
    assert ray.calls == [("auto", "20")]
    assert os.environ[TRIES] == "20"


def test_what_ray_prints_is_logged_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    worker: Any = ModuleType("ray._private.worker")
    monkeypatch.setitem(sys.modules, "ray._private.worker", worker)
    with logged():  # one that has no such function
        assert not vars(worker).get("print_worker_logs")
    worker.print_worker_logs = printing = lambda data, file: print(data["lines"], file=file)
    said = {"pid": "raylet", "lines": ["a worker died", "x:info_message:no room"]}
    with logged():
        worker.print_worker_logs(said, sys.stdout)
    with pytest.raises(KeyboardInterrupt), logged():
        raise KeyboardInterrupt
    assert worker.print_worker_logs is printing
    assert [record.getMessage() for record in caplog.records] == [
        "Ray (raylet): a worker died",
        "Ray (raylet): no room",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert capsys.readouterr().out == ""


def test_without_ray_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "ray._private.worker", raising=False)
    with logged():
        assert "ray._private.worker" not in sys.modules


class Once(Ray):
    """A Ray that can be connected once, as the real one, which takes its time for it."""

    connected = False
    ended = 0

    def is_initialized(self) -> bool:
        return self.connected

    def init(self, address: str, **named: Any) -> None:
        assert not self.connected, "Maybe you called ray.init twice by accident?"
        time.sleep(0.05)
        super().init(address, **named)
        self.connected = True

    def shutdown(self) -> None:
        self.connected = False
        self.ended += 1


def test_sweeps_side_by_side_share_a_connection_until_the_last_ends() -> None:
    ray = Once(ConnectionError("none"))
    both, ended = threading.Barrier(2), threading.Event()
    seen: list[tuple[bool, bool]] = []

    def sweep(last: bool) -> None:
        with connected(ray, None) as alone:
            both.wait(10)
            if last:
                ended.wait(10)
            seen.append((alone, ray.connected))
        if not last:
            ended.set()

    threads = [threading.Thread(target=sweep, args=(last,)) for last in (True, False)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [(True, True), (True, True)]
    assert [address for address, _ in ray.calls] == ["auto", "local"]
    assert ray.ended == 1
    with connected(ray, "local"):
        assert ray.connected
    assert ray.ended == 2


def test_who_is_connected_stays_so_and_goes_nowhere_else() -> None:
    ray = Once()
    with connected(ray, "local"):
        with connected(ray, "local"), connected(ray, None):
            pass
        with pytest.raises(ArgumentError, match=r"connected .* already.*'ray://there'"):
            connected(ray, "ray://there").__enter__()
        assert ray.connected
    ray.connected = True
    with connected(ray, None) as alone:
        assert not alone
    with pytest.raises(ArgumentError, match="connected to a Ray cluster already"):
        connected(ray, "local").__enter__()
    assert ray.connected


def test_what_somebody_has_disconnected_is_not_ended_again() -> None:
    ray = Once()
    with connected(ray, None):
        ray.shutdown()
        with connected(ray, None):
            assert ray.connected
    assert ray.ended == 2
    assert not ray.connected
