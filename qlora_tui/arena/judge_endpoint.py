"""A judge behind an OpenAI-compatible address: one chat completion a question, with timeouts, retries and no secrets.

The key comes from the environment, goes into one header, and is taken out of whatever the server says. Redirects are
not followed, so the key reaches no other host.
"""

import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Any, Protocol

from qlora_tui import redaction
from qlora_tui.arena.judge_prompts import Prompt
from qlora_tui.errors import EnvironmentProblem, QloraError, UsageError
from qlora_tui.redaction import redacted
from qlora_tui.units import memory

_READ_BYTES = 1 << 16
_LARGEST_REPLY_BYTES = 8 << 20
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 60.0
_LONGEST_ASKED_WAIT_S = 600.0
_ANNOUNCED_WAIT_S = 10.0
"""Waits of at least this length are reported."""
_MOST_TOKENS = 10_000_000
"""Larger or negative counts for one request are treated as errors and are not added up."""
_SHOWN_CHARACTERS = 200
_TRY_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}


@dataclass(frozen=True, slots=True)
class Reply:
    """What the judge wrote; tokens are 0 where the server does not count them."""

    text: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    problem: str = ""
    """Reason why a chat completion has no text."""

    absurd_counts: bool = False
    """Whether the server's token counts are impossible. They are replaced by 0."""


class RefusedError(QloraError):
    """The server will not answer this one prompt; others may go well."""


class _LostReplyError(Exception):
    """The reply is not a complete chat completion, so there is no verdict yet."""


class Judge(Protocol):
    """Who answers a prompt: an endpoint, or a model of our own. `name` identifies it in the verdicts."""

    @property
    def name(self) -> str: ...

    def ask(self, prompt: Prompt, request_id: str) -> Reply:
        """The reply to one prompt. Raises RefusedError for this prompt alone, QloraError when there is no point in
        going on. Called from several threads."""


@dataclass(frozen=True)
class EndpointSettings:
    base_url: str
    model: str
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; without it requests carry none."""

    temperature: float = 0.2
    max_tokens: int = 1024
    timeout_s: float = 120.0
    """For a whole request, however slowly its reply trickles in."""

    retries: int = 6


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


class EndpointJudge:
    """Asks `base_url`/chat/completions.

    `wait` sleeps for a number of seconds unless the work is stopped meanwhile; `say` shows a line to the user.
    """

    def __init__(
        self,
        settings: EndpointSettings,
        wait: Callable[[float], None] = time.sleep,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        parts = urllib.parse.urlsplit(settings.base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(
                f"--base-url {settings.base_url!r} is no web address", hint="Such as https://api.openai.com/v1."
            )
        if parts.username or parts.password:
            raise UsageError("the address of a judge holds no name or password", hint="Put the key in the environment.")
        self.settings = settings
        self.host = parts.hostname
        self._wait = wait
        self._say = say
        self._announced_until_s = 0.0
        self._key = _key(settings.key_variable)
        self._opener = urllib.request.build_opener(_NoRedirects)

    @property
    def name(self) -> str:
        return self.settings.model

    def ask(self, prompt: Prompt, request_id: str) -> Reply:
        """Return the reply, after up to `retries` further tries.

        The idempotency key lets a server recognize a repeated request. Raises RefusedError, EnvironmentProblem.
        """
        trouble = ""
        for attempt in range(self.settings.retries + 1):
            asked_s: float | None = None
            try:
                return self._post(prompt, request_id)
            except urllib.error.HTTPError as error:
                with error:
                    trouble, asked_s = self._explained(error), _asked_wait_s(error.headers.get("Retry-After"))
            except _LostReplyError as error:
                trouble = self._clean(str(error))
            except (OSError, HTTPException) as error:
                trouble = self._clean(str(getattr(error, "reason", "") or error or type(error).__name__))
            if attempt < self.settings.retries:
                self._pause(_backoff_s(attempt) if asked_s is None else asked_s, trouble)
        raise EnvironmentProblem(
            f"the judge at {self.settings.base_url} does not answer after {self.settings.retries + 1} tries: {trouble}",
            hint="Completed verdicts are kept. Run the same command again to continue.",
        )

    def _pause(self, asked_s: float, trouble: str) -> None:
        """Wait before the next try. If several threads wait until the same time, only one reports it."""
        wait_s = min(asked_s, _LONGEST_ASKED_WAIT_S)
        until_s = time.monotonic() + wait_s
        if wait_s >= _ANNOUNCED_WAIT_S and until_s > self._announced_until_s + _ANNOUNCED_WAIT_S:
            self._announced_until_s = until_s
            beyond = f" (requested by the judge: {_spoken(asked_s)})" if asked_s > wait_s else ""
            self._say(f"waiting {_spoken(wait_s)} before the next try{beyond}: {trouble}")
        self._wait(wait_s)

    def _post(self, prompt: Prompt, request_id: str) -> Reply:
        body = {
            "model": self.settings.model,
            "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_tokens,
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Idempotency-Key": request_id}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(  # noqa: S310  the scheme was checked
            self.settings.base_url.rstrip("/") + "/chat/completions",
            json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"),
            headers,
        )
        deadline_s = time.monotonic() + self.settings.timeout_s
        with self._opener.open(request, timeout=self.settings.timeout_s) as response:
            content = b""
            while chunk := response.read1(_READ_BYTES):
                content += chunk
                if time.monotonic() > deadline_s:
                    raise TimeoutError(f"no whole reply within {self.settings.timeout_s:g} s")
                if len(content) > _LARGEST_REPLY_BYTES:
                    raise _LostReplyError(f"the reply is larger than {memory(_LARGEST_REPLY_BYTES)}")
            if response.length:
                raise _LostReplyError(f"the reply ends {response.length} bytes early")
        return self._reply(content)

    def _reply(self, content: bytes) -> Reply:
        """Parse the judge's answer. Raises _LostReplyError when `content` is not a chat completion, as from a proxy."""
        try:
            body = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _LostReplyError(
                f"the reply is not JSON: {self._clean(content[:_READ_BYTES].decode('utf-8', 'replace'))}"
            ) from error
        try:
            text = body["choices"][0]["message"]["content"]
            usage = body.get("usage") or {}
            counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        except (LookupError, TypeError, AttributeError) as error:
            raise _LostReplyError(f"the reply is not a chat completion: {self._clean(json.dumps(body))}") from error
        absurd = not all(count is None or (type(count) is int and 0 <= count <= _MOST_TOKENS) for count in counts)
        prompt_tokens, completion_tokens = (0, 0) if absurd else (count or 0 for count in counts)
        problem = "" if isinstance(text, str) else "the reply has no text"
        return Reply("" if problem else text, prompt_tokens, completion_tokens, problem, absurd)

    def _explained(self, error: urllib.error.HTTPError) -> str:
        """What the server said, if trying again may help. Raises what there is to say otherwise."""
        said = self._clean(error.read(_READ_BYTES).decode("utf-8", "replace"))
        status = f"{error.code} {error.reason}"
        if error.code in _TRY_AGAIN:
            return f"{status}: {said}" if said else status
        if error.code in {401, 403}:
            where = f"in {self.settings.key_variable}" if self._key else f"is missing: set {self.settings.key_variable}"
            raise EnvironmentProblem(
                f"the judge at {self.settings.base_url} refuses the key ({status})", hint=f"The key {where}."
            )
        if error.code in {301, 302, 303, 307, 308, 404, 405}:
            raise EnvironmentProblem(
                f"{self.settings.base_url} has no model {self.settings.model!r} to chat with ({status}): {said}",
                hint="Check --base-url (it often ends in /v1) and --model.",
            )
        raise RefusedError(f"{status}: {said}")

    def _clean(self, text: str) -> str:
        """What a server said, in one short line and without the key."""
        try:
            error = json.loads(text)["error"]
            text = error["message"] if isinstance(error, dict) else str(error)
        except (ValueError, KeyError, TypeError):
            pass
        text = " ".join(str(text).split())
        return redacted(text)[:_SHOWN_CHARACTERS]


def _key(variable: str) -> str:
    """Return the key in an environment variable, or "". Raises EnvironmentProblem if it is not valid in a header."""
    key = os.environ.get(variable, "").strip()
    redaction.note(key)
    if not key.isascii() or not key.isprintable():
        raise EnvironmentProblem(
            f"the key in {variable} contains a line break or another character that is not allowed in a key",
            hint="Set it again without line breaks.",
        )
    return key


def _backoff_s(attempt: int) -> float:
    return float(min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt) * (0.5 + random.random() / 2))  # noqa: S311


def _asked_wait_s(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as a date; None without a usable one."""
    if not header:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            wait_s = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError):
            return None
    return max(0.0, wait_s) if wait_s == wait_s else None


def _spoken(seconds: float) -> str:
    """Such as "45 s", "10 min" or "24 h"."""
    for unit, length_s in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s or seconds == length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"
