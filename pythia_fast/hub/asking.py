"""The Hugging Face Hub, asked patiently: what is tried again, for how long, and how it fails.

Whoever talks to the Hub asks through `ask`, so that all of it has one policy and one set of words.
This module imports huggingface_hub, which takes its time: import it where the Hub is needed.
"""

import email.utils
import errno
import logging
import random
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import TypeVar
from urllib.parse import urlsplit

import huggingface_hub
import huggingface_hub.constants
import stamina
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's own
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pythia_fast.errors import HubError, OfflineError, PythiaFastError, WriteError

ATTEMPTS = 4
RETRIES_END_S = 45.0
"""No new attempt after so long, but for one that the server itself has put off."""
LONGEST_WAIT_S = 300.0
"""The Hub counts requests in windows of five minutes; a server that asks for more is not obeyed."""
JITTER_S = 0.25

LIBRARY = "pythia-fast"
COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

_TRANSIENT_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_DISK_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
)
_LOG_IN = "log in with `hf auth login`"
_NETWORK_ERRORS = frozenset(
    {errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH}
)  # those that are no ConnectionError; the client has its own for what it reads itself
_USED_UP = re.compile(r"\br\s*=\s*0\s*;\s*t\s*=\s*(\d+)")  # in the Hub's own RateLimit header

_log = logging.getLogger("pythia_fast")
_asking = threading.local()  # `what`, while this thread asks

T = TypeVar("T")


def ask(
    repo: str,
    what: str,
    request: Callable[[], T],
    *,
    endpoint: str,
    missing: type[PythiaFastError],
) -> T:
    """`request()`, a few times if what fails is likely to pass; its errors in our own words.

    `missing` is raised where the Hub says that there is no such repository, revision or file;
    HubError where it cannot be reached, or refuses; WriteError where what it sends cannot be
    stored. Errors of this package pass through, and are not tried again.
    """
    where = f"{repo}: {what}"
    logging.getLogger("stamina").addFilter(_own_retries)  # once; it leaves those of others alone
    _asking.what = where
    try:
        for attempt in stamina.retry_context(
            on=_ask_again,
            attempts=ATTEMPTS,
            timeout=RETRIES_END_S,
            wait_initial=0.25,
            wait_max=4.0,
            wait_jitter=JITTER_S,
        ):
            with attempt:
                return request()
    except Exception as error:  # whatever else the client raises; it promises no list
        ours = in_our_words(error, repo, what, endpoint=endpoint, missing=missing)
        if ours is error:
            raise
        raise ours from error
    finally:
        _asking.what = None
    raise AssertionError("stamina's last attempt returns or raises")


def in_our_words(
    error: Exception, repo: str, what: str, *, endpoint: str, missing: type[PythiaFastError]
) -> PythiaFastError:
    """What `ask` raises for an error of the client; errors of this package are left as they are."""
    where = f"{repo}: {what}"
    if isinstance(error, PythiaFastError):
        return error
    if isinstance(error, RevisionNotFoundError | RemoteEntryNotFoundError):
        return missing(f"{where} is not on the Hub")
    if isinstance(error, RepositoryNotFoundError):
        return missing(f"{repo} is not on the Hub, or only for those who may see it: {_LOG_IN}")
    if isinstance(error, ssl.SSLError):
        pass  # its number is OpenSSL's, not the system's
    elif isinstance(error, OSError) and error.errno in _DISK_ERRORS:
        return WriteError(f"{where} cannot be stored: {error}")
    reason = error.__cause__ or error
    kind = OfflineError if isinstance(error, OfflineModeIsEnabled) else HubError
    token = huggingface_hub.get_token()
    if kind is HubError and token is not None and not token.isascii():  # no header can hold it
        return HubError(
            f"{where} could not be asked for: the token (HF_TOKEN, or what `hf auth login` has "
            "kept) has other characters than those of ASCII, which no token has: set it anew"
        )
    return kind(
        f"{where} could not be had from {endpoint}: {type(reason).__name__}: "
        f"{str(reason).partition(chr(10))[0]}{_asks_to_wait(error)}{_asks_for_token(error)}"
        f"{_asks_for_trust(reason)}"
    )


def require_online(what: str) -> None:
    """OfflineError where HF_HUB_OFFLINE forbids to ask the Hub for `what`."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise OfflineError(
            f"{what} cannot be asked for in offline mode: unset HF_HUB_OFFLINE, or fetch what is "
            "needed while online"
        )


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Whom an address belongs to: scheme, host and port."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _own_retries(record: logging.LogRecord) -> bool:
    """Whether stamina's word of a retry is not of ours, which are for our own log, at debug level.

    With no logging set up it would be on standard error, before the error or answer that follows.
    """
    what: str | None = getattr(_asking, "what", None)
    if what is None:
        return True
    _log.debug("%s is asked for again: %s", what, getattr(record, "stamina.caused_by", "no answer"))
    return False


def wait_s(headers: Mapping[str, str]) -> float | None:
    """How long the server wants to be left alone, by Retry-After or the Hub's RateLimit.

    None if it says neither seconds nor a date; a date is taken against the server's own.
    """
    retry_after = headers.get("Retry-After", "").strip()
    if retry_after.isdecimal():
        return float(retry_after)
    until_s, now_s = _seconds(retry_after), _seconds(headers.get("Date", ""))
    if until_s is not None and now_s is not None:
        return max(0.0, until_s - now_s)
    used_up = _USED_UP.search(headers.get("RateLimit", ""))
    return float(used_up[1]) if used_up else None


def _seconds(date: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def asked_wait_s(error: BaseException) -> float | None:
    """`wait_s` of the answer that an error of the client carries."""
    return wait_s(error.response.headers) if isinstance(error, HfHubHTTPError) else None


def may_pass(error: Exception) -> bool:
    """Whether another attempt may succeed: the server is busy, or the connection broke."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in _TRANSIENT_STATUS
    if isinstance(error, LocalEntryNotFoundError | ValueError) and error.__cause__ is not None:
        # hf_hub_download wraps what went wrong when it asked for the file's metadata
        return isinstance(error.__cause__, Exception) and may_pass(error.__cause__)
    if isinstance(error, OfflineModeIsEnabled):  # a ConnectionError too
        return False
    if isinstance(error, HTTPError | TimeoutError | ConnectionError | ssl.SSLError):
        return True
    # None: a body with too few bytes
    return type(error) is OSError and error.errno in (None, *_NETWORK_ERRORS)


def is_unanswered(error: HubError) -> bool:
    """Whether the Hub did not say anything: not reached, not to be asked, or too busy to answer."""
    cause = error.__cause__
    return isinstance(error, OfflineError) or (isinstance(cause, Exception) and may_pass(cause))


def _ask_again(error: Exception) -> bool | float:
    """Whether `ask` tries again, or after how many seconds, where the server names them."""
    cause = error.__cause__
    carried = error if isinstance(error, HfHubHTTPError) or cause is None else cause
    asked_s = asked_wait_s(carried)
    if not may_pass(error) or asked_s is None:
        return may_pass(error)
    return asked_s <= LONGEST_WAIT_S and asked_s + random.uniform(0, JITTER_S)


def _asks_for_token(error: Exception) -> str:
    refused = isinstance(error, HfHubHTTPError) and error.response.status_code == 401
    return f": {_LOG_IN}, or with a token that is still good" if refused else ""


def _asks_for_trust(error: BaseException) -> str:
    if "CERTIFICATE_VERIFY_FAILED" not in str(error):
        return ""
    return (
        ": whoever answers, maybe a proxy, is vouched for by nobody that is trusted here; "
        "SSL_CERT_FILE names a file of the certificates to trust (REQUESTS_CA_BUNDLE is not read "
        "by huggingface_hub)"
    )


def _asks_to_wait(error: Exception) -> str:
    asked_s = asked_wait_s(error)
    return "" if asked_s is None else f" (the server asks to wait {asked_s:.0f} s)"
