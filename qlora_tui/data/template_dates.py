"""Dates that chat templates write: one fixed day, so that the same rows have the same tokens whenever they are made."""

import re
from datetime import datetime

from qlora_tui.errors import DataError

_DAY = datetime(2024, 7, 26)
"""What the templates of Llama 3 write themselves where they find no clock."""

_CALL = re.compile(r"""strftime_now\(\s*(?:format\s*=\s*)?(["'])([^"'\\]*)\1\s*\)""")
_ANY_CALL = re.compile(r"strftime_now\s*\(")


def with_fixed_day(template: str) -> tuple[str, str]:
    """The template with its dates written out, and the first of them as it is written; empty when it writes none.

    Raises DataError when the form of a date is not a text in the template.
    """
    written = [_DAY.strftime(call[2]) for call in _CALL.finditer(template)]
    fixed = _CALL.sub(lambda call: f'"{_DAY.strftime(call[2])}"', template)
    if _ANY_CALL.search(fixed):
        raise DataError(
            "the model's chat template writes today's date in a form it computes, so its rows would have other tokens "
            "every day",
            hint='Choose a named template, such as data.template = "chatml".',
        )
    return fixed, written[0] if written else ""
