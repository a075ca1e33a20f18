"""A chat process without torch: speaks the real protocol and answers with what it was asked, in capitals.

FAKE_CHAT decides more: "mute" is never done with loading, "slow" says one word and waits to be cancelled, "die" ends in
the middle of an answer, "judge" gives verdicts as the judge server does, "judge 5" dies at the sixth question, "judge
hold 3" is slow from the fourth on, "refuse" finds every question too long.
"""

import os
import sys

import judge_server

from qlora_tui.chat.protocol import (
    Ask,
    Cancel,
    Done,
    Failed,
    FromChild,
    Ready,
    Side,
    Stage,
    Token,
    encode,
    read_by_child,
)


def main() -> None:
    behaviour = os.environ.get("FAKE_CHAT", "")
    send(Stage(text="loading the parrot"))
    if behaviour == "mute":
        sys.stdin.buffer.read()
        return
    sides: tuple[Side, ...] = ("base",) if "--base-only" in sys.argv else ("base", "adapter")
    send(Ready(model="parrot", device="cpu", sides=sides, context_max_tokens=128))
    for line in sys.stdin.buffer:
        message = read_by_child(line)
        if isinstance(message, Ask):
            answer(message, behaviour)


def answer(ask: Ask, behaviour: str) -> None:
    if behaviour == "refuse":
        send(Failed(message="the question takes 700 tokens", exit_code=2))
        return
    text = ask.messages[-1].content.upper()
    text = text if ask.side == "adapter" else "BASE " + text
    if behaviour.startswith("judge"):
        text = judge_server.verdict(ask.messages[-1].content)
        *_, last = behaviour.split()
        if last.isdecimal() and ask.id > int(last):
            behaviour = "slow" if "hold" in behaviour else "die"
    words = text.split(" ")
    send(Token(id=ask.id, side=ask.side, text=words[0]))
    if behaviour == "die":
        os._exit(3)
    if behaviour == "slow":
        while not isinstance(read_by_child(sys.stdin.buffer.readline()), Cancel):
            pass
        end(ask, 1, "cancelled")
        return
    for word in words[1:]:
        send(Token(id=ask.id, side=ask.side, text=f" {word}"))
    end(ask, len(words), "stop")


def end(ask: Ask, tokens: int, reason: str) -> None:
    send(
        Done(id=ask.id, side=ask.side, reason=reason, tokens=tokens, tokens_per_s=10.0, reused_tokens=0,
             context_used_tokens=tokens + 5, context_max_tokens=128)
    )  # fmt: skip


def send(message: FromChild) -> None:
    os.write(1, encode(message))


if __name__ == "__main__":
    main()
