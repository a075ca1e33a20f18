"""Tasks of lm-eval, measured by its own code on the model as it is loaded here."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from qlora_tui.engine.evaluation.pair import Pair
from qlora_tui.engine.session import finite
from qlora_tui.errors import EnvironmentProblem, NotFoundError, nearest
from qlora_tui.evaluation.tasks import HarnessTask


def check() -> None:
    """Raise EnvironmentProblem when lm-eval is not installed."""
    if find_spec("lm_eval") is None:
        raise EnvironmentProblem("lm-eval is not installed", hint="pip install 'qlora-tui[eval]'")


def measure(pair: Pair, task: HarnessTask, say: Callable[[str], None]) -> dict[str, Any]:
    """lm-eval's `results` of each side, None for a number that is not finite.

    Raises NotFoundError for a task that lm-eval does not have.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=task.include)
    for name in task.tasks:
        if not manager.match_tasks([name]):
            raise NotFoundError(f"lm-eval has no task {name!r}", hint=nearest(name, list(manager.all_tasks)))
    found: dict[str, Any] = {"tasks": list(task.tasks)}
    for side in pair.sides:
        say(f"lm-eval, {side}")
        with pair.side(side) as model:
            wrapped = HFLM(
                pretrained=model,
                tokenizer=pair.tokenizer,
                batch_size=task.batch_rows,
                max_length=pair.context_max_tokens,
            )
            outcome = simple_evaluate(
                wrapped,
                tasks=list(task.tasks),
                num_fewshot=task.shots,
                limit=task.limit,
                task_manager=manager,
                log_samples=False,
                bootstrap_iters=0,
            )
        found[side] = {
            name: {
                key.removesuffix(",none"): finite(value) if isinstance(value, float) else value
                for key, value in values.items()
                if isinstance(value, int | float) and key != "sample_len"
            }
            for name, values in outcome["results"].items()
        }
    return found
