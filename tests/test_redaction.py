"""Keys and tokens are redacted from messages, tracebacks and stored errors; files that may contain them are private."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import Cli, command, fake_worker, until

from qlora_tui import crash
from qlora_tui.chat import transcript
from qlora_tui.chat.transcript import Conversation
from qlora_tui.config.run import RunConfig
from qlora_tui.engine.worker import _explained
from qlora_tui.errors import EnvironmentProblem, QloraError
from qlora_tui.redaction import MARK, redacted
from qlora_tui.runs import jobs, store
from qlora_tui.terminal import narrate

__all__ = ["command", "fake_worker"]
KEY = "sk-first-half-0123456789\nsecond-half-abcdefgh"
PARTS = ("first-half", "second-half")


@pytest.mark.parametrize("variable", ["OPENAI_API_KEY", "HF_TOKEN", "MY_JUDGE_PASSWORD", "aws_secret_access_key"])
@pytest.mark.parametrize("shown", [str, repr, ascii, lambda key: repr(b"Bearer " + key.encode()), lambda key: key[12:]])
def test_a_secret_of_two_lines_is_redacted_however_it_is_written(
    monkeypatch: pytest.MonkeyPatch, variable: str, shown: Callable[[str], str]
) -> None:
    monkeypatch.setenv(variable, KEY)
    text = redacted(f"Invalid header value {shown(KEY)}: refused")
    assert "second-half" not in text
    assert MARK in text and text.endswith(": refused")


@pytest.mark.parametrize(
    "text",
    [
        "hf_abcdefghijklmnopqrstuvwx",
        "Authorization: Bearer abc.def.ghi",
        "https://me:hunter2hunter2@host/simple",
        "https://host/v1?key=0123456789",
        "ghp_0123456789012345678901",
    ],
)
def test_tokens_are_recognized_by_pattern(text: str) -> None:
    assert MARK in redacted(f"cannot open {text} now")


@pytest.mark.parametrize("value", ["1", "false", str(Path(__file__))])
def test_short_values_and_paths_are_not_secrets(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SOME_TOKEN", value)
    assert redacted(f"read {value} lines") == f"read {value} lines"


def test_every_error_and_narration_is_redacted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    error = QloraError(f"refused {KEY}", hint=f"not {KEY!r}")
    narrate(f"trying {KEY}")
    said = f"{error} {error.message} {error.hint} {capsys.readouterr().err}"
    assert not any(part in said for part in PARTS)


def test_traceback_file_is_private_and_holds_no_key(
    monkeypatch: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    try:
        raise ValueError(f"Invalid header value {b'Bearer ' + KEY.encode()!r}")
    except ValueError as error:
        crash.report(error)
    file = home / "cache" / "last-traceback.txt"
    text = file.read_text() + capsys.readouterr().err
    assert "Invalid header value" in text
    assert not any(part in text for part in PARTS)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_worker_stores_no_key_in_its_output_and_its_last_event(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_TOKEN", KEY)
    run = store.create("one", RunConfig(), {})
    try:
        raise RuntimeError(f"401 for {KEY!r}")
    except RuntimeError as error:
        told = _explained(error, run)
    assert not any(part in told.message + capsys.readouterr().err for part in PARTS)


def test_key_invalid_in_a_header_is_refused_by_name(
    command: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from qlora_tui.arena.judge_endpoint import EndpointJudge, EndpointSettings

    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(EnvironmentProblem, match="OPENAI_API_KEY contains a line break") as raised:
        EndpointJudge(EndpointSettings(base_url="http://127.0.0.1:9/v1", model="x"))
    assert not any(part in str(raised.value) for part in PARTS)


def public(folder: Path) -> list[str]:
    """Files and folders that others may read."""
    return [str(path) for path in (folder, *folder.rglob("*")) if path.lstat().st_mode & 0o077]


def test_runs_chats_and_transcripts_are_private(fake_worker: Callable[[str], None], home: Path) -> None:
    before = os.umask(0o022)
    try:
        run = store.create("one", RunConfig(), {})
        jobs.start(run)
        until(run, lambda state: state.phase == "finished")
        conversation = Conversation()
        conversation.open_turn("Is this private?")
        run.chats.mkdir(mode=0o700)
        transcript.save(run, conversation, {}, "one", None)
    finally:
        os.umask(before)
    assert public(home / "data" / "runs") == []
