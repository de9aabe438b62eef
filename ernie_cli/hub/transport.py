"""One GET at a time over HTTP(S): redirects, time-outs, retries. Knows neither hubs nor files.

On the standard library, because the HTTP layer underneath huggingface_hub was requests, then httpx, then httpx2 within
the versions this package allows, and a download needs none of what they add.
"""

from __future__ import annotations

import email.message
import email.utils
import http.client
import json
import os
import random
import ssl
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from .. import __version__, console
from ..errors import NetworkError

#: Seconds without one byte before a connection counts as dead. Users of huggingface_hub know the variable.
TIMEOUT_S = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT") or 30)
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
#: Answers that a second try may change (RFC 9110, RFC 6585): time-out, too early, too many requests, server errors.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 8
#: A listing of the largest repositories is below 1 MB; more than this is no listing.
_MOST_BYTES = 64 << 20


class Unreachable(NetworkError):
    """A hub gave no usable answer, however often it was asked: what is on disk already may still serve."""


class Refused(Exception):
    """The server answered, and the answer is no. For the hub's module to explain."""

    def __init__(self, url: str, status: int, headers: email.message.Message, text: str) -> None:
        super().__init__(f"{url}: {status} {text}".strip())
        self.url, self.status, self.headers, self.text = url, status, headers, text


class Dropped(Exception):
    """No answer, half an answer, or one that asks for patience (`wait_s`): worth another try."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Patience:
    """Counts the failures in a row of one piece of work and sleeps between them, longer each time."""

    def __init__(self, attempts: int, sleep: Callable[[float], Any] = time.sleep) -> None:
        self.attempts, self.failed, self._sleep = attempts, 0, sleep

    def restore(self) -> None:
        """The work has moved on: start counting anew."""
        self.failed = 0

    def lose(self, err: Dropped) -> None:
        """Sleep before the next try, or raise Unreachable where this was the last."""
        self.failed += 1
        if self.failed >= self.attempts:
            tries = f"{self.attempts} tries in a row" if self.attempts > 1 else "one try"
            raise Unreachable(
                f"{err} ({tries})", "check the network, set HTTPS_PROXY if there is a proxy, or try another hub: --source"
            ) from err
        backoff = FIRST_WAIT_S * 2 ** (self.failed - 1) * random.uniform(1, 1.25)  # jitter: many clients do not return as one
        seconds = min(LONGEST_WAIT_S, max(backoff, err.wait_s))
        console.detail(f"{err}; trying again in {seconds:.1f} s")
        self._sleep(seconds)


def get(url: str, *, auth: Mapping[str, str], offset: int = 0) -> http.client.HTTPResponse:
    """The answer to a GET of `url`, from byte `offset` on, after redirects; the caller closes it.

    auth: headers for the host of `url` alone: a redirect to another place (a CDN) does not get them.
    Raises Dropped, Refused, or NetworkError where no further try would help.
    """
    if not all(value.isascii() and value.isprintable() for value in auth.values()):
        raise NetworkError(f"the token for {_host(url)} holds characters that no token has", "set it again, without quotes or line breaks")
    headers = {"User-Agent": f"ernie-cli/{__version__}", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    for _ in range(_MOST_REDIRECTS):
        try:
            request = urllib.request.Request(url, headers={**headers, **auth})
            response: http.client.HTTPResponse = _OPENER.open(request, timeout=TIMEOUT_S)
            return response
        except urllib.error.HTTPError as err:
            with err:
                target = _redirect(url, err)
        except (OSError, http.client.HTTPException, ValueError) as err:
            raise _failure(url, err) from err
        if _origin(target) != _origin(url):
            auth = {}
        url = target
    raise NetworkError(f"{_host(url)} redirects in circles", "check the endpoint's address")


def read(response: http.client.HTTPResponse, most: int) -> bytes:
    """Up to `most` bytes, as soon as there are any; b"" at the end. Raises Dropped."""
    try:
        return response.read1(most)
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise Dropped(f"{_host(response.url)}: {_reason(err)}") from err


def get_json(url: str, *, auth: Mapping[str, str]) -> Any:
    """The JSON document at `url`. Raises Refused, or NetworkError where it cannot be had or is no JSON."""
    body = get_bytes(url, auth=auth)
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as err:
        raise NetworkError(
            f"{_host(url)} does not answer in JSON", "is the endpoint's address right? a proxy's login page, perhaps?"
        ) from err


def get_bytes(url: str, *, auth: Mapping[str, str], attempts: int = 3) -> bytes:
    """What is at `url`, at most 64 MiB. Raises Refused, or NetworkError where it cannot be had."""
    patience = Patience(attempts)
    while True:
        try:
            return _body(get(url, auth=auth))
        except Dropped as err:
            patience.lose(err)


def _body(response: http.client.HTTPResponse) -> bytes:
    chunks, total, latest = [], 0, time.monotonic() + 10 * TIMEOUT_S  # a trickle keeps the time-out quiet
    with response:
        while chunk := read(response, 1 << 20):
            if time.monotonic() > latest:
                raise Dropped(f"{_host(response.url)}: the answer takes for ever")
            chunks.append(chunk)
            total += len(chunk)
            if total > _MOST_BYTES:
                raise NetworkError(f"{_host(response.url)} answers without end", "is the endpoint's address right?")
        if response.length:  # what Content-Length promised and the connection did not bring
            raise Dropped(f"{_host(response.url)}: the answer was cut off")
    return b"".join(chunks)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Redirects are followed in `get`, which knows whom to trust with the token."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)  # heeds HTTP_PROXY, HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE


def _redirect(url: str, err: urllib.error.HTTPError) -> str:
    """Where an answer sends us. Raises Dropped or Refused where it is no redirect."""
    location = err.headers.get("Location")
    if err.code in _PASSING:
        raise Dropped(f"{_host(url)}: {err.code} {err.reason}", _retry_after(err.headers.get("Retry-After")))
    if err.code not in _REDIRECTS or not location:
        raise Refused(url, err.code, err.headers, _said(err))
    target = urllib.parse.urljoin(url, urllib.parse.quote(location, safe=string.punctuation))
    if not target.startswith("https://" if url.startswith("https://") else ("http://", "https://")):
        raise NetworkError(f"{_host(url)} redirects to {target[:200]!r}: refused", "check the endpoint's address")
    return target


def _said(err: urllib.error.HTTPError) -> str:
    """What the server says about its refusal, on one line."""
    try:
        text = err.headers.get("X-Error-Message") or err.read(2000).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        text = ""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:200]


def quoted(text: str, safe: str = "") -> str:
    """`text` as a part of an address. What is no UTF-8 (a server's, or a terminal's, nonsense) becomes question marks."""
    return urllib.parse.quote(text, safe=safe, errors="replace")


def _retry_after(value: str | None) -> float:
    """Seconds, from a number or a date (RFC 9110 §10.2.3); 0 where there is neither."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return min(float(value), LONGEST_WAIT_S)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _failure(url: str, err: Exception) -> Exception:
    """Dropped, or the NetworkError for what no further try would change."""
    cause = err.reason if isinstance(err, urllib.error.URLError) and isinstance(err.reason, Exception) else err
    if isinstance(cause, ssl.SSLCertVerificationError):
        return NetworkError(f"{_host(url)}: {_reason(cause)}", "point SSL_CERT_FILE at the certificates to trust")
    if isinstance(cause, ValueError | http.client.InvalidURL):
        return NetworkError(f"{url[:200]!r} is no address: {cause}", "check the endpoint's address")
    return Dropped(f"{_host(url)}: {_reason(cause)}")


def _reason(err: Exception) -> str:
    if isinstance(err, TimeoutError):
        return f"no answer for {TIMEOUT_S:g} s"
    return getattr(err, "strerror", None) or str(err) or type(err).__name__


def _origin(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).netloc or url[:200]
