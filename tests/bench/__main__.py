"""`python -m tests.bench [startup] [log] [training] [data]`: all of them, or those named."""

import os
import sys
import tempfile
from importlib import import_module

_ALL = ("startup", "log", "training", "data")


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
