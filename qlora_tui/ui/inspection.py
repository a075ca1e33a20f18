"""Looking into data from the screen: a child process that answers in JSON lines, as `data inspect` uses it."""

import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator
from typing import Any

from qlora_tui.config.run import RunConfig
from qlora_tui.errors import QloraError

Event = dict[str, Any]

CHILD = "qlora_tui.engine.inspect_data"
_LONGEST_LINE_BYTES = 1 << 28
"""Of one event: rows come with every token of theirs."""


class Inspection:
    """One look at the data of a configuration. Ended by leaving `events`, whatever the reason."""

    def __init__(self, config: RunConfig, *, shown_rows: int, quick: bool, check: bool = False) -> None:
        """`check`: report only how the shown rows are trained and prompted."""
        self._request = {
            "config": config.model_dump(mode="json"),
            "shown_rows": shown_rows,
            "quick": quick,
            "picks": not check,
            "check": check,
        }
        self._child: asyncio.subprocess.Process | None = None

    async def events(self) -> AsyncIterator[Event]:
        """What the child says, in order. "download" is a question that `answer` answers; "error" is the last event.

        Raises QloraError when the child ends without having said why.
        """
        with tempfile.TemporaryFile("w+b") as narration:
            self._child = child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                CHILD,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=narration,
                limit=_LONGEST_LINE_BYTES,
            )
            try:
                await self._tell(self._request)
                assert child.stdout is not None
                async for line in child.stdout:
                    event: Event = json.loads(line)
                    yield event
                    if event["event"] == "error":
                        return
                if await child.wait() != 0:
                    narration.seek(0)
                    last = narration.read().decode(errors="replace").strip().splitlines()[-1:]
                    raise QloraError(f"looking into the data failed: {(last or [f'code {child.returncode}'])[0]}")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    child.terminate()
                await child.wait()

    async def answer(self, agreed: bool) -> None:
        """Say yes or no to the download that was asked for."""
        await self._tell(agreed)

    async def _tell(self, content: Any) -> None:
        assert self._child is not None and self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # It says why on its other pipe.
            self._child.stdin.write(json.dumps(content).encode() + b"\n")
            await self._child.stdin.drain()
