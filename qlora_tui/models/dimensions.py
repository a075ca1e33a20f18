"""The numbers and flags of a config.json, checked: what is missing, no number, or does not divide is refused."""

import re
from collections.abc import Mapping
from typing import Any

from qlora_tui.errors import ModelError
from qlora_tui.models.families import Family

_LARGEST = 2**31 - 1
_MOST_LAYERS = 10_000
_FACTOR = re.compile(r"([*/])")
_HINT = "Compare it with the config.json of the original model, or download the model again."


class Dimensions:
    """Looks up names of a family: its own, then keys of config.json, then what transformers assumes for them."""

    def __init__(self, family: Family, config: Mapping[str, Any], origin: str) -> None:
        self.family = family
        self.config = config
        self.origin = origin
        self.assumed: dict[str, Any] = {}
        """Keys that config.json leaves out and whose default was used."""

    def number(self, name: str) -> int:
        """A positive number. Raises ModelError when it is missing, no whole number, or absurd."""
        value = self.optional(name)
        if value is None:
            keys = " or ".join(self._keys(name))
            raise ModelError(f"config.json of {self.origin} names no {keys}", hint=_HINT)
        return value

    def optional(self, name: str) -> int | None:
        """`number`, or None when no source has the name."""
        if name.isdigit():
            return int(name)
        for choice in self.family.names.get(name, ()):
            expression, _, condition = choice.partition(" if ")
            if condition and not self.holds(condition):
                continue
            value = self._key(name) if expression == name else self._evaluated(expression)
            if value is not None:
                return value
        return None if name in self.family.names else self._key(name)

    def holds(self, condition: str) -> bool:
        """Whether a condition of families.toml holds."""
        if condition.startswith("!"):
            return not self.holds(condition[1:])
        if "!=" in condition:
            left, _, right = condition.partition("!=")
            return self.optional(left) != self.optional(right)
        if "=" in condition:
            left, _, right = condition.partition("=")
            return self.optional(left) == self.optional(right)
        if "~" in condition:
            left, _, right = condition.partition("~")
            return str(self.raw(left)).startswith(right)
        return bool(self.raw(condition))

    def raw(self, key: str) -> Any:
        """The value of a key as it stands, or transformers' default for it."""
        if key in self.config:
            return self.config[key]
        if key in self.family.defaults:
            self.assumed[key] = self.family.defaults[key]
        return self.family.defaults.get(key)

    def layer_numbers(self, key: str) -> list[int] | None:
        """Return a list of layer numbers, None if there is none. Raises ModelError if it is not a list of numbers."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(type(layer) is int for layer in value):
            raise ModelError(f"config.json of {self.origin}: {key} is no list of layer numbers", hint=_HINT)
        return value

    def size(self, expression: str) -> int:
        """The value of a sum of products. Raises ModelError when a name has none."""
        value = self._evaluated(expression)
        if value is None:
            missing = next(name for name in re.findall(r"[A-Za-z_]\w*", expression) if self.optional(name) is None)
            return self.number(missing)
        return value

    def _evaluated(self, expression: str) -> int | None:
        total = 0
        for term in expression.split("+"):
            value = self._product(term)
            if value is None:
                return None
            total += value
        return total

    def _product(self, term: str) -> int | None:
        first, *rest = _FACTOR.split(term)
        value = self._term(first)
        for operator, name in zip(rest[::2], rest[1::2], strict=True):
            factor = self._term(name)
            if value is None or factor is None:
                return None
            if operator == "*":
                value *= factor
                continue
            if value % factor:
                left, right = self._keys(first)[0], self._keys(name)[0]
                raise ModelError(
                    f"config.json of {self.origin}: {left} {value} does not divide by {right} {factor}", hint=_HINT
                )
            value //= factor
        return value

    def _term(self, name: str) -> int | None:
        return self.optional(name) if name in self.family.names or name.isdigit() else self._key(name)

    def _key(self, key: str) -> int | None:
        value = self.raw(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise ModelError(f"config.json of {self.origin}: {key} is {value!r}, not a whole number", hint=_HINT)
        most = _MOST_LAYERS if "layers" in key else _LARGEST
        if not 0 < value <= most and not (value == 0 and key in _MAY_BE_ZERO):
            raise ModelError(f"config.json of {self.origin}: {key} is {value}, not from 1 to {most:,}", hint=_HINT)
        return value

    def _keys(self, name: str) -> list[str]:
        """Keys of config.json that could give `name`."""
        choices = [choice.partition(" if ")[0] for choice in self.family.names.get(name, (name,))]
        plain = [choice for choice in choices if choice.isidentifier() and choice not in self.family.names]
        return plain or [name]


_MAY_BE_ZERO = {"first_k_dense_replace", "max_window_layers", "n_shared_experts", "q_lora_rank"}


def check_heads(dimensions: Dimensions) -> None:
    """Raises ModelError when query heads cannot share the key-value heads evenly."""
    heads, kv_heads = dimensions.number("heads"), dimensions.number("kv_heads")
    if heads % kv_heads:
        raise ModelError(
            f"config.json of {dimensions.origin}: num_attention_heads {heads} does not divide by"
            f" num_key_value_heads {kv_heads}",
            hint=_HINT,
        )
