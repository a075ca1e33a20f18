"""The Jinja environment for chat templates, which are untrusted code: rendering has time and memory limits."""

from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qlora_tui.errors import ModelError
from qlora_tui.limits import at_most_half_of_ram, limited

CPU_S = 10.0
"""Limit per conversation; real templates take less than a millisecond."""
MEMORY_BYTES = 2 << 30
LONGEST_TEXT_CHARACTERS = 256 << 20
"""Of one rendered conversation. A conversation that is longer itself is not refused for its own length."""
_LARGEST_BITS = 1 << 12
"""Limit for integers: one operation on larger ones can take hours."""
_HINT = 'Use another model, or a named template, such as data.template = "chatml".'


class TemplateLimitError(TemplateError):
    """The template was stopped: it took too long, too much memory, or recursed without end."""


class _LimitedTemplate(Template):
    def render(self, *args: Any, **kwargs: Any) -> str:
        """Render the text. Raises TemplateError for any error in the template."""
        try:
            with _limits():
                text = super().render(*args, **kwargs)
        except TemplateError:
            raise
        except MemoryError as error:
            raise TemplateLimitError("it used too much memory") from error
        except RecursionError as error:
            raise TemplateLimitError("it recurses without end") from error
        except Exception as error:  # foreign code: whatever it raises is the template's refusal
            raise TemplateError(f"{type(error).__name__}: {error}") from error
        if problem := _lone_surrogate(text):
            raise TemplateError(problem)
        if len(text) > LONGEST_TEXT_CHARACTERS and len(text) > 2 * _characters(kwargs):
            raise TemplateLimitError(f"it wrote {len(text):,} characters")
        return text


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox that also refuses to compute with huge integers, and whose templates render under limits."""

    template_class = _LimitedTemplate
    intercepted_binops = frozenset({"*", "**", "/", "//", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The result of `left operator right`. Raises TemplateLimitError for huge integers."""
        if isinstance(left, int) and isinstance(right, int):
            bits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
            if bits > _LARGEST_BITS:
                raise TemplateLimitError("it uses integers with thousands of digits")
        return super().call_binop(context, operator, left, right)

    def from_string(self, source: Any, *args: Any, **kwargs: Any) -> Template:
        """The compiled template. Raises TemplateError."""
        try:
            with _limits():
                return super().from_string(source, *args, **kwargs)
        except (RecursionError, MemoryError) as error:
            raise TemplateLimitError("it is nested too deeply to compile") from error


def _lone_surrogate(text: str) -> str:
    """Return what is wrong with a text that no tokenizer accepts; empty if nothing is."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return f"it writes a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start + 1}"
    return ""


def _limits() -> limited:
    return limited(CPU_S, at_most_half_of_ram(MEMORY_BYTES), _beyond, _beyond_stopping, address_space=True)


def _beyond(reason: str) -> TemplateLimitError:
    return TemplateLimitError(f"it {reason}")


def _beyond_stopping(reason: str) -> ModelError:
    return ModelError(f"the chat template was stopped: it {reason}", hint=_HINT)


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list | tuple) else 0
