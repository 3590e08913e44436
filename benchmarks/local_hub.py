"""Peers and ours speak to a Hub on this machine, as if it were the Hub."""

import huggingface_hub.constants
import pytest


def speak_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let huggingface_hub, and whoever uses it, ask `endpoint`, by plain HTTP."""
    files = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)  # this Hub is here
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
