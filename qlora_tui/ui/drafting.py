"""Edits of the draft: valid edits change it, invalid ones are kept with the reason until they become valid."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from qlora_tui.config.command_line import text_of
from qlora_tui.config.contradictions import Contradiction
from qlora_tui.config.fields import fields, value
from qlora_tui.config.overrides import edited
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import ConfigError


@dataclass
class Edits:
    """Edits that are invalid now, and are therefore not part of the draft."""

    pending: dict[str, str] = field(default_factory=dict)
    """Texts by dotted key."""

    reasons: dict[str, str] = field(default_factory=dict)
    """Why each is invalid; also given for the other one of two settings that exclude each other."""

    def apply(self, draft: RunConfig, edits: Mapping[str, str], before: RunConfig) -> RunConfig:
        """Return the draft with `edits` and with the pending edits that become valid with them.

        `before`: the draft before these settings began to be typed. When the edits are invalid their settings return
        to those values, so that no half-typed value stays in the draft.
        """
        waiting = {key: text for key, text in self.pending.items() if key not in edits}
        try:
            changed = edited(draft, _texts({**waiting, **edits}))
        except ConfigError:
            return self._apply_alone(draft, edits, waiting, before)
        self.clear()
        return changed

    def clear(self) -> None:
        """Discard the typed number."""
        self.pending.clear()
        self.reasons.clear()

    def _apply_alone(
        self, draft: RunConfig, edits: Mapping[str, str], waiting: dict[str, str], before: RunConfig
    ) -> RunConfig:
        for key in edits:
            self._forget(key)
        try:
            changed = edited(draft, _texts(edits))
        except ConfigError as error:
            for key, text in edits.items():
                self.pending[key] = text
            self._explain(error, edits)
            return _restored(draft, before, edits)
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


def _restored(draft: RunConfig, before: RunConfig, keys: Iterable[str]) -> RunConfig:
    """Return the draft with the values that these settings had `before`."""
    texts = {key: text_of(fields()[key], value(before, key)) for key in keys if value(draft, key) != value(before, key)}
    try:
        restored = edited(draft, _texts(texts)) if texts else draft
    except ConfigError:
        return before
    return before if restored == before else restored


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
