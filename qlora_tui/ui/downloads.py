"""What a run would have to download, asked of a child: finding out takes libraries that a screen never loads."""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

from qlora_tui.config.run import RunConfig
from qlora_tui.data.downloads import Download
from qlora_tui.errors import QloraError

CHILD = "qlora_tui.runs.missing"


async def missing_downloads(config: RunConfig) -> list[Download]:
    """The model and the data that are not on this machine; nothing is downloaded here.

    Raises QloraError for what cannot be had. Cancelled: the child is ended.
    """
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(sys.executable, "-m", CHILD, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        answer, narration = await child.communicate(config.model_dump_json().encode())
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
    if not answer:
        last = narration.decode(errors="replace").strip().splitlines()[-1:]
        raise QloraError(f"asking what has to be downloaded failed: {(last or [f'code {child.returncode}'])[0]}")
    found = json.loads(answer)
    if "message" in found:
        raise QloraError(found["message"], hint=found["hint"])
    return [Download(one["what"], one["size_bytes"], Path(one["destination"])) for one in found["downloads"]]
