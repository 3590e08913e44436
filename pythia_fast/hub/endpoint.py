"""The Hub's address as the user sets it, looked at before huggingface_hub is imported."""

import os
from urllib.parse import urlsplit

from pythia_fast.errors import ArgumentError


def check_endpoint() -> None:
    """ArgumentError if HF_ENDPOINT is no address.

    huggingface_hub takes apart what is there when it is imported, and fails with a bare ValueError;
    an empty text is the address "" to it. So this comes before that import.
    """
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint is None or _is_address(endpoint):
        return
    what = repr(endpoint) if endpoint else "empty"
    raise ArgumentError(
        f"HF_ENDPOINT is {what}, which is no address of a Hub: unset it, or set one such as "
        "https://huggingface.co"
    )


def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
