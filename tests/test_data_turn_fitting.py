"""Turns are fitted to a template so that a prompt is the start of the row in which it is answered."""

from typing import Any

import pytest
from data_material import CHATML, with_template

from qlora_tui.data.rows import Role, Turn
from qlora_tui.data.templates import Abilities, abilities
from qlora_tui.data.turn_fitting import fit_turns

ABLE = {"late_system": True, "tools": True, "reasoning": True, "context": True}


def able(**changed: bool) -> Abilities:
    return Abilities(**{"system": True, "alternates": False, **ABLE, **changed})


def turns(*said: tuple[Role, str]) -> list[Turn]:
    return [Turn(role=role, content=content) for role, content in said]


@pytest.mark.parametrize("system", [True, False])
def test_a_system_turn_directly_before_an_answer_is_part_of_its_prompt(system: bool) -> None:
    template = able(system=system, alternates=True)
    for row in (
        turns(("system", "Be brief."), ("assistant", "Hello.")),
        turns(("user", "Hi"), ("system", "Be brief."), ("assistant", "Hello."), ("user", "And?"), ("assistant", "No.")),
    ):
        at = next(index for index, turn in enumerate(row) if turn["role"] == "assistant")
        asked = fit_turns(template, row[:at])
        assert fit_turns(template, row)[: len(asked)] == asked
        assert any("Be brief." in turn["content"] for turn in asked)


def test_a_late_system_turn_goes_to_the_next_question_where_the_template_moves_or_refuses_it() -> None:
    row = turns(("system", "A."), ("user", "Hi"), ("assistant", "Hello."), ("system", "B."), ("user", "And?"))
    assert fit_turns(able(), row) == row
    fitted = fit_turns(able(late_system=False), row)
    assert fitted == [*row[:3], *turns(("user", "B.\n\nAnd?"))]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, True),
        ("{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}" + CHATML, False),
        (
            CHATML.replace(
                "{{ '<|im",
                "{% if m.role == 'system' and not loop.first %}{{ raise_exception('no') }}{% endif %}{{ '<|im",
                1,
            ),
            False,
        ),
        (
            CHATML.replace("{{ '<|im", "{% if m.role != 'system' or loop.first %}{{ '<|im", 1).replace(
                "{% endfor", "{% endif %}{% endfor", 1
            ),
            False,
        ),
    ],
)
def test_ability_to_render_late_system_turns_is_found(template: Any, expected: bool) -> None:
    assert abilities("auto", with_template(template)).late_system is expected
