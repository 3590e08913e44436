"""Proxies and certificates are those that the environment names, as huggingface_hub takes them.

Each case is a process of its own: a client reads the environment when it is made.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from proxies import Proxy, self_signed, server_context, serving, tls_to

from pythia_fast.hub.body import OWN_HANDS_BYTES
from pythia_fast.testing import HubServer

REPO = "EleutherAI/pythia-14m"
Found = Callable[..., tuple[dict[str, Any], list[str]]]
NAMES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CLIENT = f"""
import hashlib, json, sys
from pythia_fast.errors import HubError, MissingCheckpointError
from pythia_fast.hub import body
from pythia_fast.hub.ranges import RangeReader
from pythia_fast.hub.revisions import list_branches, list_files

endpoint, repo, direct = sys.argv[1], {REPO!r}, []
socket_of = body._socket
body._socket = lambda answer: direct.append(socket_of(answer)) or direct[-1]
try:
    commit = list_branches(repo, endpoint=endpoint)["step0"]
    (file,) = [each for each in list_files(repo, commit, endpoint=endpoint) if each.sha256]
    reader = RangeReader(
        repo, commit, endpoint=endpoint, repo_type="model", missing=MissingCheckpointError
    )
    sha256 = hashlib.sha256(reader.read(file, 0, file.size)).hexdigest()
    print(json.dumps({{"sha256": sha256, "direct": [each is not None for each in direct]}}))
except HubError as error:
    print(json.dumps({{"error": str(error)}}))
"""


@dataclass(frozen=True)
class Ways:
    """A Hub by HTTP and by TLS, and a proxy before it, which is spoken to either way."""

    sha256: str
    http: str
    https: str
    proxy: str
    proxy_by_tls: str
    certificate: str
    seen: Proxy


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """The file is so large that its body is read from the socket."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("ways")
    (folder / "step0").mkdir()
    data = np.random.default_rng(0).bytes(OWN_HANDS_BYTES + 2**20)
    (folder / "step0/model.safetensors").write_bytes(data)
    certificate, key = self_signed(folder)
    context, seen = server_context(certificate, key), Proxy()
    with HubServer({REPO: {"step0": folder / "step0"}}) as hub:
        port = urlsplit(hub.url).port or 0
        with (
            serving(tls_to(port), context) as tls,
            serving(seen.handle) as proxy,
            serving(seen.handle, context) as proxy_by_tls,
        ):
            yield Ways(
                hashlib.sha256(data).hexdigest(),
                f"http://localhost:{port}",
                f"https://localhost:{tls}",
                f"http://127.0.0.1:{proxy}",
                f"https://localhost:{proxy_by_tls}",
                str(certificate),
                seen,
            )


@pytest.fixture
def found(ways: Ways, tmp_path: Path) -> Found:
    """What a process finds with this endpoint and environment, and what it asked the proxy for."""

    def run(endpoint: str, **environment: str) -> tuple[dict[str, Any], list[str]]:
        ways.seen.asked.clear()
        own = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and name not in NAMES
        }
        own |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": endpoint, **environment}
        root = str(Path(__file__).parents[2])
        process = subprocess.run(
            [sys.executable, "-c", CLIENT, endpoint],
            env=own | {"PYTHONPATH": root},
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(process.stdout), [line.split("?")[0] for line in ways.seen.asked]

    return run


def test_a_certificate_that_nobody_vouches_for_must_be_named(ways: Ways, found: Found) -> None:
    answer, _ = found(ways.https)
    assert "SSL_CERT_FILE names a file" in answer["error"]
    answer, asked = found(ways.https, SSL_CERT_FILE=ways.certificate)
    assert answer == {"sha256": ways.sha256, "direct": [True]}
    assert asked == []


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_tls_goes_through_a_tunnel(ways: Ways, found: Found, name: str) -> None:
    answer, asked = found(ways.https, SSL_CERT_FILE=ways.certificate, **{name: ways.proxy})
    assert answer == {"sha256": ways.sha256, "direct": [True]}
    assert set(asked) == {f"CONNECT {ways.https.removeprefix('https://')}"}


def test_plain_http_is_asked_of_the_proxy(ways: Ways, found: Found) -> None:
    answer, asked = found(ways.http, HTTP_PROXY=ways.proxy)
    assert answer == {"sha256": ways.sha256, "direct": [True]}
    assert all(line.startswith(f"GET {ways.http}/") for line in asked)
    assert any(line.endswith("/refs") for line in asked)
    assert any(line.endswith("/model.safetensors") for line in asked)


def test_tls_within_the_proxys_tls_is_left_to_the_client(ways: Ways, found: Found) -> None:
    trusted = {"SSL_CERT_FILE": ways.certificate}
    answer, asked = found(ways.https, HTTPS_PROXY=ways.proxy_by_tls, **trusted)
    assert answer == {"sha256": ways.sha256, "direct": [False]}
    assert asked


def test_a_name_without_proxy_is_asked_itself(ways: Ways, found: Found) -> None:
    trusted = {"SSL_CERT_FILE": ways.certificate}
    answer, asked = found(ways.https, HTTPS_PROXY=ways.proxy, NO_PROXY="localhost", **trusted)
    assert (answer["sha256"], asked) == (ways.sha256, [])


def test_a_proxy_that_is_not_there_is_not_passed_by(ways: Ways, found: Found) -> None:
    answer, _ = found(ways.http, HTTP_PROXY="http://127.0.0.1:9")
    assert "could not be had" in answer["error"]
