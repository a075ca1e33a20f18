"""What a judge's text says: which answer is better, or two scores. What cannot be read is unparsed, never a guess.

Judges were asked to end with a verdict, but they also begin with it, wrap it in markup, or write it as a sentence in
the language of the question. Two readings that contradict each other make a text unparsed.
"""

import re

from qlora_tui.arena.ratings import Outcome

_BEST = (
    r"better|best|winner|verdict|decision|choice|conclusion|prefer\w*|"
    r"mejor|ganador\w*|veredicto|elecci[oó]n|meilleure?|gagnante?|choix|bess?ere?|beste|gewinner|urteil|"
    r"melhor|vencedor\w*|migliore?|vincitore|millor|guanyador\w*|"
    r"лучш\w*|победител\w*|вердикт|вывод|更好|最佳|最好|胜者|获胜|结论|判断|勝者|判定|優れ\w*|คำตอบที่ดีกว่า|ผู้ชนะ"
)
_ANSWER = (
    r"answer|response|assistant|model|option|respuesta|asistente|r[ée]ponse|assistante?|antwort|assistent|resposta|"
    r"risposta|ответ\w*|ассистент\w*|вариант\w*|回答|答案|助手|アシスタント|คำตอบ"
)
_TIE = (
    r"tie|draw|equal(?:ly good)?|both are equally \w+|empate|igual(?:es)?|[ée]galit[ée]|unentschieden|gleich gut|"
    r"gleichwertig|pareggio|empat|ничья|равны|одинаков\w*|平局|平手|不分上下|同样好|引き分け|同等|เสมอ"
)
_LONE = re.compile(rf"^\W*(?:(?:{_ANSWER})\W*)?([123])\W*$", re.IGNORECASE)
_LONE_TIE = re.compile(rf"^\W*(?:{_TIE})\W*$", re.IGNORECASE)
_LABELLED = re.compile(
    rf"(?:verdict|decision|score|result|final answer|{_BEST})[^\n0-9]{{0,40}}?[:：=是为為]\s*\W*"
    rf"(?:(?:{_ANSWER})\W*)?([123])(?![0-9.,/])",
    re.IGNORECASE,
)
_LABELLED_TIE = re.compile(rf"(?:{_BEST})[^\n0-9]{{0,20}}?[:：=]\s*\W*(?:it'?s a |a )?(?:{_TIE})\b", re.IGNORECASE)
_THAN = r"(?!\s*(?:than|que|als|do que|di|чем|比|より|กว่า)\b)"
_SENTENCE = re.compile(
    rf"(?:{_ANSWER})\s*#?([12])(?![0-9])[^\n.。0-9]{{0,40}}?(?<!not )(?<!n't )(?:{_BEST})", re.IGNORECASE
)
_SENTENCE_REVERSED = re.compile(
    rf"(?:{_BEST}){_THAN}[^\n.。0-9]{{0,45}}?(?:{_ANSWER})\s*#?([12])(?![0-9])", re.IGNORECASE
)
_CHOSEN = re.compile(
    r"(?:choose|chose|select|pick|opt for|elijo|elegir[íi]a|escojo|opto por|selecciono|choisis|w[äa]hle|escolho|scelgo|"
    rf"trio|выбираю|выбрал\w*|选择|選択|選ぶ|เลือก)\s*(?:the\s+|la\s+|l[’'])?(?:(?:{_ANSWER})(?:\s+of\s+(?:{_ANSWER}))?|opci[oó]n|opzione|op[çc][ãa]o|"
    r"n[úu]mero|number|вариант|选项)?\W{0,3}([123])(?![0-9.]\d|[0-9])",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[*_`#>~]+|\\boxed|</?\w+>")
_NUMBER = r"(10(?:\.0+)?|[0-9](?:\.[0-9]+)?)(?:\s*/\s*10)?"
_TWO = re.compile(rf"^\W*{_NUMBER}\s*[,;/| ]\s*{_NUMBER}\W*$")
_TUPLE = re.compile(rf"[(\[]\s*{_NUMBER}\s*[,;]\s*{_NUMBER}\s*[)\]]")
_OF_ANSWER = re.compile(
    rf"(?:{_ANSWER})\s*#?([12])\W{{1,6}}(?:(?:a\s+)?score(?:\s+of)?\W{{1,3}})?{_NUMBER}(?![0-9A-Za-z(]|\s*[-+*=^])",
    re.IGNORECASE,
)
_LAST_LINES = 3

_FOR_THE_JUDGE = (
    r"(?:ignore|disregard|forget)\s+(?:all\s+|any\s+)?(?:of\s+)?(?:the\s+|your\s+)?(?:previous|prior|above|earlier)\s+"
    r"(?:instruction|prompt|text|rule)",
    r"(?:you are|act as)\s+(?:now\s+)?(?:the|a)\s+(?:judge|grader|evaluator|referee)",
    r"(?:final\s+)?verdict\s*[:=]\s*[123]",
    r"(?:choose|pick|prefer|rate|vote for|select)\s+(?:this|my)\s+(?:answer|response)",
    r"\b(?:answer|assistant|response)\s*[12]\s+(?:is|wins|must be)\s+(?:clearly\s+|the\s+)*"
    r"(?:better|best|winner|preferred)",
    r"give\s+(?:this|me|it)\s+(?:a\s+)?(?:10|ten)\b",
    r"\bsystem\s+prompt\b",
    r"\[\s*(?:end|begin|start)\s+of\s+answer",
    r"ignor[ae]\s+(?:las|les|as|todas)\s+\w*\s*instruc",
    r"ignorie?re?\s+(?:alle|die)\s+\w*\s*anweisung",
    r"忽略(?:之前|以上|上述)",
    r"игнорируй",
)
INJECTION = re.compile("|".join(_FOR_THE_JUDGE), re.IGNORECASE)
"""What in an answer speaks to the judge instead of the person who asked."""


def three_class(text: str) -> Outcome:
    """1, 2, tie or unparsed. A verdict of its own line counts before one in a sentence, the last before the first."""
    lines = [line for line in (_plain(raw) for raw in text.splitlines()) if line.strip(" .-|")]
    if not lines:
        return "unparsed"
    for line in (lines[-1], lines[0]):
        lone = _of_own(line)
        if lone:
            return lone
    for line in reversed(lines[-_LAST_LINES:]):
        found = _in_sentence(line)
        if found:
            return found
    outcomes = {outcome for line in lines for outcome in [_labelled(line)] if outcome}
    first = _in_sentence(lines[0])
    if len(outcomes) == 1:
        return outcomes.pop()
    return first if not outcomes and first else "unparsed"


def _of_own(line: str) -> Outcome | None:
    lone = _LONE.match(line)
    if lone:
        return _outcome(lone[1])
    if _LONE_TIE.match(line):
        return "tie"
    return _labelled(line)


def _labelled(line: str) -> Outcome | None:
    found: set[Outcome] = {_outcome(match[1]) for match in _LABELLED.finditer(line)}
    if _LABELLED_TIE.search(line):
        found.add("tie")
    return found.pop() if len(found) == 1 else None


def _in_sentence(line: str) -> Outcome | None:
    """The answer that the line prefers; unparsed when it prefers both."""
    patterns = (_SENTENCE, _SENTENCE_REVERSED, _CHOSEN)
    found = {_outcome(match[1]) for pattern in patterns for match in pattern.finditer(line)}
    if len(found) > 1:
        return "unparsed"
    return found.pop() if found else None


def _outcome(digit: str) -> Outcome:
    outcomes: dict[str, Outcome] = {"1": "1", "2": "2", "3": "tie"}
    return outcomes[digit]


def ten_point(text: str) -> tuple[float, float] | None:
    """The two scores, from 0 to 10: a line of two numbers first or last, a pair in brackets, or one named for each."""
    lines = [line for line in (_plain(raw) for raw in text.splitlines()) if line.strip()]
    if not lines:
        return None
    for line in (lines[0], lines[-1]):
        two = _TWO.match(line)
        if two:
            return float(two[1]), float(two[2])
    named = {which: float(score) for which, score in _OF_ANSWER.findall(_plain(text))}
    if len(named) == 2:
        return named["1"], named["2"]
    pairs = _TUPLE.findall("\n".join(lines[-_LAST_LINES:]))
    return (float(pairs[-1][0]), float(pairs[-1][1])) if pairs else None


def _plain(line: str) -> str:
    return _MARKUP.sub("", line)


def instructs_the_judge(answer: str) -> bool:
    """Whether an answer holds words that are meant for a judge. Such answers are judged and counted."""
    return INJECTION.search(answer) is not None
