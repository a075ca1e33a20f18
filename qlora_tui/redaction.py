"""Redact secrets from every text that is shown or stored: keys in the environment, and tokens by pattern."""

import json
import os
import re
import traceback
import urllib.parse
from collections.abc import Iterator
from functools import cache
from pathlib import Path

MARK = "[redacted]"

_NAMES = re.compile(
    r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?)(_?ID|_?\d+)?$|API_?KEY|SECRET|PASSWORD",
    re.IGNORECASE,
)
"""Names of environment variables that contain secrets."""

_SHORTEST = 6
"""Shorter values are not keys, and may be part of many words."""

_SHAPES = re.compile(
    r"\bhf_[A-Za-z0-9]{16,}|\bsk-[A-Za-z0-9_-]{16,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bAKIA[A-Z0-9]{16}\b|\bAIza[\w-]{30,}"
    r"|(?<=Bearer )[^\s'\"\\]{6,}|(?<=Basic )[A-Za-z0-9+/=]{12,}|(?<=://)[^\s/@:'\"]+:[^\s/@'\"]+(?=@)"
    r"|(?<=[?&]key=)[^&\s'\"]+|(?<=[?&]token=)[^&\s'\"]+|(?<=api_key=)[^&\s'\"]+"
)
"""Keys and tokens of well-known services, wherever they come from."""

_noted: set[str] = set()


def note(secret: str) -> None:
    """Register a secret that was not read from the environment."""
    _noted.add(secret)


def redacted(text: str) -> str:
    """Return `text` with each secret replaced by `[redacted]`, including escaped secrets and single lines of one."""
    for form in sorted({form for secret in _secrets() for form in _forms(secret)}, key=len, reverse=True):
        if form in text:
            text = text.replace(form, MARK)
    return _SHAPES.sub(MARK, text)


def traceback_of(error: BaseException) -> str:
    """The traceback of an error, without local variables and secrets."""
    return redacted("".join(traceback.format_exception(error)))


def _secrets() -> Iterator[str]:
    yield from _noted
    for name, value in os.environ.items():
        if _names_a_secret(name) and not _is_path(value):
            yield value


@cache
def _names_a_secret(variable: str) -> bool:
    return _NAMES.search(variable) is not None


def _is_path(value: str) -> bool:
    """Return whether the variable is the path of a secret, as HF_TOKEN_PATH, and not a secret itself."""
    try:
        return value.startswith(("/", "~", ".")) and Path(value).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _forms(secret: str) -> Iterator[str]:
    """Return the forms in which a secret may appear: literal, line by line, and escaped for Python, JSON and URLs."""
    for part in (secret, secret.strip(), *secret.splitlines()):
        for form in (part, repr(part)[1:-1], json.dumps(part)[1:-1], urllib.parse.quote(part, safe="")):
            if len(form.strip()) >= _SHORTEST:
                yield form
