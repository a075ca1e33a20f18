"""How close an answer is to the expected one: exact match, token F1, ROUGE-L and chrF."""

import re
import string
from collections import Counter
from functools import cache
from importlib.util import find_spec
from typing import Any

from qlora_tui.errors import EnvironmentProblem

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(answer: str, expected: str) -> float:
    """1 when the two are equal but for blanks around them, else 0."""
    return float(answer.strip() == expected.strip())


def token_f1(answer: str, expected: str) -> float:
    """Harmonic mean of precision and recall over words, as SQuAD counts: no case, punctuation or articles."""
    given, wanted = _words(answer), _words(expected)
    if not given or not wanted:
        return float(given == wanted)
    shared = sum((Counter(given) & Counter(wanted)).values())
    return 2 * shared / (len(given) + len(wanted)) if shared else 0.0


def _words(text: str) -> list[str]:
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def rouge_l(answer: str, expected: str) -> float:
    """ROUGE-L F-measure of the rouge-score package, without stemming. Raises EnvironmentProblem without it."""
    return float(_rouge().score(expected, answer)["rougeL"].fmeasure)


def chr_f(answer: str, expected: str) -> float:
    """chrF of one sentence by sacrebleu, from 0 to 1. Raises EnvironmentProblem without it."""
    return float(_sacrebleu().sentence_chrf(answer, [expected]).score) / 100


@cache
def _rouge() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _missing("rouge-score") from error
    return RougeScorer(["rougeL"])


@cache
def _sacrebleu() -> Any:
    try:
        import sacrebleu
    except ImportError as error:
        raise _missing("sacrebleu") from error
    return sacrebleu


def _missing(package: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"{package} is not installed", hint="pip install 'qlora-tui[eval]'")


def left_out() -> list[str]:
    """The scores whose package is not installed."""
    packages = {"rouge_l": "rouge_score", "chrf": "sacrebleu"}
    return [name for name, package in packages.items() if find_spec(package) is None]


def scores(answer: str, expected: str) -> dict[str, float]:
    """Every score there is, by name; ROUGE-L and chrF only where their packages are installed."""
    found = {"exact_match": exact_match(answer, expected), "token_f1": token_f1(answer, expected)}
    for name, score in (("rouge_l", rouge_l), ("chrf", chr_f)):
        try:
            found[name] = score(answer, expected)
        except EnvironmentProblem:
            continue
    return found
