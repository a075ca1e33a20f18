"""Edits of the draft: those that validate change it, those that do not wait with their reason until they do."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from qlora_tui.config.contradictions import Contradiction
from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError


@dataclass
class Edits:
    """What was typed and is not part of the draft."""

    pending: dict[str, str] = field(default_factory=dict)
    """Texts by dotted key."""

    reasons: dict[str, str] = field(default_factory=dict)
    """Why they are not, also at the other one of two settings that exclude each other."""

    def apply(self, draft: RunConfig, edits: Mapping[str, str]) -> RunConfig:
        """The draft with `edits`, and with what waited for them; the same draft when they do not validate."""
        waiting = {key: text for key, text in self.pending.items() if key not in edits}
        try:
            changed = edited(draft, _texts({**waiting, **edits}))
        except ConfigError:
            return self._apply_alone(draft, edits, waiting)
        self.clear()
        return changed

    def clear(self) -> None:
        """Forget what was typed."""
        self.pending.clear()
        self.reasons.clear()

    def _apply_alone(self, draft: RunConfig, edits: Mapping[str, str], waiting: dict[str, str]) -> RunConfig:
        for key in edits:
            self._forget(key)
        try:
            changed = edited(draft, _texts(edits))
        except ConfigError as error:
            for key, text in edits.items():
                self.pending[key] = text
            self._explain(error, edits)
            return draft
        for key, text in waiting.items():
            self._recheck(changed, key, text)
        return changed

    def _recheck(self, draft: RunConfig, key: str, text: str) -> None:
        """The reason of a waiting edit, which may have become another one."""
        self.reasons.pop(key, None)
        try:
            edited(draft, _texts({key: text}))
        except ConfigError as error:
            self._explain(error, {key: text})

    def _explain(self, error: ConfigError, edits: Mapping[str, str]) -> None:
        reason = _reason(error, edits)
        contradiction = _contradiction(error)
        for key in (*edits, *(contradiction.keys if contradiction else ())):
            self.reasons[key] = reason

    def _forget(self, key: str) -> None:
        reason = self.reasons.pop(key, None)
        self.pending.pop(key, None)
        for other in [name for name, text in self.reasons.items() if text == reason and name not in self.pending]:
            del self.reasons[other]


def _texts(edits: Mapping[str, str]) -> list[str]:
    return [f"{key}={text}" for key, text in edits.items()]


def _contradiction(error: ConfigError) -> Contradiction | None:
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return None
    found = cause.errors(include_url=False)[0].get("ctx", {}).get("error")
    return found if isinstance(found, Contradiction) else None


def _reason(error: ConfigError, edits: Mapping[str, str]) -> str:
    """The message without where it was written: that is what one looks at."""
    contradiction = _contradiction(error)
    if contradiction is not None:
        return f"{contradiction}. {contradiction.remedy}"
    message = error.message
    for key, text in edits.items():
        message = message.removeprefix(f"--set {key}={text}: ").removeprefix(f"{key}: ")
    return message
