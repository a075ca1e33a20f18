"""The data sets known by name: the instruction sets of the QLoRA work and the bundled one.

Row counts are those of the set's hub card or of the QLoRA paper; licences are those of the hub card, where it has one.
"""

from dataclasses import dataclass, field

from qlora_tui.config.data import ColumnMap, Format, SourceSpec


@dataclass(frozen=True)
class KnownSet:
    title: str
    hub_id: str
    """Empty for what comes with the program."""

    rows: str
    license: str
    format: Format
    columns: ColumnMap = field(default_factory=ColumnMap)
    config: str | None = None
    revision: str | None = None
    data_file: str | None = None
    """The one file of the repository that is the set. Empty: its usual files."""

    note: str = ""
    """What differs from the original qlora.py, and why."""


STARTER_SET = KnownSet(
    "Questions about the starter model's made-up world",
    "",
    "training questions, and held-out ones for evaluation",
    "MIT",
    "messages",
    ColumnMap(messages="messages"),
    note="comes with the program; nothing is downloaded",
)

KNOWN: dict[str, KnownSet] = {
    "oasst1": KnownSet(
        "OpenAssistant conversations, best replies (Guanaco)",
        "timdettmers/openassistant-guanaco",
        "9,846 train, 518 test (the paper counts 9,209)",
        "Apache-2.0",
        "guanaco",
        ColumnMap(text="text"),
        note="The whole conversation is trained, the human's turns too, as in the paper;"
        " format guanaco-turns trains only the answers.",
    ),
    "hh-rlhf": KnownSet(
        "Anthropic helpful and harmless preferences",
        "Anthropic/hh-rlhf",
        "160,800 train, 8,552 test",
        "MIT",
        "hh-rlhf",
        ColumnMap(chosen="chosen"),
        note="The chosen conversation is trained whole, as in the paper; format preference trains only its answers."
        " Its card says that it is not meant for supervised training of dialogue agents.",
    ),
    "alpaca": KnownSet(
        "Stanford Alpaca",
        "tatsu-lab/alpaca",
        "52,002 train",
        "CC-BY-NC-4.0",
        "alpaca",
        ColumnMap(prompt="instruction", context="input", response="output"),
        note="qlora.py writes '### Response: ' with a space after the colon; template alpaca does the same.",
    ),
    "alpaca-clean": KnownSet(
        "Alpaca with errors removed",
        "yahma/alpaca-cleaned",
        "51,942 train in the paper; the hub copy has changed since",
        "see its hub card",
        "alpaca",
        ColumnMap(prompt="instruction", context="input", response="output"),
    ),
    "self-instruct": KnownSet(
        "Self-Instruct",
        "yizhongw/self_instruct",
        "82,612 train",
        "Apache-2.0",
        "prompt-completion",
        ColumnMap(prompt="prompt", response="completion"),
        config="self_instruct",
        revision="refs/convert/parquet",
        note="The set itself is a Python script, which is never run; the hub's parquet copy of it is read instead.",
    ),
    "longform": KnownSet(
        "LongForm: long texts with reverse instructions",
        "akoksal/LongForm",
        "23,652 train, 2,042 validation, 2,045 test",
        "MIT",
        "input-output",
        ColumnMap(prompt="input", response="output"),
    ),
    "chip2": KnownSet(
        "OIG Chip2",
        "laion/OIG",
        "210,289 train",
        "see its hub card",
        "chip2",
        ColumnMap(text="text"),
        data_file="unified_chip2.jsonl",
        note="qlora.py keeps the first question and answer of a text; all turns are kept here.",
    ),
    "unnatural-instructions": KnownSet(
        "Unnatural Instructions, full",
        "mrm8488/unnatural-instructions-full",
        "66,010 instructions, 240,670 examples with reformulations",
        "not stated on its hub card",
        "input-output",
        ColumnMap(prompt="input", response="output"),
        note="qlora.py has a helper for it and no name. Each instance and each reformulation becomes one example.",
    ),
    "flan-v2": KnownSet(
        "FLAN 2022, sample of 350,000",
        "itay1itzhak/flan_2022_350k",
        "350,023 train",
        "Apache-2.0",
        "prompt-completion",
        ColumnMap(prompt="prompt", response="completion"),
        note="The paper's own sample (about 450,000 rows) was not released; this is another sample of the same tasks."
        " Any other copy works as well: data.source = its hub id.",
    ),
}


def resolved(spec: SourceSpec, known: KnownSet) -> SourceSpec:
    """`spec` with the hub id and mapping of `known`; what was given by hand wins."""
    same_format = spec.format in {"auto", known.format}
    mapped = known.columns.model_dump(exclude_none=True) if same_format else {}
    return SourceSpec(
        source=known.hub_id,
        config=spec.config or known.config,
        split=spec.split,
        revision=spec.revision or known.revision,
        format=known.format if spec.format == "auto" else spec.format,
        columns=ColumnMap(**{**mapped, **spec.columns.model_dump(exclude_none=True)}),
        ignore_columns=spec.ignore_columns,
    )


def is_converted(spec: SourceSpec) -> bool:
    """Whether `spec` is read from the hub's branch of converted copies, which has a folder for each config."""
    known = KNOWN.get(spec.source)
    revision = spec.revision or (known.revision if known is not None else None)
    return (revision or "").startswith("refs/convert/")
