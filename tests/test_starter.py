"""The bundled starter: what is shipped is what the builder makes, and it can show what it claims to show."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from qlora_tui import starter
from qlora_tui.starter import prose, questions
from qlora_tui.starter.build import DEFAULT_STEPS, build, card, write_tokenizer
from qlora_tui.starter.world import build_world

MAX_FOLDER_BYTES = 10 * 1000**2

CONVERSATION = [
    {"role": "system", "content": "You are a guide."},
    {"role": "user", "content": "Where does Anna live?"},
    {"role": "assistant", "content": "Anna lives in Oakford."},
    {"role": "user", "content": "Thank you!"},
    {"role": "assistant", "content": "You are welcome!"},
]


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(starter.MODEL_DIR)


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_shipped_data_is_what_the_builder_writes():
    world = build_world()
    assert starter.TRAIN_DATA.read_text(encoding="utf-8") == questions.as_jsonl(questions.train_rows(world))
    assert starter.HELDOUT_DATA.read_text(encoding="utf-8") == questions.as_jsonl(questions.heldout_rows(world))


def test_the_shipped_tokenizer_is_what_the_builder_trains_on_this_text_and_these_questions(tmp_path):
    write_tokenizer(build_world(), tmp_path)
    shipped = files(starter.MODEL_DIR)
    assert files(tmp_path) == {name: shipped[name] for name in files(tmp_path)}


def test_the_shipped_card_is_what_the_builder_writes():
    def without_versions(text: str) -> list[str]:
        return [line for line in text.splitlines() if "--seed" not in line]

    shipped = (starter.MODEL_DIR / "README.md").read_text(encoding="utf-8")
    written = card(starter.MODEL_DIR, build_world(), DEFAULT_STEPS)
    assert without_versions(shipped) == without_versions(written)
    assert f"--steps {DEFAULT_STEPS}`, torch " in shipped


def test_a_seed_decides_the_world_and_its_text():
    assert build_world(3) == build_world(3)
    assert build_world(3) != build_world(4)
    assert list(prose.documents(build_world(3), 2)) == list(prose.documents(build_world(3), 2))
    assert list(prose.documents(build_world(3), 2)) != list(prose.documents(build_world(4), 2))


def test_no_training_row_names_a_held_out_person_or_thing():
    entities = {fact.subject for fact in build_world().facts if fact.held_out and fact.attribute in ("town", "colour")}
    assert len(entities) == 2 * 25
    text = starter.TRAIN_DATA.read_text(encoding="utf-8")
    spoken = set("".join(c if c.isalpha() else " " for c in text).split())
    assert not {entity for entity in entities if {entity, entity.capitalize()} & spoken}


def test_no_held_out_question_has_been_asked_in_training():
    asked = {m["content"] for row in rows(starter.TRAIN_DATA) for m in row["messages"]}
    assert not {m["content"] for row in rows(starter.HELDOUT_DATA) for m in row["messages"]} & asked


def test_every_held_out_answer_can_be_read_in_the_pretraining_text():
    text = "\n".join(prose.documents(build_world(), 60))
    sentences = set(text.split("\n"))
    answers = {row["messages"][-1]["content"] for row in rows(starter.HELDOUT_DATA)}
    assert answers <= sentences


def test_every_fact_has_many_wordings_some_with_the_value_first():
    for attribute, wordings in prose.WORDINGS.items():
        assert len(set(wordings)) >= 5, attribute
        # Opposites are told of both words, so one order serves for both.
        assert attribute == "opposite" or any(w.index("{v}") < w.index("{s}") for w in wordings), attribute
        assert not any("?" in w for w in wordings), attribute


def test_each_rendering_is_a_prefix_of_the_longer_conversation(tokenizer):
    whole = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    for count in range(1, len(CONVERSATION) + 1):
        assert whole.startswith(tokenizer.apply_chat_template(CONVERSATION[:count], tokenize=False))
    question = tokenizer.apply_chat_template(CONVERSATION[:2], tokenize=False, add_generation_prompt=True)
    assert whole.startswith(question + "Anna lives in Oakford.")


def test_the_mask_holds_the_answers_and_their_end_tokens_alone(tokenizer):
    rendered = tokenizer.apply_chat_template(CONVERSATION, return_dict=True, return_assistant_tokens_mask=True)
    learned = [token for token, own in zip(rendered["input_ids"], rendered["assistant_masks"], strict=True) if own]
    assert tokenizer.decode(learned) == "Anna lives in Oakford.<|im_end|>You are welcome!<|im_end|>"


def test_a_turn_ends_with_the_token_that_stops_generation(tokenizer):
    generation = json.loads((starter.MODEL_DIR / "generation_config.json").read_text(encoding="utf-8"))
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_token_id in generation["eos_token_id"]
    assert generation["pad_token_id"] == tokenizer.pad_token_id != tokenizer.eos_token_id


def test_any_text_survives_the_tokenizer(tokenizer):
    text = "Größe, 雪 and 🐫\n\tNumbers 1234 <b>[x]</b>"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_the_shipped_model_is_small_and_in_bfloat16():
    assert sum(len(content) for content in files(starter.MODEL_DIR).values()) <= MAX_FOLDER_BYTES
    with (starter.MODEL_DIR / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    header.pop("__metadata__", None)
    assert {entry["dtype"] for entry in header.values()} == {"BF16"}
    text = (starter.MODEL_DIR / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in text and "{" not in text


def test_building_twice_gives_the_same_bytes(tmp_path):
    build(tmp_path / "one", seed=5, steps=2)
    build(tmp_path / "two", seed=5, steps=2)
    first = files(tmp_path / "one")
    assert {"model/model.safetensors", "model/tokenizer.json", "data/train.jsonl"} <= set(first)
    assert first == files(tmp_path / "two")


def test_the_builder_does_not_load_torch():
    code = "import sys, qlora_tui.starter.build; sys.exit('torch' in sys.modules or 'tokenizers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
