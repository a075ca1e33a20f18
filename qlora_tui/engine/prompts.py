"""Convert conversations to prompts, with the same processing as training rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from qlora_tui.config.data import DataSpec
from qlora_tui.data.mask import encode_rendered
from qlora_tui.data.rows import Turn
from qlora_tui.data.spans import Conversation, Rendered, Span, render, render_text
from qlora_tui.data.templates import Abilities, abilities, own_template
from qlora_tui.data.turn_fitting import fit_turns
from qlora_tui.errors import DataError, ModelError

_REFUSALS = (DataError, TemplateError, TypeError, ValueError, KeyError)


@dataclass(frozen=True, slots=True)
class Prompts:
    """Prompt builder for one model. The tokenizer has the chat template used in training."""

    tokenizer: Any
    template: str
    abilities: Abilities
    system_prompt: str | None = None
    """Added to conversations without a system turn, as in training."""

    @classmethod
    def of(cls, tokenizer: Any, data: DataSpec | None = None) -> "Prompts":
        """Return the prompts of a model trained with the settings `data`; None for a published model.

        Raises ModelError for a tokenizer without a chat template, or with one that exceeds its limits.
        """
        template = own_template(tokenizer)
        if not template:
            raise ModelError("the tokenizer has no chat template", hint="Choose a model with a chat template.")
        trained = data or DataSpec()
        try:
            found = abilities(trained.template, tokenizer)
        except TemplateError as error:
            raise ModelError(f"the model's chat template was stopped: {error}", hint="Choose another model.") from error
        return cls(tokenizer, template, found, trained.system_prompt)

    def ids(self, turns: Sequence[Turn], tools: Sequence[dict[str, Any]] = ()) -> list[int]:
        """Return the token ids of a conversation up to where the assistant's answer starts.

        Raises ModelError when the chat template refuses the conversation or exceeds its limits.
        """
        fitted = fit_turns(self.abilities, turns, tools, self.system_prompt)
        conversation = Conversation(fitted, tools if self.abilities.tools else ())
        try:
            (text,) = render_text(self.tokenizer, self.template, [conversation], add_generation_prompt=True)
            rendered = Rendered(text, self._earlier_answers(conversation, text))
        except _REFUSALS as error:
            raise ModelError(
                f"the model's chat template refuses this conversation: {error}",
                hint="Some templates do not support system turns, or require user and assistant turns to alternate.",
            ) from error
        return encode_rendered(self.tokenizer, [rendered])[0].ids

    def _earlier_answers(self, conversation: Conversation, text: str) -> tuple[Span, ...]:
        """Return the spans of earlier answers: in training, no token crosses their boundaries."""
        if not any(turn["role"] == "assistant" for turn in conversation.turns):
            return ()
        try:
            (earlier,) = render(self.tokenizer, self.template, [conversation])
        except _REFUSALS:  # They cannot be told in this template, so they were not trained either.
            return ()
        return earlier.answers if text.startswith(earlier.text.rstrip()) else ()
