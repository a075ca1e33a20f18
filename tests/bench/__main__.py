"""`python -m tests.bench [NAME...]`: all of the benchmarks below, or those named."""

import os
import sys
import tempfile
from importlib import import_module

_ALL = (
    "startup", "workbench", "log", "training", "data", "run_place", "elo", "generation", "estimate", "paper",
    "simulation",
)  # fmt: skip


def main() -> None:
    unknown = sorted(set(sys.argv[1:]) - set(_ALL))
    if unknown:
        raise SystemExit(f"no benchmark named {', '.join(unknown)}; there are {', '.join(_ALL)}")
    with tempfile.TemporaryDirectory() as home:
        os.environ["QLORA_TUI_HOME"] = home
        for name in sys.argv[1:] or _ALL:
            for ratio in import_module(f"tests.bench.{name}").measure():
                print(ratio.line(), flush=True)


if __name__ == "__main__":
    main()
