"""As much of Ray as the engine uses, played: no process is started, and the test gives answers."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from pythia_fast.runs.cluster import connecting
from pythia_fast.runs.cluster.messages import Hello

HELLO = Hello("a node", "there", ("float32",))


STATUS, V2 = "__autoscaling_status", "__autoscaler_v2_enabled"


class RayError(Exception):
    """As Ray says that an actor is gone."""


class RayTaskError(RayError):
    """As Ray says that a call has failed."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Actor:
    """An actor whose calls are answered when the test says so."""

    def __init__(self, ray: "Ray", options: dict[str, Any], arguments: tuple[Any, ...]) -> None:
        self.options, self.arguments = options, arguments
        self.killed = False
        self.calls: dict[str, list[int]] = {}
        self._ray = ray

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: Any) -> int:
            reference = next(self._ray.numbers)
            self.calls.setdefault(method, []).append(reference)
            return reference

        return SimpleNamespace(options=lambda name: SimpleNamespace(remote=remote))

    def answer(self, method: str, value: Any) -> None:
        """Let the oldest open call of a method end with a value, or an error."""
        self._ray.answers[self.calls[method].pop(0)] = value


class Ray:
    """As much of Ray as the engine uses."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, *nodes: dict[str, float], connected: bool = True) -> None:
        self._nodes, self.connected = nodes, connected
        self.experimental = played_kv({})
        self.numbers = itertools.count()
        self.actors: list[Actor] = []
        self.answers: dict[int, Any] = {}

    def is_initialized(self) -> bool:
        return self.connected

    def init(self, address: str, **_: Any) -> None:
        if address == "auto":
            raise ConnectionError("there is none")
        self.connected = True

    def shutdown(self) -> None:
        self.connected = False

    def nodes(self) -> list[dict[str, Any]]:
        gone = {"Alive": False, "NodeID": "gone", "Resources": {"CPU": 99, "GPU": 99}}
        return [
            {"Alive": True, "NodeID": f"node {number}", "Resources": dict(each)}
            for number, each in enumerate(self._nodes)
        ] + [gone]

    def remote(self, _: type) -> Any:
        def options(**given: Any) -> Any:
            def make(*arguments: Any) -> Actor:
                self.actors.append(Actor(self, given, arguments))
                return self.actors[-1]

            return SimpleNamespace(remote=make)

        return SimpleNamespace(options=options)

    def wait(
        self, references: list[int], num_returns: int, timeout: float, **_: Any
    ) -> tuple[list[int], list[int]]:
        assert num_returns <= len(references)
        ready = [each for each in references if each in self.answers][:num_returns]
        return ready, [each for each in references if each not in ready]

    def get(self, reference: int) -> Any:
        value = self.answers[reference]
        if isinstance(value, Exception):
            raise value
        return value

    def kill(self, actor: Actor) -> None:
        actor.killed = True


def played_kv(kept: dict[str, bytes] | None) -> Any:
    """What Ray keeps of itself; None for a Ray that does not say."""
    get = None if kept is None else lambda key, namespace=None: kept.get(key)
    return SimpleNamespace(internal_kv=SimpleNamespace(_internal_kv_get=get))


def played(
    monkeypatch: pytest.MonkeyPatch, *nodes: dict[str, float], connected: bool = True
) -> Ray:
    """The engine finds this in the place of Ray."""
    ray = Ray(*nodes, connected=connected)
    monkeypatch.setattr(connecting, "require", lambda _: ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    return ray
