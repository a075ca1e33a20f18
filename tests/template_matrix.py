"""Check chat templates with conversations and write the manual's page of templates: `make manual` runs this module.

Each cell has the status that `qlora-tui data check` gives the row. The tokens are compared with the row here, without
the product's own comparison: a difference that it does not report is a failure.
"""

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from chat_matrix_rows import CONVERSATIONS, Row
from transformers import PreTrainedTokenizerFast

from qlora_tui.config.data import SourceSpec
from qlora_tui.data.lengths import Limits
from qlora_tui.data.load import load_source
from qlora_tui.data.mask import IGNORED
from qlora_tui.data.recipe import Recipe
from qlora_tui.data.row_encoder import Rules
from qlora_tui.data.templates import resolve
from qlora_tui.data.turns import unpacked
from qlora_tui.engine.prompts import Prompts
from qlora_tui.engine.row_check import check_rows
from qlora_tui.errors import ModelError
from qlora_tui.starter import MODEL_DIR

PAGE = Path(__file__).resolve().parent.parent / "qlora_tui" / "manual" / "templates.md"
OF_TRL = Path((find_spec("trl").submodule_search_locations or [""])[0]) / "chat_templates"  # type: ignore[union-attr]
WRITTEN = Path(__file__).with_name("chat_templates")
"""Templates that TRL does not have, written for this test: the models' files may differ."""

NAMED = ("chatml", "llama-2", "llama-3", "mistral", "gemma", "phi", "alpaca", "guanaco", "plain")
TRL = (
    "cohere", "cohere2", "deepseek_r1_distill", "deepseekv3", "gemma", "gemma3", "gemma4_v5", "glm4moe", "gptoss",
    "lfm2", "lfm2_2_5", "llama3", "llama3_1", "llama3_2", "nemotron_3_nano", "phi3", "phi3_5", "qwen2_5", "qwen3",
    "qwen3_5_think", "qwen3_6", "qwen3_8", "qwen3_instruct_2507",
)  # fmt: skip
OWN = ("glm4", "mistral_v1", "mistral_v3", "phi4", "zephyr")
TEMPLATES = (*(f"named {name}" for name in NAMED), *TRL, *(f"{name} *" for name in OWN))

SIGNS = {"equal": "=", "loss reported": "r", "refused": "x", "not trained": "-", "silent": "!"}
FIRST_TOKEN = "the first token of the first answer"
_MARKERS = re.compile(r"<[|｜][^|｜<>{}\s]+[|｜]>|</?[a-z_]+>|\[/?[A-Z_]{3,}\]")
_THINKING = re.compile(r"\A\s*<think>(.*?)</think>", re.DOTALL)


@dataclass(frozen=True)
class Cell:
    status: str
    reason: str = ""


def tokenizer_and_template(title: str) -> tuple[Any, Any]:
    """A tokenizer that has the markers of the template as tokens, as the family's has, and the resolved template."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(MODEL_DIR))
    tokenizer.bos_token = "<|endoftext|>"
    if title.startswith("named "):
        return tokenizer, resolve(title.removeprefix("named "), tokenizer)
    folder = WRITTEN if title.endswith(" *") else OF_TRL
    tokenizer.chat_template = (folder / f"{title.removesuffix(' *')}.jinja").read_text(encoding="utf-8")
    found = sorted(set(_MARKERS.findall(tokenizer.chat_template)) - set(tokenizer.get_vocab()))
    tokenizer.add_tokens(found, special_tokens=True)
    return tokenizer, resolve("auto", tokenizer)


def row_of(title: str, folder: Path) -> list[Cell]:
    """The cells of one template. Raises DataError for a template that training refuses."""
    tokenizer, template = tokenizer_and_template(title)
    recipe = Recipe(tokenizer, template, Rules(Limits(max_tokens=20000)))
    return [_cell(recipe, row, folder) for row in CONVERSATIONS.values()]


def matrix() -> dict[str, list[Cell]]:
    """The cells of every template."""
    with tempfile.TemporaryDirectory() as folder:
        return {title: row_of(title, Path(folder)) for title in TEMPLATES}


def _cell(recipe: Recipe, row: Row, folder: Path) -> Cell:
    path = folder / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    batch = load_source(SourceSpec(source=str(path))).dataset[:]
    (found,) = check_rows(recipe, batch)
    if found.status in ("refused", "not trained"):
        return Cell(found.status, found.problem) if found.problem else Cell("silent", "no reason")
    (encoded,) = recipe.encoder().encode(batch)
    (piece,) = encoded.pieces
    differences = [*_differences(recipe, row, *piece), *_prompt_differences(recipe, batch, *piece)]
    unsaid = [text for text, report in differences if not report or report not in found.problem]
    if unsaid or found.status == "asked differently":
        return Cell("silent", "; ".join(unsaid) or found.problem)
    return Cell(found.status, found.problem)


def _trained(recipe: Recipe, ids: list[int], labels: list[int]) -> list[str]:
    """The text of each run of trained tokens."""
    runs = groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != IGNORED)
    return [recipe.tokenizer.decode([token for token, _ in run]) for is_trained, run in runs if is_trained]


def _answers(row: Row) -> list[Row]:
    return [turn for turn in row["messages"] if turn["role"] == "assistant" and _is_wanted(turn)]


def _is_wanted(turn: Row) -> bool:
    return bool(turn.get("weight", 1)) and turn.get("train", True)


def _parts(turn: Row) -> Iterator[tuple[str, str]]:
    """The texts of a turn, each with its kind."""
    content, reasoning = turn["content"], turn.get("reasoning_content", "")
    if turn["role"] == "assistant" and (thought := _THINKING.match(content)):
        reasoning, content = thought[1], content[thought.end() :]
    yield "text", content.strip()
    yield "reasoning", reasoning.strip()
    for call in turn.get("tool_calls", ()):
        yield "tool call", call["function"]["name"]
        for value in call["function"]["arguments"].values():
            yield "tool call", str(value)


def _is_in(part: str, text: str) -> bool:
    return part in text or json.dumps(part)[1:-1] in text or json.dumps(part, ensure_ascii=False)[1:-1] in text


def _differences(recipe: Recipe, row: Row, ids: list[int], labels: list[int]) -> Iterator[tuple[str, str]]:
    """What is wrong with the tokens, each with the words that a report of it contains."""
    runs = _trained(recipe, ids, labels)
    trained, whole = "\n".join(runs), recipe.tokenizer.decode(ids)
    for at, turn in enumerate(row["messages"], 1):
        is_trained = turn["role"] == "assistant" and _is_wanted(turn)
        for kind, part in _parts(turn):
            if not _is_in(part, trained if is_trained else whole):
                begins = labels[1] != IGNORED  # The answer is the beginning of the text.
                yield f"the {kind} of turn {at} is missing", FIRST_TOKEN if begins else f"the {kind} of turn {at}"
            whole_part = turn["content"] if kind == "text" and not _THINKING.match(turn["content"]) else part
            if is_trained and _is_in(part, trained) and not any(_is_in(whole_part, run) for run in runs):
                yield f"white space around turn {at} is missing", "white space around an answer"
            if part and not is_trained and _is_in(part, trained):
                yield f"the {kind} of turn {at} is trained", ""
    tokens = [*recipe.tokenizer.get_added_vocab(), recipe.tokenizer.eos_token]
    ended = [any(run.rstrip().endswith(token) for token in tokens) for run in runs]
    is_answered = row["messages"][-1]["role"] == "assistant"
    if not all(ended if recipe.template.stops else ended[-1:] if is_answered else ()):
        yield "an answer does not end in a trained token", ""


def _prompt_differences(
    recipe: Recipe, batch: dict[str, list[Any]], ids: list[int], labels: list[int]
) -> Iterator[tuple[str, str]]:
    """Check that the prompt of each trained answer is the start of the row, up to where its trained tokens begin."""
    turns = [unpacked(turn) for turn in batch["messages"][0]]
    tools = json.loads(batch["tools"][0]) if batch["tools"][0] else ()
    prompts = Prompts(recipe.tokenizer, recipe.template.portable, recipe.template)
    for at, turn in enumerate(turns):
        if not at or turn["role"] != "assistant" or turn.get("untrained") or turns[at - 1]["role"] == "assistant":
            continue
        try:
            asked = prompts.ids(turns[:at], tools)
        except ModelError as error:
            yield f"answer {at + 1} cannot be prompted: {error.message}", ""
            continue
        if ids[: len(asked)] != asked:
            yield f"the prompt of turn {at + 1} is not the start of the row", ""
        elif asked and labels[len(asked)] == IGNORED:
            yield f"the trained tokens of turn {at + 1} do not follow its prompt", ""


_GROUPS = {
    "Named templates, for `data.template`": tuple(f"named {name}" for name in NAMED),
    f"Models' own templates, from TRL {version('trl')}": TRL,
    "Templates written for this page, which may differ from the models' files": tuple(f"{name} *" for name in OWN),
}
_HEAD = """\
# Chat templates and conversations
<!-- topics: chat templates, template matrix, conversations -->

This page is generated by `make manual`. It prepares each of {rows} conversations with each of {templates} chat
templates as `qlora-tui data check` does, and compares the trained tokens with the conversation, and the prompt of every
answer with the start of the training row. The tokenizer is that of the starter model with the markers of each template
added as tokens: a model's own tokenizer can divide texts differently. `qlora-tui data check` shows your rows with your
model.

- `=`: every text, reasoning and tool call of the trained answers is in the trained tokens, no other text of the
  conversation is trained, each prompt is the start of the row, and the end of each answer is trained.
- `r`: a part is not trained, and the loss is reported before training.
- `x`: the row is refused with the reason.

A template without a place for system turns, tool calls or reasoning is given them as text of a turn, which counts as
`=`. A template that leaves answers open is given the end-of-text token after the last answer of a row only. Some
training templates of TRL also train the header of an answer, such as `<|start|>assistant`.

## Conversations

{conversations}

## Results

Columns are the numbers of the conversations.
"""


def _base(title: str) -> str:
    return title.removeprefix("named ").removesuffix(" *")


def page(found: dict[str, list[Cell]]) -> str:
    """Return the manual's page of these results."""
    listed = "\n".join(f"{number}. {title}" for number, title in enumerate(CONVERSATIONS, 1))
    counts = {"rows": len(CONVERSATIONS), "templates": len(found)}
    parts = [_HEAD.format(conversations=listed, **counts)]
    numbers = range(1, len(CONVERSATIONS) + 1)
    ruler = [
        " " * 22 + "".join(str(at // 10 or " ") for at in numbers),
        " " * 22 + "".join(str(at % 10) for at in numbers),
    ]
    for heading, titles in _GROUPS.items():
        lines = [f"{_base(title):22}" + "".join(SIGNS[cell.status] for cell in found[title]) for title in titles]
        parts.append("\n".join([f"### {heading}", "", "```text", *ruler, *lines, "```", ""]))
    parts.append("## Refused and reported conversations\n")
    for (status, reason), cells in sorted(_reasons(found).items()):
        where = "; ".join(f"{title} {', '.join(map(str, columns))}" for title, columns in cells.items())
        parts.append(f"- `{SIGNS[status]}` {reason}: {where}")
    return "\n".join(parts) + "\n"


def _reasons(found: dict[str, list[Cell]]) -> dict[tuple[str, str], dict[str, list[int]]]:
    """The conversations' numbers by status and reason, and by template."""
    grouped: dict[tuple[str, str], dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for title, cells in found.items():
        for number, cell in enumerate(cells, 1):
            if cell.reason:
                grouped[cell.status, cell.reason.rstrip(".")][_base(title)].append(number)
    return grouped


if __name__ == "__main__":
    PAGE.write_text(page(matrix()), encoding="utf-8")
