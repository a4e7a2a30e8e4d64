"""An OpenAI-compatible endpoint as a writer: one POST a request, texts only, over the standard library."""

import http.client
import ipaddress
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from typing import Any, final

from isthmus.core.errors import MachineError, UsageError
from isthmus.curation.instructions.pace import LONGEST_WAIT_S, RateLimiter, backoff, retry_after
from isthmus.curation.instructions.writer import Reply, Request, Writer

MAX_REPLY_BYTES = 4 * 2**20
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
_THIS_ONE = {400, 413, 422}
_BLOCK = 1 << 16
_CHARACTERS_A_TOKEN = 3


@final
@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Where and how to ask.

    Attributes:
        url: The base URL; `/chat/completions` is put behind it.
        model: The model's name there.
        key: Sent as a bearer token; None sends none. Never shown.
        max_tokens: Longest reply.
        temperature: Divides the logits when drawing.
        timeout_s: Seconds until a reply counts as lost.
        retries: Repetitions of a request that failed for a passing reason.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    max_tokens: int = 1024
    temperature: float = 0.7
    timeout_s: float = 120.0
    retries: int = 5


class _Passing(Exception):
    """Something that may be gone when the request is repeated."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class _NoDetours(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: what is sent, key included, goes to the host that the user named and to no other."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """No request in place of the one that was redirected."""


def require_leave(url: str, *, network_allowed: bool) -> None:
    """Refuse a URL that cannot be asked, or may not.

    Raises:
        UsageError: It is no http or https URL.
        MachineError: The host is another machine, and the network is not allowed.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        is_valid = parts.port is None or parts.port > 0
    except ValueError:  # brackets that do not close, a port that is no number up to 65,535
        parts, is_valid = urllib.parse.urlsplit(""), False
    if not is_valid or parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"--endpoint is '{url}'; expected a URL such as http://127.0.0.1:8000/v1")
    if parts.username or parts.query:
        raise UsageError(
            "--endpoint holds a user name or a query; a key belongs into an environment variable"
        )
    if not network_allowed and not is_loopback(parts.hostname):
        raise MachineError(
            f"the endpoint {parts.hostname} is another machine, and the network is off; add --allow-network, or name a "
            "server on 127.0.0.1"
        )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@final
class EndpointWriter(Writer):
    """Asks a server for chat completions.

    Args:
        settings: Where and how.
        limiter: Spaces the requests.
    """

    def __init__(self, settings: EndpointSettings, limiter: RateLimiter) -> None:
        self._settings = settings
        self._limiter = limiter
        host = urllib.parse.urlsplit(settings.url).hostname or ""
        direct = [urllib.request.ProxyHandler({})] if is_loopback(host) else []
        self._opener = urllib.request.build_opener(_NoDetours, *direct)

    def write(self, request: Request) -> Reply:
        """The reply to one request, repeated as often as the settings say.

        Raises:
            UsageError: The endpoint refuses all requests: key, model or address are wrong.
            MachineError: It does not answer, or asks for a longer wait than a run should take.
        """
        attempt = 0
        while True:
            self._limiter.wait()
            try:
                return self._once(request)
            except _Passing as passing:
                if attempt == self._settings.retries:
                    raise MachineError(
                        f"the endpoint failed {attempt + 1} times for {request.key}, at last with: {passing}; what is "
                        "written stays; see to the endpoint and go on with --resume"
                    ) from passing
                wait_s = passing.wait_s if passing.wait_s is not None else backoff(attempt, request.key)
                if wait_s > LONGEST_WAIT_S:
                    raise MachineError(
                        f"the endpoint asks to wait for {wait_s:,.0f} seconds, longer than {LONGEST_WAIT_S:.0f}; what "
                        "is written stays; go on later with --resume"
                    ) from passing
                self._limiter.hold(wait_s)
                attempt += 1

    def stop(self) -> None:
        """Give up waiting."""
        self._limiter.stop()

    def _once(self, request: Request) -> Reply:
        settings = self._settings
        body = {
            "model": settings.model,
            "messages": [{"role": one.role, "content": one.content} for one in request.messages],
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if settings.key is not None:
            headers["Authorization"] = f"Bearer {settings.key}"
        url = f"{settings.url.rstrip('/')}/chat/completions"
        post = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers, method="POST")
        try:
            with self._opener.open(post, timeout=settings.timeout_s) as answer:
                return _reply(_read(answer, settings.timeout_s), request)
        except urllib.error.HTTPError as error:
            return self._failed(error)
        except TimeoutError as error:
            raise _Passing(f"no reply within {settings.timeout_s:g} seconds") from error
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            raise _Passing(f"the connection broke ({type(cause).__name__})") from error

    def _failed(self, error: urllib.error.HTTPError) -> Reply:
        """What a status other than 200 comes to."""
        with error:
            if error.code in _AGAIN:
                wait_s = retry_after(error.headers.get("Retry-After"))
                raise _Passing(f"HTTP {error.code}", wait_s) from error
            if error.code in _THIS_ONE:
                return Reply(text="", refused=f"HTTP {error.code}")
        what = {
            401: "refuses the key; set the environment variable that --key-variable names",
            403: "refuses the key; set the environment variable that --key-variable names",
            404: f"knows no such address or no model '{self._settings.model}'; check --endpoint and --model",
        }.get(error.code, "gives no completions; check --endpoint")
        raise UsageError(f"the endpoint answers HTTP {error.code}: it {what}") from error


def _read(answer: http.client.HTTPResponse, timeout_s: float) -> bytes:
    """The whole body, within the time: a server that drips would never run into the timeout of a single read."""
    ends = time.monotonic() + timeout_s
    blocks: list[bytes] = []
    while block := answer.read1(_BLOCK):
        blocks.append(block)
        if time.monotonic() > ends:
            raise _Passing(f"no whole reply within {timeout_s:g} seconds")
        if sum(map(len, blocks)) > MAX_REPLY_BYTES:
            raise _Passing(f"a reply of more than {MAX_REPLY_BYTES:,} bytes")
    if answer.length:
        raise _Passing("the reply stopped half-way")
    return b"".join(blocks)


def _reply(body: bytes, request: Request) -> Reply:
    try:
        found = json.loads(body)
        text = found["choices"][0]["message"]["content"] or ""
        usage = found.get("usage") or {}
        read, wrote = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise _Passing("a reply that is no chat completion") from error
    if not isinstance(text, str):
        raise _Passing("a reply whose content is no text")
    text = text.encode(
        errors="replace"
    ).decode()  # JSON may spell half of a character, which no file can hold
    prompt = sum(len(message.content) for message in request.messages)
    return Reply(text=text, tokens_in=read or _estimated(prompt), tokens_out=wrote or _estimated(len(text)))


def _count(reported: object) -> int:
    """A number of tokens that a server reports; 0 where it reports none, or something else."""
    return int(reported) if isinstance(reported, int | float) and 0 < reported < math.inf else 0


def _estimated(num_characters: int) -> int:
    """Tokens of a text, rather too many: a server that reports none must not make a limit on the cost idle."""
    return -(-num_characters // _CHARACTERS_A_TOKEN)
