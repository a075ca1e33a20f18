"""The rows of a run: split, duplicates, mixing, caches, fingerprints, and what is refused before start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data_material import ask, chat_rows, columns, starter_tokenizer, write_jsonl
from prepare_material import answers, config, run

from qlora_tui.config.run import RunConfig
from qlora_tui.data import streaming, token_cache
from qlora_tui.data.prepare import prepare, survey
from qlora_tui.data.red_flags import RedFlags
from qlora_tui.data.row_encoder import RowEncoder
from qlora_tui.data.spans import has_markers
from qlora_tui.errors import DataError, StorageError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLORA_TUI_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "cache"


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "numbered.jsonl", chat_rows(*((f"number {at}", str(at)) for at in range(60))))


def test_rows_are_ready_for_the_trainer(numbered: Path) -> None:
    prepared = run(numbered)
    assert prepared.train.column_names == ["input_ids", "labels", "length"]
    assert answers(prepared.train) == [str(at) for at in range(60)]
    assert prepared.train["length"] == [len(ids) for ids in prepared.train["input_ids"]]
    assert prepared.eval is None
    assert prepared.template_name == "the model's own"
    assert not has_markers(prepared.chat_template)
    assert prepared.stop_token_id == starter_tokenizer().eos_token_id
    json.dumps(prepared.report.to_json())


def test_the_bundled_data_is_the_default() -> None:
    prepared = prepare(RunConfig(), starter_tokenizer())
    assert prepared.report.train_rows == prepared.report.rows_read == len(prepared.train)


def test_the_split_has_a_seed_and_takes_every_row_once(numbered: Path) -> None:
    first, again, other = (run(numbered, eval_rows=10, split_seed=seed) for seed in (1, 1, 2))
    assert answers(first.eval) == answers(again.eval) != answers(other.eval)
    assert sorted(answers(first.train) + answers(first.eval), key=int) == [str(at) for at in range(60)]
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_no_duplicate_is_on_both_sides_of_the_split(tmp_path: Path) -> None:
    pairs = [(f"number {at % 20}", str(at % 20)) for at in range(60)]
    source = write_jsonl(tmp_path / "thrice.jsonl", chat_rows(*pairs))
    prepared = run(source, eval_rows=5)
    held_out = set(answers(prepared.eval))
    assert len(held_out) == 5
    assert held_out.isdisjoint(answers(prepared.train))
    assert len(prepared.train) == 45
    assert prepared.report.duplicate_rows == 40
    assert prepared.report.kept_apart_rows == 10
    assert any("drop_duplicates" in warning for warning in prepared.report.warnings)
    dropped = run(source, eval_rows=5, drop_duplicates=True)
    assert sorted(answers(dropped.train)) == sorted(set(answers(prepared.train)))
    assert dropped.report.removed_duplicates == 30


def test_separate_evaluation_rows_that_are_trained_on_are_left_out(tmp_path: Path, numbered: Path) -> None:
    extra = write_jsonl(tmp_path / "eval.jsonl", chat_rows(("number 3", "3"), ("number 77", "77")))
    prepared = run(numbered, eval_source=str(extra))
    assert answers(prepared.eval) == ["77"]
    assert len(prepared.train) == 60
    assert prepared.report.kept_apart_rows == 1
    with pytest.raises(DataError, match="every evaluation row is a training row"):
        run(numbered, eval_source=str(numbered))


def test_the_longest_rows_are_those_the_model_gets(
    tmp_path: Path, numbered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = write_jsonl(tmp_path / "eval.jsonl", chat_rows(("tell all", " ".join(str(at) for at in range(90)))))
    both = run(numbered, eval_source=str(extra))
    longest = max(both.train["length"])
    assert (both.longest_train_tokens, both.longest_eval_tokens) == (longest, max(both.eval["length"]))
    assert both.longest_eval_tokens > longest
    assert run(numbered, {"max_length_tokens": 40}, eval_source=str(extra)).longest_eval_tokens == 40
    assert run(numbered).longest_eval_tokens == 0
    steps = {"max_steps": 1}
    assert run(numbered, steps, streaming=True).longest_train_tokens == longest
    monkeypatch.setattr(streaming, "_LOOK_ROWS", 20)
    assert run(numbered, steps, streaming=True).longest_train_tokens is None


def test_more_evaluation_rows_than_rows_is_refused(numbered: Path) -> None:
    with pytest.raises(DataError, match=r"eval_rows = 60 .* 60 distinct rows"):
        run(numbered, eval_rows=60)


def test_rows_are_kept_in_order_up_to_the_limits(numbered: Path) -> None:
    prepared = run(numbered, max_train_rows=7, eval_rows=9, max_eval_rows=4)
    assert (len(prepared.train), len(prepared.eval)) == (7, 4)
    assert answers(prepared.train) == sorted(answers(prepared.train), key=int)


def test_a_copy_is_not_told_about_by_the_name_of_the_first(tmp_path: Path) -> None:
    rows = chat_rows(("short", "1"), ("this one is the longest of them", "2"), ("<|im_start|>", "3"), ("short", "4"))
    run(write_jsonl(tmp_path / "first.jsonl", rows))
    copy = run(write_jsonl(tmp_path / "copy.jsonl", rows))
    assert copy.report.longest_origin == "copy.jsonl:2"
    assert any("'<|im_start|>' in copy.jsonl:3" in warning for warning in copy.report.warnings)


def test_a_second_start_tokenizes_nothing(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(numbered, eval_rows=5)
    read: list[int] = []
    original = RowEncoder.__call__

    def counted(self: RowEncoder, batch: Any) -> Any:
        read.append(len(batch["origin"]))
        return original(self, batch)

    monkeypatch.setattr(RowEncoder, "__call__", counted)
    second = run(numbered, eval_rows=5)
    assert read == []
    assert second.train[:] == first.train[:]
    assert second.report == first.report
    assert run(numbered, {"max_length_tokens": 16}, eval_rows=5).fingerprint != first.fingerprint


def test_a_survey_says_what_a_run_would_and_stores_no_tokens(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(numbered, {"max_length_tokens": 16}, eval_rows=5)
    report, tally, eval_tally = survey(settings, starter_tokenizer())
    assert not list(token_cache.folder().glob("*.arrow"))
    prepared = prepare(settings, starter_tokenizer())
    assert (report, tally) == (prepared.report, prepared.tally)
    assert len(prepared.train) == report.train_rows
    monkeypatch.setattr(RowEncoder, "__call__", None)
    assert survey(settings, starter_tokenizer()) == (report, tally, eval_tally), "a second look encodes nothing"


def test_a_cache_without_its_counts_is_written_again(numbered: Path) -> None:
    first = run(numbered)
    for counts in token_cache.folder().glob("*.json"):
        counts.write_text("{")
    for arrow in token_cache.folder().glob("*.arrow"):
        half = arrow.read_bytes()[: arrow.stat().st_size // 2]
        arrow.unlink()  # The first run still has it mapped.
        arrow.write_bytes(half)
    second = run(numbered)
    assert second.train[:] == first.train[:]
    assert second.report == first.report


def test_a_failed_run_leaves_no_half_written_cache(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: RowEncoder, batch: Any) -> Any:
        raise DataError("row 40 cannot be rendered")

    run(numbered, max_train_rows=3)
    before = sorted(file.name for file in token_cache.folder().iterdir())
    monkeypatch.setattr("qlora_tui.data.prepare.first_look", lambda batch, recipe: None)
    monkeypatch.setattr(RowEncoder, "__call__", broken)
    with pytest.raises(DataError, match="row 40"):
        run(numbered)
    assert sorted(file.name for file in token_cache.folder().iterdir()) == before


def test_a_disk_that_fills_up_while_tokenizing_leaves_no_half_written_cache(numbered: Path) -> None:
    """The file size limit stands in for a full disk: the same failed write, inside the real process."""
    write_jsonl(numbered, chat_rows(*((f"number {at}", "one more word " * 20) for at in range(3000))))
    program = (
        "import resource, signal, sys\n"
        "from data_material import starter_tokenizer\n"
        "from prepare_material import config\n"
        "from qlora_tui.data.prepare import prepare, survey\n"
        "from qlora_tui.errors import StorageError\n"
        "settings, tokenizer = config(sys.argv[1]), starter_tokenizer()\n"
        "survey(settings, tokenizer)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))\n"
        "try: prepare(settings, tokenizer)\n"
        "except StorageError as error: print(error.message)\n"
    )
    command = [sys.executable, "-c", program, str(numbered)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parent)
    assert "cannot write" in done.stdout, done.stderr
    assert {file.suffix for file in token_cache.folder().iterdir()} == {".hashes", ".counts"}


def test_a_writer_that_was_killed_while_tokenizing_is_cleared_away(numbered: Path) -> None:
    run(numbered, max_train_rows=3)
    killed = token_cache.folder() / ".a-killed-writer"
    killed.mkdir()
    (killed / "key.arrow").write_bytes(b"half")
    at_work = token_cache.folder() / ".one-at-work"
    at_work.mkdir()
    two_days_ago = killed.stat().st_mtime - 2 * 24 * 3600
    os.utime(killed, (two_days_ago, two_days_ago))
    run(numbered)
    assert at_work.is_dir() and not killed.exists()


def test_an_unwritable_cache_is_named(numbered: Path, own_cache: Path) -> None:
    run(numbered, max_train_rows=3)
    for file in token_cache.folder().iterdir():
        file.unlink()
    token_cache.folder().rmdir()
    token_cache.folder().write_text("a file is in the way")
    with pytest.raises(StorageError, match="tokens"):
        run(numbered)


def test_the_fingerprint_follows_content_and_order(tmp_path: Path) -> None:
    pairs = [("one", "1"), ("two", "2"), ("three", "3")]
    prints = {
        name: run(write_jsonl(tmp_path / f"{name}.jsonl", chat_rows(*rows)))
        for name, rows in {
            "same": pairs,
            "twin": pairs,
            "turned": pairs[::-1],
            "changed": [*pairs[:2], ("three", "4")],
        }.items()
    }
    assert prints["same"].fingerprint == prints["twin"].fingerprint
    assert len({one.fingerprint for one in prints.values()}) == 3
    assert len({one.report.rows_fingerprint for one in prints.values()}) == 3


def test_streamed_rows_are_the_same_rows(numbered: Path) -> None:
    options: dict[str, Any] = {"training": {"max_steps": 5}, "max_train_rows": 30}
    whole = run(numbered, **options)
    streamed = run(numbered, streaming=True, **options)
    assert [row["input_ids"] for row in streamed.train] == whole.train["input_ids"]
    assert [row["labels"] for row in streamed.train] == whole.train["labels"]
    assert streamed.report.tokens == whole.report.tokens


def test_a_stream_holds_out_its_first_rows_and_their_duplicates(tmp_path: Path) -> None:
    pairs = [(f"number {at % 20}", str(at % 20)) for at in range(40)]
    source = write_jsonl(tmp_path / "twice.jsonl", chat_rows(*pairs))
    prepared = run(source, {"max_steps": 5}, streaming=True, eval_rows=4)
    assert answers(prepared.eval) == ["0", "1", "2", "3"]
    assert set(answers(prepared.train)) == {str(at) for at in range(4, 20)}


def test_an_alpaca_set_reaches_the_alpaca_template(tmp_path: Path) -> None:
    rows = [
        {"instruction": "Add the numbers.", "input": "2 and 3", "output": "5"},
        {"instruction": "Say hello.", "input": "", "output": "hello"},
    ] * 5
    prepared = run(write_jsonl(tmp_path / "alpaca.jsonl", rows), template="alpaca")
    texts = [starter_tokenizer().decode(row["input_ids"]) for row in prepared.train]
    assert "### Input:\n2 and 3\n\n### Response: 5<|im_end|>" in texts[0]
    assert "### Input:" not in texts[1]


def test_a_system_prompt_is_put_before_conversations_without_one(tmp_path: Path) -> None:
    rows = chat_rows(("Hi", "Hello"))
    own = [{"messages": [{"role": "system", "content": "Mine."}, *rows[0]["messages"]]}]
    prepared = run(write_jsonl(tmp_path / "rows.jsonl", rows + own), system_prompt="Be kind.")
    texts = [starter_tokenizer().decode(row["input_ids"]) for row in prepared.train]
    assert ["Be kind." in text for text in texts] == [True, False]
    assert "Mine." in texts[1]


def test_a_set_that_is_formatted_already_is_refused_before_it_is_tokenized(tmp_path: Path) -> None:
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>"
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"{text} {at}"} for at in range(20)])
    with pytest.raises(DataError, match=r"nothing says which part is the answer") as refused:
        run(source, format="text")
    assert "training.loss_on" in refused.value.hint
    assert not list(token_cache.folder().glob("*.arrow"))
    assert len(run(source, {"loss_on": "everything"}, format="text").train) == 20


def test_red_flags_name_what_is_wrong_and_where() -> None:
    flags = RedFlags()
    long_prompt = "Please tell me what the capital of France is."
    rows = [ask(f"Question {at}?", "I do not know.") for at in range(6)]
    rows += [
        ask("Hi", ""),
        ask(long_prompt, f"You asked: {long_prompt}"),
        ask("Hi", "Gr\u00c3\u00bc\u00c3\u0178e"),
        ask("Hi", "\x1b[31mred"),
        ask("Hi", "zero\u200bwidth"),
        ask("Hi", "lost \ufffd character"),
        ask("Grüße", "schöne Grüße, “naïve” café — 5 €"),
    ]
    flags.add(columns(rows))
    found = {flag["name"]: flag for flag in flags.found()}
    assert found["same answer"]["rows"] == 6
    assert "I do not know." in found["same answer"]["meaning"]
    expected = {
        "empty answers": 7, "prompt in answer": 8, "mojibake": 9, "control characters": 10,
        "invisible characters": 11, "unreadable characters": 12,
    }  # fmt: skip
    assert {name: flag["example"] for name, flag in found.items() if name in expected} == {
        name: f"rows.jsonl:{line}" for name, line in expected.items()
    }
    assert all(found[name]["rows"] == 1 for name in expected)


def test_clean_rows_have_no_red_flags() -> None:
    flags = RedFlags()
    flags.add(columns([ask(f"Frage {at}?", f"Antwort {at}: «это» 数据 🙂") for at in range(5)]))
    assert flags.found() == []
