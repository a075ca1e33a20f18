"""Answers, token by token, to a prompt that fits the model's context."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria
from transformers.generation.streamers import BaseStreamer

from qlora_tui.chat.protocol import Ask, Done, FromChild, Message, Notice, Reason, Sampling, Side, Token
from qlora_tui.data.rows import Turn
from qlora_tui.engine import generate
from qlora_tui.engine.chat_memory import Memory
from qlora_tui.engine.chat_model import Loaded
from qlora_tui.engine.chat_text import StreamedText, WithoutEnd, turn_end_text
from qlora_tui.engine.oom import is_out_of_memory
from qlora_tui.errors import ModelError, OutOfMemoryError, UsageError

_ANSWER_SHARE = 4
"""Of the context, one part in so many is kept for the answer when the conversation gets long."""


class Answerer:
    """Answers questions with one loaded model, as the base or with the adapter."""

    def __init__(self, loaded: Loaded) -> None:
        self._model = loaded.model
        self._tokenizer = loaded.tokenizer
        self._prompts = loaded.prompts
        self._context_tokens = loaded.ready.context_max_tokens
        self._sides = loaded.ready.sides
        self._stops = generate.stop_ids(self._model, self._tokenizer)
        self._memories: dict[Side, Memory] = {}

    def answer(self, ask: Ask, *, send: Callable[[FromChild], None], is_cancelled: Callable[[], bool]) -> None:
        """Send the answer as Tokens and a Done.

        Raises UsageError when the question is longer than the context, ModelError when the chat template refuses the
        conversation, OutOfMemoryError.
        """
        if ask.side not in self._sides:
            raise UsageError(f"there is no {ask.side} to ask, only the {self._sides[0]}")
        prompt = self._prompt(ask, send)
        memory = self._memories.setdefault(ask.side, Memory(self._model.config))
        try:
            with self._as(ask.side), torch.inference_mode():
                done = self._generate(ask, prompt, memory, send, is_cancelled)
        except (RuntimeError, MemoryError) as error:
            self._memories.clear()
            if not is_out_of_memory(error):
                raise
            torch.cuda.empty_cache()
            raise OutOfMemoryError(
                "memory ran out while answering", hint="Start anew with /clear, or lower max_tokens with /set."
            ) from error
        send(done)

    def _as(self, side: Side) -> Any:
        return self._model.disable_adapter() if side == "base" and len(self._sides) > 1 else nullcontext()

    def _prompt(self, ask: Ask, send: Callable[[FromChild], None]) -> list[int]:
        """Ids of the conversation; its oldest turns are left out, and named, when it would leave no room to answer."""
        context = self._context_tokens
        room = min(ask.sampling.max_tokens, max(context // _ANSWER_SHARE, 1))
        shorter = list(without_oldest_turns(ask.messages))
        for left_out, messages in enumerate(shorter):
            ids = self._render(messages)
            if len(ids) <= context - room or left_out == len(shorter) - 1:
                break
        if len(ids) >= context:
            raise UsageError(
                f"the question takes {len(ids)} tokens, and the model's context has {context}",
                hint="Ask a shorter one, or shorten the system prompt.",
            )
        if left_out:
            turns = "turn is" if left_out == 1 else f"{left_out} turns are"
            send(Notice(text=f"the oldest {turns} left out: they do not fit in a context of {context} tokens"))
        return ids

    def _render(self, messages: Sequence[Message]) -> list[int]:
        try:
            return self._prompts.ids([Turn(role=one.role, content=one.content) for one in messages])
        except ModelError as error:
            hint = "Remove the system prompt with /system, or clear the conversation with /clear."
            raise ModelError(error.message, hint=hint) from error

    def _generate(
        self,
        ask: Ask,
        prompt: list[int],
        memory: Memory,
        send: Callable[[FromChild], None],
        is_cancelled: Callable[[], bool],
    ) -> Done:
        reused = memory.keep_common(prompt)
        answer = _Answer(self._tokenizer, self._stops, lambda text: send(Token(id=ask.id, side=ask.side, text=text)))
        began_s = time.monotonic()
        if memory.prefill(self._model, prompt, is_cancelled):
            ids = torch.tensor([prompt], device=self._model.device)
            torch.manual_seed(ask.seed)
            began_s = time.monotonic()
            self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                past_key_values=memory.cache,
                generation_config=self._generation_config(ask.sampling, len(prompt)),
                streamer=answer,
                stopping_criteria=[_Cancelled(is_cancelled)],
            )
            memory.remember([*prompt, *answer.ids])
        answer.flush()
        return Done(
            id=ask.id,
            side=ask.side,
            reason=self._reason(answer.ids, is_cancelled()),
            tokens=len(answer.ids),
            tokens_per_s=round(len(answer.ids) / max(time.monotonic() - began_s, 1e-6), 2),
            reused_tokens=reused,
            context_used_tokens=len(prompt) + len(answer.ids),
            context_max_tokens=self._context_tokens,
        )

    def _reason(self, ids: list[int], cancelled: bool) -> Reason:
        if ids and ids[-1] in self._stops:
            return "stop"
        return "cancelled" if cancelled else "length"

    def _generation_config(self, sampling: Sampling, prompt_tokens: int) -> GenerationConfig:
        greedy = sampling.temperature == 0
        chosen = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        return GenerationConfig(
            max_new_tokens=min(sampling.max_tokens, self._context_tokens - prompt_tokens),
            do_sample=not greedy,
            repetition_penalty=sampling.repetition_penalty,
            eos_token_id=self._stops,
            pad_token_id=self._tokenizer.pad_token_id,
            use_cache=True,
            **({} if greedy else chosen),
        )


def without_oldest_turns(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """The conversation whole, then without its oldest turn, its two oldest turns and so on, down to the last question.

    The system prompt always stays.
    """
    system = [message for message in messages if message.role == "system"]
    turns = [message for message in messages if message.role != "system"]
    for number, message in enumerate(turns):
        if message.role == "user":
            yield [*system, *turns[number:]]


class _Cancelled(StoppingCriteria):
    def __init__(self, is_cancelled: Callable[[], bool]) -> None:
        self._is_cancelled = is_cancelled

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._is_cancelled(), device=input_ids.device)


class _Answer(BaseStreamer):
    """Collects the ids that `generate` chooses and passes their text on as soon as its characters are whole."""

    def __init__(self, tokenizer: Any, stops: Sequence[int], emit: Callable[[str], None]) -> None:
        self.ids: list[int] = []
        self._stops = stops
        self._shown = WithoutEnd(turn_end_text(tokenizer), emit)
        self._text = StreamedText(tokenizer, self._shown.add)
        self._prompt_seen = False

    def put(self, value: torch.Tensor) -> None:
        """Called by `generate` with the prompt once, then with each new token."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        token = int(value.reshape(-1)[0])
        self.ids.append(token)
        if token not in self._stops:
            self._text.add(token)

    def end(self) -> None:
        """Called by `generate` when it is done."""

    def flush(self) -> None:
        """Pass on what still waits for the rest of a character or of a marker."""
        self._text.flush()
        self._shown.flush()
