"""What evaluation rows need, when they are longer or shorter than those that are trained."""

from collections.abc import Mapping

from qlora_tui.config.overrides import resolve
from qlora_tui.memory.device import card
from qlora_tui.memory.estimate import estimate
from qlora_tui.models import describe


def phases(train_tokens: int, eval_tokens: int) -> Mapping[str, int]:
    model = "meta-llama/Llama-3.1-8B"
    config = resolve(overrides=[f"model.id={model}", "data.eval_rows=1", "training.max_length_tokens=8192"])
    facts = describe(model, network=False)
    found = estimate(config, facts, card(80), longest_tokens=train_tokens, longest_eval_tokens=eval_tokens)
    return {**found.phases}


def test_long_evaluation_rows_are_priced_as_evaluated_and_not_as_trained() -> None:
    short, long, trained = phases(20, 20), phases(20, 8192), phases(8192, 8192)
    assert short["eval"] < long["eval"]
    assert short["steady"] == long["steady"] < trained["steady"]
    assert phases(20, 0) == short


def test_no_row_is_longer_than_what_is_cut_off_allows() -> None:
    assert phases(20, 100_000) == phases(20, 8192)
