"""`qlora-tui chat` as a person and a script meet it: real processes, pipes and a terminal."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress

import psutil
import pytest
from chat_material import chat, command, make_run

from qlora_tui.chat.client import ChatClient, Choice
from qlora_tui.chat.protocol import Sampling
from qlora_tui.chat.session import ChatSession
from qlora_tui.errors import EnvironmentProblem, ExitCode, QloraError, UsageError
from qlora_tui.runs import store

PATIENCE_S = 120.0


@pytest.fixture(scope="module", autouse=True)
def runs(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QLORA_TUI_RUNS", str(tmp_path_factory.mktemp("runs")))
        make_run("drawn")
        yield


def test_a_pipe_gets_the_answer_alone():
    done = chat("drawn", "--max-tokens", "8", question="Where does\nAnna live?\n")
    assert done.returncode == 0
    assert done.stdout.strip()
    assert done.stdout.endswith("\n")
    assert all(line.startswith("8 tokens") and "cut at max_tokens" in line for line in done.stderr.splitlines())


@pytest.mark.long
def test_a_program_gets_the_answer_as_json():
    plain = chat("drawn", "--max-tokens", "8", "--base", question="Where does\nAnna live?\n")
    told = json.loads(
        chat("drawn", "--max-tokens", "8", "--base", "--json", question="Where does\nAnna live?\n").stdout
    )
    assert told["question"] == "Where does\nAnna live?"
    assert told["answer"].strip() == plain.stdout.strip()
    assert (told["side"], told["context_max_tokens"]) == ("base", 512)
    assert told["tokens"] <= 8


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["nobody"], ExitCode.NOT_FOUND, "no run named 'nobody'"),
        (["drawn", "--checkpoint", "7"], ExitCode.NOT_FOUND, "no checkpoint of step 7"),
        (["drawn", "--temperature", "9"], ExitCode.USAGE, "temperature should be less than or equal to 5"),
        (["drawn", "--device", "gpu"], ExitCode.USAGE, "no such device"),
        (["unfinished"], ExitCode.CONFLICT, "no finished adapter yet: it is created"),
        (["unfinished", "--checkpoint", "5"], ExitCode.CONFLICT, "not whole: it is incomplete"),
    ],
)
def test_what_cannot_be_chatted_with_is_said_before_anything_is_loaded(arguments, code, says):
    with suppress(QloraError):
        make_run("unfinished", finished=False, checkpoint=5)
    done = chat(*arguments, question="hello")
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (store.find("unfinished").chats).exists()


def test_an_empty_pipe_is_no_question():
    done = chat("drawn", question=" \n")
    assert done.returncode == ExitCode.USAGE
    assert "no question on stdin" in done.stderr


def test_one_process_answers_a_whole_conversation():
    """Both sides, their histories, a stopped answer, a refused one, and the file."""
    run = store.find("drawn")
    with ChatClient(Choice(run)) as client:
        session = ChatSession(client, Sampling(temperature=0, max_tokens=8), seed=5)
        assert [stage.kind for stage in session.loading()][-1] in ("stage", "notice")
        session.answer_with("base", "adapter")
        sides = [message.side for message in session.ask("Where does Anna live?") if message.kind == "done"]
        assert sides == ["base", "adapter"]
        answers = session.conversation.turns[0].answers
        assert answers["base"].text != answers["adapter"].text
        session.answer_with("adapter")
        (done,) = [message for message in session.ask("And Bert?") if message.kind == "done"]
        assert done.reused_tokens > 0
        _stop_after_first_piece(session)
        (failed,) = [message for message in session.ask("Anna " * 2000) if message.kind == "failed"]
        assert failed.exit_code == UsageError.exit_code
        assert [turn.question for turn in session.conversation.turns] == [
            "Where does Anna live?",
            "And Bert?",
            "Go on.",
        ]
        list(session.retry())
        assert len(session.conversation.turns) == 3
        saved = json.loads(session.save("talk").read_text())
        assert saved["turns"][0]["answers"]["adapter"]["text"] == answers["adapter"].text
        pid = client.pid
    assert not psutil.pid_exists(pid)
    assert (run.chats / "stdio.log").exists()


def _stop_after_first_piece(session: ChatSession) -> None:
    session.sampling = Sampling(temperature=5, top_p=1, max_tokens=400)
    text = ""
    for message in session.ask("Go on."):
        if message.kind == "token":
            text += message.text
            session.cancel()
    answer = session.conversation.turns[-1].answers["adapter"]
    assert (answer.reason, answer.text) == ("cancelled", text)
    assert 0 < answer.tokens < 400


def test_a_process_that_is_killed_is_named_and_not_waited_for():
    with ChatClient(Choice(store.find("drawn"))) as client:
        os.kill(client.pid, signal.SIGKILL)
        with pytest.raises(EnvironmentProblem, match="killed by signal 9"):
            list(ChatSession(client, Sampling()).loading())
        assert not client.alive


PARENT = """
import sys
from qlora_tui.chat.client import ChatClient, Choice
from qlora_tui.runs import store
client = ChatClient(Choice(store.find("drawn")))
print(client.pid, flush=True)
client.receive()
sys.stdin.read()
"""


def test_nothing_is_left_when_the_parent_is_killed():
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        assert child.is_running()
        parent.kill()
    gone, _ = psutil.wait_procs([child], timeout=PATIENCE_S)
    assert gone == [child]


LISTENER = """
import signal, sys
from qlora_tui.engine.chat import Line
Line(sys.stdin.buffer, 1).listen()
signal.pause()
"""


def test_a_parent_that_dies_in_the_middle_of_a_question_leaves_nothing_behind():
    with subprocess.Popen([sys.executable, "-c", LISTENER], stdin=subprocess.PIPE) as child:
        try:
            child.communicate(b'{"kind": "ask", "messa', timeout=PATIENCE_S)
        finally:
            child.kill()
    assert child.returncode == ExitCode.OK


class Terminal:
    """A person at a terminal: types, presses Ctrl-C, and waits for what the screen shows."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self._screen = pty.fork()
        if self.pid == 0:
            os.execvp(sys.executable, command(*arguments))
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def wait_for(self, text: str, patience_s: float = PATIENCE_S) -> str:
        """Wait until the screen shows `text`; returns what was shown before it and forgets both."""
        deadline_s = time.monotonic() + patience_s
        while text not in self.shown:
            assert time.monotonic() < deadline_s, f"{text!r} did not come:\n{self.shown}"
            if select.select([self._screen], [], [], 1.0)[0]:
                self.shown += os.read(self._screen, 65536).decode("utf-8", "replace")
        before, _, self.shown = self.shown.partition(text)
        return before

    def interrupt_until(self, text: str) -> None:
        """Press Ctrl-C, and again when nothing follows: one while the prompt is drawn counts with the next."""
        for _ in range(20):
            self.type("\x03")
            with suppress(AssertionError):
                self.wait_for(text, patience_s=5.0)
                return
        raise AssertionError(f"{text!r} did not come:\n{self.shown}")

    def leave(self) -> int:
        """Press Ctrl-C, and again when nothing follows, until the program has ended; its exit code."""
        with suppress(OSError):
            self.type("\x03")
            while not select.select([self._screen], [], [], 5.0)[0] or os.read(self._screen, 65536):
                if not select.select([self._screen], [], [], 5.0)[0]:
                    self.type("\x03")
        os.close(self._screen)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_at_a_terminal_ctrl_c_stops_the_answer_and_keeps_its_text():
    terminal = Terminal("drawn", "--temperature", "5", "--top-p", "1", "--seed", "1")
    terminal.wait_for("/help lists the commands.")
    terminal.type("/sistem x\n")
    terminal.wait_for("Did you mean '/system'?")
    terminal.type("/set max_tokens 450\n")
    terminal.wait_for("max_tokens = 450")
    terminal.wait_for("> ")
    terminal.type("Hello\n")
    terminal.wait_for("Hello\r\n")
    time_to_stop = terminal.wait_for(" ")
    terminal.type("\x03")
    shown = time_to_stop + terminal.wait_for("tokens/s")
    assert "KeyboardInterrupt" not in shown
    assert terminal.wait_for("\n").rstrip().rstrip("\x1b[0m").endswith("stopped")
    terminal.type("/save kept\n")
    terminal.wait_for("kept.json")
    terminal.interrupt_until("Ctrl-C again leaves")
    assert terminal.leave() == 0
    saved = json.loads((store.find("drawn").chats / "kept.json").read_text())
    answer = saved["turns"][0]["answers"]["adapter"]
    assert answer["reason"] == "cancelled"
    assert 0 < answer["tokens"] < 450
    assert answer["text"]
