"""What a user must hear of a cluster, whether progress is shown or not."""

import logging
import sys

from tqdm import tqdm

_log = logging.getLogger("pythia_fast")


def warn(text: str) -> None:
    """To the log; a bar that is drawn on the terminal is drawn again below."""
    with tqdm.external_write_mode(file=sys.stderr):
        _log.warning("%s", text)
