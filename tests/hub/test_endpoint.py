"""An address of a Hub that is none is told before huggingface_hub takes it apart."""

import pytest

from pythia_fast.errors import ArgumentError
from pythia_fast.hub.endpoint import check_endpoint


@pytest.mark.parametrize(
    "address",
    [
        *("https://huggingface.co", "http://127.0.0.1:8080", "http://[::1]:80/", "HTTPS://x.y/hub"),
        None,
    ],
)
def test_addresses(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if address is not None:
        monkeypatch.setenv("HF_ENDPOINT", address)
    check_endpoint()


@pytest.mark.parametrize(
    "address",
    ["http://[::1", "huggingface.co", "https://", "ftp://x.y", "http://x.y:port", "http://x:99999"],
)
def test_what_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(ArgumentError, match="HF_ENDPOINT is ") as caught:
        check_endpoint()
    assert repr(address) in str(caught.value)


def test_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "")
    with pytest.raises(ArgumentError, match=r"HF_ENDPOINT is empty, .* unset it"):
        check_endpoint()
