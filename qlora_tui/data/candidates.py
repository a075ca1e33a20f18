"""The readings that the columns of a source allow, each with its score and evidence."""

from dataclasses import dataclass
from itertools import permutations

from qlora_tui.config.data import ColumnMap, Format
from qlora_tui.data.column_profile import ColumnProfile, ValueKind
from qlora_tui.data.unused_columns import is_metadata

Columns = dict[str, ColumnProfile]

_TURN_NAMES = ("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "turns")
_PROMPT_NAMES = (
    "instruction", "prompt", "question", "query", "input", "inputs", "user", "human", "q", "problem",
)  # fmt: skip
_RESPONSE_NAMES = (
    "response", "output", "outputs", "answer", "completion", "target", "targets", "assistant", "reply", "a",
    "solution", "gpt", "bot",
)  # fmt: skip
_CONTEXT_NAMES = ("input", "context")
_INSTRUCTIONS = {"instruction", "question"}
"""Prompt columns that an "input" column can accompany."""

_HISTORY_NAMES = ("history",)
_SYSTEM_NAMES = ("system", "system_prompt", "system_message")
_TOOL_NAMES = ("tools", "functions")
_TEXT_NAMES = ("text", "content", "document", "passage", "story", "body", "sentence")
_TURNS_SCORE, _PAIR_SCORE, _PREFERENCE_SCORE, _MARKED_SCORE, _TEXT_SCORE = 0.99, 0.9, 0.85, 0.9, 0.7
_ALPACA_SCORE = 0.95
_UNNAMED_SCORE = 0.4
_UNUSUAL_NAME_LOSS = 0.05
_ON_REQUEST_SCORE = 0.1
"""Of readings that are only meant when the format is named by hand."""

_PAIR_FORMATS: tuple[Format, ...] = ("alpaca", "prompt-completion", "input-output", "two-column")
_MARKED: tuple[Format, ...] = ("guanaco", "guanaco-turns", "chip2")
_LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Candidate:
    format: Format
    columns: ColumnMap
    score: float
    evidence: list[str]

    def used(self) -> set[str]:
        """Names of the columns it reads."""
        return set(self.columns.model_dump(exclude_none=True).values())

    def shown(self) -> str:
        return ", ".join(f"{field} = {column}" for field, column in self.columns.model_dump(exclude_none=True).items())

    def settings(self) -> dict[str, str | list[str]]:
        """The settings that choose it, by key."""
        columns = self.columns.model_dump(exclude_none=True)
        return {"data.format": self.format, **{f"data.columns.{field}": name for field, name in columns.items()}}


def candidates(columns: Columns, given: ColumnMap) -> list[Candidate]:
    """All readings, in no order. Columns given by hand need no usual name."""
    return [
        *_turn_lists(columns, given),
        *_preferences(columns, given),
        *_pairs(columns, given),
        *_unnamed_pairs(columns, given),
        *_texts(columns, given),
    ]


def expected_kinds(format_name: Format, columns: ColumnMap) -> dict[str, str]:
    """Return the column names, in lower case, that the format would read as a further kind of column."""
    names = {"system": _SYSTEM_NAMES, "tools": _TOOL_NAMES}
    if format_name in _PAIR_FORMATS:
        names |= {"history": _HISTORY_NAMES, "context": ("context",)}
        if (columns.prompt or "").lower() in _INSTRUCTIONS:
            names["context"] = _CONTEXT_NAMES
    elif columns.text is not None:
        return {}
    given = columns.model_dump(exclude_none=True)
    return {name: kind for kind, usual in names.items() if kind not in given for name in usual}


def _seen(profile: ColumnProfile, kind: ValueKind, what: str) -> str:
    return f"{profile.kinds[kind]} of {profile.rows} sampled rows have {what} in {profile.name!r}"


def _named(columns: Columns, names: tuple[str, ...], kind: ValueKind | None = "text") -> str | None:
    """The first column of a usual name whose values are mostly of `kind`."""
    by_name = {name.lower(): name for name in columns}
    for name in names:
        column = by_name.get(name)
        if column is not None and (kind is None or columns[column].share_when_present(kind) >= _LEAST_SHARE):
            return column
    return None


def _extras(columns: Columns, given: ColumnMap) -> dict[str, str | None]:
    return {
        "system": given.system or _named(columns, _SYSTEM_NAMES),
        "tools": given.tools or _named(columns, _TOOL_NAMES, None),
    }


def _pair_extras(columns: Columns, given: ColumnMap) -> dict[str, str | None]:
    """The other columns of a pair: earlier turns, and whether the answer is bad."""
    label = _named(columns, ("label",), "number")
    marked = label is not None and columns[label].truth_values == columns[label].kinds["number"]
    return {
        "history": given.history or _named(columns, _HISTORY_NAMES, "list"),
        "label": given.label or (label if marked else None),
        **_extras(columns, given),
    }


def _turn_lists(columns: Columns, given: ColumnMap) -> list[Candidate]:
    found = []
    kinds: tuple[tuple[ValueKind, Format, str], ...] = (
        ("messages", "messages", "a list of role/content turns"),
        ("sharegpt", "sharegpt", "a list of from/value turns"),
    )
    sides = {"prompt", "completion", "chosen", "rejected", given.chosen, given.rejected} - {given.messages}
    for profile in columns.values():
        usual = profile.name == given.messages or profile.name.lower() in _TURN_NAMES
        for kind, format_name, what in kinds:
            if profile.share(kind) < _LEAST_SHARE or profile.name in sides:
                continue
            evidence = [_seen(profile, kind, what)]
            if profile.roles:
                evidence.append("roles seen: " + ", ".join(role for role, _ in profile.roles.most_common(8)))
            if profile.unused_keys:
                evidence.append(
                    "not used of the turns: " + ", ".join(key for key, _ in profile.unused_keys.most_common(8))
                )
            score = (_TURNS_SCORE if usual else _TURNS_SCORE - _UNUSUAL_NAME_LOSS) * profile.share(kind)
            mapped = ColumnMap(messages=profile.name, **_extras(columns, given))
            found.append(Candidate(format_name, mapped, score, evidence))
    return found


def _preferences(columns: Columns, given: ColumnMap) -> list[Candidate]:
    chosen = given.chosen or _named(columns, ("chosen",), None)
    if chosen is None or columns[chosen].main_kind() not in {"text", "messages", "sharegpt"}:
        return []
    rejected = given.rejected or _named(columns, ("rejected",), None)
    profile = columns[chosen]
    kind = profile.main_kind()
    marked = profile.marked["hh-rlhf"] / profile.rows >= _LEAST_SHARE
    prompt = given.prompt or (None if marked else _named(columns, ("prompt", "question", "instruction"), None))
    found = []
    if marked or prompt is not None or kind != "text":
        what = "a Human:/Assistant: conversation" if marked else "the preferred answer"
        evidence = [_seen(profile, kind, what)]
        evidence += [f"{rejected!r} holds the other side, which is kept and not trained"] if rejected else []
        mapped = ColumnMap(chosen=chosen, rejected=rejected, prompt=prompt, **_extras(columns, given))
        found.append(Candidate("preference", mapped, _PREFERENCE_SCORE * profile.share(kind), evidence))
    if kind == "text" and (prompt is None or given.chosen):
        evidence = [_seen(profile, "text", "the whole preferred conversation")]
        score = _PREFERENCE_SCORE - 2 * _UNUSUAL_NAME_LOSS if marked else _UNNAMED_SCORE
        found.append(Candidate("hh-rlhf", ColumnMap(chosen=chosen), score * profile.share("text"), evidence))
    return found


def _pairs(columns: Columns, given: ColumnMap) -> list[Candidate]:
    prompts = [given.prompt] if given.prompt else _all_named(columns, _PROMPT_NAMES)
    responses = [given.response] if given.response else _all_named(columns, _RESPONSE_NAMES)
    return [
        candidate
        for prompt in prompts
        for response in responses
        if prompt != response
        for candidate in _readings(columns, given, prompt, response)
    ]


def _all_named(columns: Columns, names: tuple[str, ...]) -> list[str]:
    return [
        name for name, profile in columns.items() if name.lower() in names and profile.speaking_share() >= _LEAST_SHARE
    ]


def _readings(columns: Columns, given: ColumnMap, prompt: str, response: str) -> list[Candidate]:
    asked, answered = columns[prompt], columns[response]
    share = min(asked.speaking_share(), answered.speaking_share())
    if asked.main_kind() == answered.main_kind() == "number":
        share = 0.0  # A table of figures asks nothing.
    evidence = [
        _seen(asked, asked.main_kind(), "the prompt"),
        _seen(answered, answered.main_kind(), "the answer"),
    ]
    extras = _pair_extras(columns, given)
    label = extras["label"]
    if label is not None and columns[label].falsehoods:
        evidence.append(
            f"{columns[label].falsehoods} of {answered.rows} sampled rows have an answer that {label!r} marks as bad "
            "(false); they are not trained"
        )
    if answered.main_kind() == "number":
        evidence.append(f"the numbers in {response!r} are trained as text")
    others = {name: profile for name, profile in columns.items() if name not in {prompt, response}}
    context = given.context
    if context is None:
        context = _named(others, _CONTEXT_NAMES if prompt.lower() in _INSTRUCTIONS else ("context",))
    usual = _usual_format(prompt.lower(), response.lower(), context)
    found = []
    for format_name in _PAIR_FORMATS:
        belongs = context if format_name == "alpaca" or given.context else None
        mapped = ColumnMap(prompt=prompt, response=response, context=belongs, **extras)
        more = [f"{belongs!r} holds text that belongs to the prompt"] if belongs else []
        score = _ON_REQUEST_SCORE
        if format_name == usual:
            score = _ALPACA_SCORE if usual == "alpaca" else _PAIR_SCORE
        found.append(Candidate(format_name, mapped, score * share, [*evidence, *more]))
    return found


def _usual_format(prompt: str, response: str, context: str | None) -> Format:
    if context is not None or prompt == "instruction":
        return "alpaca"
    if (prompt, response) == ("prompt", "completion"):
        return "prompt-completion"
    return "input-output" if (prompt, response) == ("input", "output") else "two-column"


def _unnamed_pairs(columns: Columns, given: ColumnMap) -> list[Candidate]:
    """Exactly two text columns whose names say nothing: both orders, neither sure."""
    texts = [name for name, profile in columns.items() if profile.share("text") >= _LEAST_SHARE]
    if len(texts) > 2:
        texts = [name for name in texts if not is_metadata(name)]
    if len(texts) != 2:
        return []
    found = []
    for order, (prompt, response) in enumerate(permutations(texts, 2)):
        known = (given.prompt == prompt) or (given.response == response)
        score = (_PAIR_SCORE if known else _UNNAMED_SCORE - 0.01 * order) * columns[response].share("text")
        evidence = [f"two columns of text, {prompt!r} and {response!r}"]
        found.append(Candidate("two-column", ColumnMap(prompt=prompt, response=response), score, evidence))
    return found


def _texts(columns: Columns, given: ColumnMap) -> list[Candidate]:
    texts = [name for name, profile in columns.items() if profile.share("text") >= _LEAST_SHARE]
    found = []
    for name in texts:
        profile = columns[name]
        marked = _marked_texts(profile)
        found += marked
        if name == given.text or name.lower() in _TEXT_NAMES or len(texts) == 1:
            usual = name == given.text or name.lower() in _TEXT_NAMES or len(columns) == 1
            score = _PAIR_SCORE if name == given.text else _TEXT_SCORE if usual else _UNNAMED_SCORE
            evidence = [_seen(profile, "text", "text without known turns")]
            found.append(Candidate("text", ColumnMap(text=name), score * profile.share("text"), evidence))
            seen = {one.format for one in marked}
            found += [
                Candidate(one, ColumnMap(text=name), _ON_REQUEST_SCORE, evidence) for one in _MARKED if one not in seen
            ]
    return found


def _marked_texts(profile: ColumnProfile) -> list[Candidate]:
    mapped = ColumnMap(text=profile.name)
    found = []
    guanaco = profile.marked["guanaco"] / profile.rows
    if guanaco >= _LEAST_SHARE:
        seen = f"{profile.marked['guanaco']} of {profile.rows} sampled rows have '### Human:' turns in {profile.name!r}"
        whole = "kept whole, as the QLoRA paper does; format guanaco-turns trains the answers only"
        found.append(Candidate("guanaco", mapped, _MARKED_SCORE * guanaco, [seen, whole]))
        found.append(Candidate("guanaco-turns", mapped, (_MARKED_SCORE - 0.1) * guanaco, [seen]))
    chip2 = profile.marked["chip2"] / profile.rows
    if chip2 >= _LEAST_SHARE:
        seen = f"{profile.marked['chip2']} of {profile.rows} sampled rows have '<human>:' turns in {profile.name!r}"
        found.append(Candidate("chip2", mapped, _MARKED_SCORE * chip2, [seen]))
    return found
