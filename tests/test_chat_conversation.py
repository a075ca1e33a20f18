"""The conversation, its commands and its file, without any model."""

import json

import pytest
from nvml_material import install_cards

from qlora_tui.chat import transcript
from qlora_tui.chat.client import ChatClient, Choice, check
from qlora_tui.chat.commands import COMMANDS, obey
from qlora_tui.chat.protocol import Message, Sampling
from qlora_tui.chat.session import ChatSession
from qlora_tui.chat.transcript import Answer, Conversation
from qlora_tui.config.overrides import resolve
from qlora_tui.errors import DataError, RunConflictError, StorageError, UsageError
from qlora_tui.runs import events, jobs, store
from qlora_tui.runs.event_log import EventWriter
from qlora_tui.runs.store import RunFolder


class Nobody(ChatClient):
    """A client whose process was never started: these tests ask it nothing."""

    def __init__(self, run: RunFolder) -> None:
        self.choice = Choice(run)


@pytest.fixture
def session(tmp_path):
    run = RunFolder(tmp_path / "parrot")
    run.chats.mkdir(parents=True)
    return ChatSession(Nobody(run), Sampling())


def said(text: str) -> Answer:
    return Answer(sampling={}, seed=0, text=text, reason="stop")


def talk() -> Conversation:
    conversation = Conversation(system="Be brief.")
    conversation.open_turn("one?")
    conversation.turns[-1].answers = {"base": said("base 1"), "adapter": said("adapter 1")}
    conversation.open_turn("two?")
    conversation.turns[-1].answers = {"adapter": said("adapter 2")}
    conversation.open_turn("three?")
    return conversation


def test_each_side_remembers_its_own_answers_and_the_other_sides_where_it_was_not_asked():
    def contents(messages: tuple[Message, ...]) -> list[str]:
        return [message.content for message in messages]

    assert contents(talk().prompt("base")) == ["Be brief.", "one?", "base 1", "two?", "adapter 2", "three?"]
    assert contents(talk().prompt("adapter")) == ["Be brief.", "one?", "adapter 1", "two?", "adapter 2", "three?"]


def test_the_last_question_is_asked_without_the_answers_it_already_has():
    conversation = talk()
    conversation.turns[-1].answers = {"base": said("base 3")}
    assert conversation.prompt("adapter")[-1] == Message(role="user", content="three?")


def test_text_that_is_no_unicode_becomes_harmless(session):
    session.conversation.open_turn("a\udc80b")
    assert session.conversation.prompt("adapter")[0].content == "a?b"


def test_set_changes_one_setting(session):
    assert obey(session, "/set temperature 0.25").text == "temperature = 0.25"
    assert obey(session, "/set max_tokens=7").text == "max_tokens = 7"
    assert (session.sampling.temperature, session.sampling.max_tokens, session.sampling.top_p) == (0.25, 7, 0.9)
    assert "temperature = 0.25" in obey(session, "/set").text


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("/sett temperature 1", "no command /sett", "Did you mean '/set'?"),
        ("/set temprature 1", "no setting named 'temprature'", "Did you mean 'temperature'?"),
        ("/set temperature hot", "temperature should be a valid number", "likeliest token"),
        ("/set top_p 1.5", "top_p should be less than or equal to 1", "probability"),
        ("/set top_k 1.5", "top_k should be a valid integer", "likeliest tokens"),
        ("/set max_tokens 0", "max_tokens should be greater than or equal to 1", "Longest answer"),
        ("/set temperature", "one setting and one value", "/set [NAME VALUE]"),
        ("/retry", "nothing to retry", ""),
        ("/undo", "nothing to undo", ""),
        ("/save", "nothing to save", ""),
        ("/quit now", "/quit takes nothing", "/quit"),
    ],
)
def test_a_mistake_names_what_was_meant(session, line, message, hint):
    before = session.sampling
    with pytest.raises(UsageError) as caught:
        obey(session, line)
    assert caught.value.message.startswith(message)
    assert hint in caught.value.hint
    assert session.sampling == before


def test_help_names_every_command(session):
    text = obey(session, "/help").text
    assert all(name in text for name in COMMANDS)


def test_system_undo_and_clear(session):
    session.conversation = talk()
    assert obey(session, "/undo").text == "forgotten: three?"
    assert [turn.question for turn in session.conversation.turns] == ["one?", "two?"]
    obey(session, "/system Answer in rhyme.")
    obey(session, "/clear")
    assert session.conversation == Conversation(system="Answer in rhyme.")
    obey(session, "/system")
    assert session.conversation.system == ""


def test_a_transcript_holds_the_conversation_and_is_found_again_by_its_name(session):
    session.conversation = talk()
    assert "saved as" in obey(session, "/save first").text
    saved = json.loads((session.client.choice.run.chats / "first.json").read_text())
    assert saved["run"] == "parrot"
    assert saved["system"] == "Be brief."
    assert [turn["question"] for turn in saved["turns"]] == ["one?", "two?", "three?"]
    assert saved["turns"][0]["answers"]["base"]["text"] == "base 1"


def test_damaged_transcript_is_refused_unless_its_checksum_is_removed(session):
    session.conversation = talk()
    obey(session, "/save first")
    path = session.client.choice.run.chats / "first.json"
    assert transcript.load(path) == talk()
    changed = path.read_text().replace("base 1", "base 9")
    path.write_text(changed)
    with pytest.raises(DataError, match=r"first\.json is damaged: its checksum does not match") as raised:
        transcript.load(path)
    assert 'remove the key "xxh3"' in raised.value.hint
    values = json.loads(changed)
    del values["xxh3"]
    path.write_text(json.dumps(values))
    assert transcript.load(path).turns[0].answers["base"].text == "base 9"
    path.write_text("{")
    with pytest.raises(DataError, match=r"first\.json cannot be read: it is not JSON"):
        transcript.load(path)


def test_saving_again_replaces_the_own_file_and_no_other(session):
    session.conversation = talk()
    obey(session, "/save first")
    session.conversation.undo()
    obey(session, "/save")
    path = session.client.choice.run.chats / "first.json"
    assert len(json.loads(path.read_text())["turns"]) == 2
    obey(session, "/clear")
    session.conversation.open_turn("another?")
    with pytest.raises(RunConflictError, match=r"first\.json exists already"):
        obey(session, "/save first")
    assert len(json.loads(path.read_text())["turns"]) == 2


@pytest.mark.parametrize("name", ["../evil", "a/b", ".hidden"])
def test_a_transcript_cannot_leave_its_folder(session, name):
    session.conversation = talk()
    with pytest.raises(UsageError):
        obey(session, f"/save {name}")


def test_a_folder_that_is_gone_is_a_storage_error(session):
    session.conversation = talk()
    session.client.choice.run.chats.rmdir()
    with pytest.raises(StorageError, match="cannot write"):
        obey(session, "/save")
    assert session.conversation == talk()


def test_a_gpu_on_which_a_run_is_training_is_left_alone_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("QLORA_TUI_RUNS", str(tmp_path))
    config = resolve("starter", None, ["model.device=auto"])
    finished, training = (store.create(name, config, {}) for name in ("done", "busy"))
    finished.adapter.mkdir()
    writer = EventWriter(training.events)
    install_cards(monkeypatch, 20, 10, 5)
    assert check(Choice(finished)) == {}
    with jobs.hold(training):
        with pytest.raises(RunConflictError, match="'busy' is training on the GPU"):
            check(Choice(finished))
        on_one = {"field": "model.device", "value": "cuda", "reason": "most free memory", "gpu_uuid": "GPU-1"}
        writer.write(events.Resolved(**on_one))
        assert check(Choice(finished)) == {"CUDA_VISIBLE_DEVICES": "GPU-0,GPU-2"}
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
        assert check(Choice(finished)) == {}
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        with pytest.raises(RunConflictError, match="'busy' is training on GPU 1") as caught:
            check(Choice(finished))
        assert "--device cpu" in caught.value.hint
        assert check(Choice(finished, device="cpu")) == check(Choice(finished, device="cuda")) == {}
        install_cards(monkeypatch)
        assert check(Choice(finished)) == {}
