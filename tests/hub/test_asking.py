"""What is asked of the Hub again, and in which words it fails."""

import errno
import logging
import ssl
from collections.abc import Iterator

import pytest
import stamina
from huggingface_hub import get_session, hf_raise_for_status
from huggingface_hub.errors import OfflineModeIsEnabled

from pythia_fast.errors import (
    ChecksumError,
    HubError,
    MissingTokensError,
    OfflineError,
    WriteError,
)
from pythia_fast.hub import asking as module
from pythia_fast.hub.asking import ask, wait_s
from pythia_fast.hub.revisions import list_branches
from pythia_fast.testing import HubServer


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=4)
    yield
    stamina.set_testing(False)


class Request:
    """Fails with each of the errors in turn, and then gives 7."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.count = 0

    def __call__(self) -> int:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return 7


def call(request: Request) -> int:
    return ask("me/x", "its y", request, endpoint="http://hub", missing=MissingTokensError)


def test_what_may_pass_is_tried_again() -> None:
    request = Request(TimeoutError("slow"), OSError("cut short"), TimeoutError("slow"))
    assert call(request) == 7
    assert request.count == 4
    with pytest.raises(HubError, match=r"me/x: its y could not be had from http://hub: .*: slow 4"):
        call(Request(*(TimeoutError(f"slow {n}") for n in range(1, 6))))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"),
        BrokenPipeError(errno.EPIPE, "Broken pipe"),
        ssl.SSLError(1, "decryption failed or bad record mac"),  # 1 is no EPERM here
        OSError(errno.EHOSTUNREACH, "No route to host"),
        OSError(errno.ENETDOWN, "Network is down"),
    ],
    ids=repr,
)
def test_a_broken_connection_is_tried_again(error: Exception) -> None:
    request = Request(error)
    assert call(request) == 7
    assert request.count == 2
    with pytest.raises(HubError, match="could not be had"):
        call(Request(*[error] * 4))


def test_a_retry_is_in_our_own_log_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert call(Request(TimeoutError("slow"))) == 7
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("pythia_fast", "DEBUG")
    assert record.getMessage() == "me/x: its y is asked for again: TimeoutError('slow')"
    caplog.clear()
    theirs = Request(TimeoutError("slow"))
    assert stamina.retry(on=TimeoutError)(theirs)() == 7  # somebody else's are told as ever
    assert [record.name for record in caplog.records] == ["stamina"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("nonsense"), HubError),
        (OfflineModeIsEnabled("offline"), OfflineError),
        (OSError(errno.ENOSPC, "no space left"), WriteError),
        (OSError(errno.EROFS, "read-only"), WriteError),
        (ChecksumError("ours"), ChecksumError),
    ],
)
def test_what_will_not_pass_is_not(error: Exception, expected: type[Exception]) -> None:
    request = Request(error)
    with pytest.raises(expected) as caught:
        call(request)
    assert request.count == 1
    assert caught.value is error or caught.value.__cause__ is error


def test_a_token_that_cannot_be_sent(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_é")
    with HubServer({"me/x": {"step0": tmp_path}}) as hub, pytest.raises(HubError) as caught:
        list_branches("me/x", endpoint=hub.url)
    assert "the token (HF_TOKEN, or" in str(caught.value)
    assert "hf_é" not in str(caught.value)


def test_a_token_that_is_refused(tmp_path) -> None:
    with HubServer({"me/x": {"step0": tmp_path}}) as hub:
        hub.fail("refs", status=401, times=1)
        with pytest.raises(HubError, match=r"401 .*log in with `hf auth login`"):
            list_branches("me/x", endpoint=hub.url)
        hub.fail("refs", status=403, times=1)
        with pytest.raises(HubError) as caught:
            list_branches("me/x", endpoint=hub.url)
        assert "log in" not in str(caught.value)


def test_an_interrupt_goes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        call(Request(KeyboardInterrupt()))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 0 "}, 0.0),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
        (
            {
                "Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT",
                "Date": "Wed, 21 Oct 2015 07:26:30 GMT",
            },
            90.0,
        ),
        (
            {
                "Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT",
                "Date": "Wed, 21 Oct 2015 09:28:00 GMT",
            },
            0.0,
        ),
        ({"Retry-After": "soon", "Date": "Wed, 21 Oct 2015 07:26:30 GMT"}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": '"api"; r = 0; t = 55'}, 55.0),
        ({"RateLimit": '"api";r=10;t=55'}, None),
    ],
)
def test_how_long_a_server_wants_to_be_left_alone(headers, expected: float | None) -> None:
    assert wait_s(headers) == expected


class TestPauses:
    """What a server asks for is what is waited; by the clock of stamina's own hook."""

    @pytest.fixture
    def waits(self) -> Iterator[list[float]]:
        waits: list[float] = []
        stamina.set_testing(False)
        stamina.instrumentation.set_on_retry_hooks([lambda details: waits.append(details.wait_for)])
        yield waits
        stamina.instrumentation.set_on_retry_hooks(None)

    def get(self, hub: HubServer) -> int:
        def request() -> int:
            answer = get_session().get(f"{hub.url}/api/models/me/x/refs")
            hf_raise_for_status(answer)
            return answer.status_code

        return ask("me/x", "refs", request, endpoint=hub.url, missing=MissingTokensError)

    def test_retry_after(
        self, waits: list[float], tmp_path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "JITTER_S", 0.01)
        with HubServer({"me/x": {"main": tmp_path}}) as hub:
            hub.fail("refs", status=429, headers={"Retry-After": "0"})
            hub.fail("refs", status=503, headers={"RateLimit": '"api";r=0;t=0'})
            assert self.get(hub) == 200
        assert len(waits) == 2
        assert all(0 <= wait <= 0.01 for wait in waits)

    def test_a_refusal_is_final(self, waits: list[float], tmp_path) -> None:
        with HubServer({"me/x": {"main": tmp_path}}) as hub:
            hub.fail("refs", status=400, times=9)
            with pytest.raises(HubError, match="400"):
                self.get(hub)
            assert hub.count("refs") == 1
        assert not waits

    def test_a_server_that_wants_too_much(self, waits: list[float], tmp_path) -> None:
        with HubServer({"me/x": {"main": tmp_path}}) as hub:
            hub.fail("refs", status=429, headers={"Retry-After": "301"})
            with pytest.raises(HubError, match=r"429.*\(the server asks to wait 301 s\)"):
                self.get(hub)
            assert hub.count("refs") == 1
        assert not waits
