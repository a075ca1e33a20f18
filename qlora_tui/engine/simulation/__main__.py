"""The dry run as a child process: `python -m qlora_tui.engine.simulation`.

Reads one JSON object from stdin: {"config": RunConfig, "tokens": longest row}, and if wanted "padded" (a row of the
batch is padded; default: more than one row), "gpu" ({"multiprocessors", "major", "minor"}) and "hf_config" (keys of a
config.json, where the model's own is not to be read). Writes one JSON object a line to stdout: {"stage": ...} while it
works, and at last {"result": ...} or {"error": ..., "hint": ..., "exit_code": ...}.
"""

import json
import sys
from typing import Any

from qlora_tui.engine import environment
from qlora_tui.errors import ExitCode, QloraError

_LONGEST_REASON = 300


def main() -> int:
    """Answer one request. Returns the exit code."""
    request = json.load(sys.stdin)
    environment.prepare(allow_download=False)
    environment.choose_gpu("cpu")
    try:
        _tell({"stage": "importing"})
        _tell({"result": _result(request)})
    except QloraError as error:
        _tell({"error": error.message, "hint": error.hint, "exit_code": int(error.exit_code)})
        return error.exit_code
    except Exception as error:
        # Models, PEFT and TRL raise what they like for a combination that they cannot do.
        problem = str(error).strip().partition("\n")[0][:_LONGEST_REASON] or type(error).__name__
        hint = "The estimate without --simulate needs no dry run. Training may fail in the same way."
        _tell({"error": f"the dry run failed: {problem}", "hint": hint, "exit_code": int(ExitCode.MODEL)})
        return ExitCode.MODEL
    return ExitCode.OK


def _tell(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _result(request: dict[str, Any]) -> dict[str, Any]:
    from qlora_tui.config.run import RunConfig
    from qlora_tui.engine.simulation.hf_config import of_model
    from qlora_tui.engine.simulation.report import report
    from qlora_tui.engine.simulation.scratch import Gpu
    from qlora_tui.engine.simulation.simulate import Workload, simulate

    config = RunConfig.model_validate(request["config"])
    tokens = int(request["tokens"])
    packed = config.training.packing
    workload = Workload(
        tokens=tokens,
        gpu=Gpu(**request["gpu"]) if request.get("gpu") else Gpu(),
        padded=bool(request.get("padded", config.training.micro_batch_size > 1 and not packed)),
        packed=packed,
    )
    hf_config = of_model(config.model, request.get("hf_config"))
    found = simulate(config, hf_config, workload, lambda stage: _tell({"stage": stage}))
    return report(config, workload, found)


if __name__ == "__main__":
    sys.exit(main())
