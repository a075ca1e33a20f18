"""The process that answers: `python -m qlora_tui.engine.chat RUN_FOLDER`.

It speaks the chat protocol over stdin and stdout and ends when stdin ends. Whatever libraries print goes to stderr.
"""

import argparse
import os
import queue
import sys
import threading
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

from qlora_tui import limits
from qlora_tui.chat.protocol import Ask, Failed, FromChild, Notice, Stage, encode, read_by_child
from qlora_tui.engine import environment
from qlora_tui.errors import ExitCode, QloraError
from qlora_tui.redaction import redacted, traceback_of
from qlora_tui.runs.store import RunFolder


class Line:
    """The connection to the parent."""

    def __init__(self, incoming: BinaryIO, outgoing: int) -> None:
        self._incoming = incoming
        self._outgoing = outgoing
        self._asks: queue.SimpleQueue[Ask] = queue.SimpleQueue()
        self._cancelled_id = 0

    def listen(self) -> None:
        """Start to follow the parent in a thread, which ends the process when the parent is gone."""
        threading.Thread(target=self._follow, name="parent", daemon=True).start()

    def send(self, message: FromChild) -> None:
        """Tell the parent something; a parent that is gone ends this process."""
        rest = encode(message)
        try:
            while rest:
                rest = rest[os.write(self._outgoing, rest) :]
        except BrokenPipeError:
            os._exit(ExitCode.OK)

    def next_ask(self) -> Ask:
        """Wait for a question."""
        return self._asks.get()

    def is_cancelled(self, ask_id: int) -> bool:
        """Whether the parent wants no more of this answer. Ids rise, so a late message stops no later answer."""
        return self._cancelled_id >= ask_id

    def _follow(self) -> None:
        try:
            for text in self._incoming:
                message = read_by_child(text)
                if isinstance(message, Ask):
                    self._asks.put(message)
                else:
                    self._cancelled_id = max(self._cancelled_id, message.id)
        finally:  # a parent that died in the middle of a message leaves a line that is none
            os._exit(ExitCode.OK)


def main() -> int:
    options = _parse()
    line = Line(sys.stdin.buffer, os.dup(1))
    # What libraries print must not come between the messages.
    os.dup2(2, 1)
    line.listen()
    limits.last_words = lambda error: line.send(_failed(error, fatal=True))
    environment.prepare(allow_download=options.allow_download)
    environment.choose_gpu(options.device)
    try:
        _serve(line, options)
    except QloraError as error:
        line.send(_failed(error, fatal=True))
        return error.exit_code
    except Exception as error:  # the process's edge: anything else is a fault of ours and becomes a message
        print(traceback_of(error), file=sys.stderr, flush=True)
        hint = f"The traceback is in {options.run.chats / 'stdio.log'}."
        message = redacted(f"internal error: {type(error).__name__}: {error}")
        line.send(Failed(message=message, hint=hint, fatal=True))
        return ExitCode.INTERNAL


def _failed(error: QloraError, *, fatal: bool = False) -> Failed:
    return Failed(message=error.message, hint=error.hint, exit_code=error.exit_code, fatal=fatal)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m qlora_tui.engine.chat")
    parser.add_argument("run", type=lambda text: RunFolder(Path(text)))
    parser.add_argument("--checkpoint", type=int)
    parser.add_argument("--base-only", action="store_true")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--allow-download", action="store_true")
    return parser.parse_args()


def _serve(line: Line, options: argparse.Namespace) -> NoReturn:
    line.send(Stage(text="importing PyTorch"))
    environment.import_libraries("torch", "transformers", "bitsandbytes", "peft")
    from qlora_tui.engine import chat_model
    from qlora_tui.engine.chat_answer import Answerer

    loaded = chat_model.load(
        options.run,
        checkpoint=options.checkpoint,
        base_only=options.base_only,
        device=options.device,
        on_stage=lambda text: line.send(Stage(text=text)),
        on_notice=lambda text: line.send(Notice(text=text)),
    )
    answerer = Answerer(loaded)
    line.send(loaded.ready)
    while True:
        ask = line.next_ask()
        try:
            answerer.answer(ask, send=line.send, is_cancelled=partial(line.is_cancelled, ask.id))
        except QloraError as error:
            line.send(_failed(error))


if __name__ == "__main__":
    sys.exit(main())
