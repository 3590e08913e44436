"""`python -m pythia_fast.testing.hub`: a Hub on this machine from the shell."""

import argparse
import signal
import threading
from collections.abc import Sequence
from pathlib import Path

from pythia_fast.errors import ArgumentError
from pythia_fast.testing.hub import HubServer
from pythia_fast.testing.repository import branches


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until a signal ends it; the address is the first line on standard output."""
    parser = argparse.ArgumentParser(
        prog="python -m pythia_fast.testing.hub",
        description="Serve folders as a Hugging Face Hub on 127.0.0.1, until Ctrl-C.",
        epilog="stepN/ or global_stepN/ of a folder become branches; without any, all is main.",
    )
    parser.add_argument("repos", nargs="+", metavar="OWNER/NAME=FOLDER", type=_repo)
    parser.add_argument("--port", type=int, default=0, help="default: one that is free")
    parser.add_argument("--redirect", action="store_true", help="large files from another host")
    parser.add_argument("--latency-s", type=float, default=0.0, help="before every answer")
    parser.add_argument("--bytes-per-s", type=float, help="of each connection; default: no limit")
    parser.add_argument("--disturb", type=float, default=0.0, metavar="RATE", help="faults by lot")
    parser.add_argument("--seed", type=int, default=0, help="of --disturb")
    given = parser.parse_args(arguments)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        hub = HubServer(
            dict(given.repos),
            redirect=given.redirect,
            latency_s=given.latency_s,
            bytes_per_s=given.bytes_per_s,
            port=given.port,
        )
        with hub:
            hub.disturb(given.disturb, given.seed)
            print(hub.url, flush=True)
            ended.wait()
    except (ArgumentError, OSError) as error:
        parser.error(str(error))


def _repo(text: str) -> tuple[str, dict[str, Path]]:
    repo, _, folder = text.partition("=")
    if "/" not in repo or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is no OWNER/NAME=FOLDER")
    try:
        return repo, branches(folder)
    except ArgumentError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
