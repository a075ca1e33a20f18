"""Prices the draft in a thread: what is usual at once, then what single settings cost, the estimate with a replay of
the allocator, as the command line gives it, advice, and whether other models fit."""

from collections.abc import Mapping, Sequence

from textual import work
from textual.message import Message
from textual.timer import Timer
from textual.widget import Widget
from textual.worker import Worker, get_current_worker

from qlora_tui import hardware
from qlora_tui.config import adoption, presets
from qlora_tui.config.run import RunConfig
from qlora_tui.errors import EnvironmentProblem, QloraError
from qlora_tui.evaluation import quantization_errors
from qlora_tui.evaluation.quantization_errors import QuantizationErrors
from qlora_tui.forecast.forecast import Forecast
from qlora_tui.forecast.outlook import Outlook, Question
from qlora_tui.hardware import Machine
from qlora_tui.memory.advisor import suggestions
from qlora_tui.models.choices import Choice
from qlora_tui.models.facts import ModelFacts
from qlora_tui.ui.pricing import Counted, Price, badge, device_of, effects, price
from qlora_tui.ui.widgets.fit_panel import Advice
from qlora_tui.units import memory, signed_memory

_PAUSE_S = 0.03
"""Keys typed at once are priced once."""

_REFRESH_S = 3.0
"""Other programs take and give memory, too."""

_BADGES_AT_ONCE = 20


class Pricer(Widget):
    """Nothing to see. Posts what it finds; what a newer draft has overtaken is not posted."""

    DEFAULT_CSS = "Pricer { display: none; }"

    class Priced(Message):
        """What the draft needs."""

        def __init__(self, found: Price, facts: ModelFacts) -> None:
            super().__init__()
            self.price = found
            self.facts = facts

    class Unpriced(Message):
        """Why the draft cannot be estimated."""

        def __init__(self, reason: str) -> None:
            super().__init__()
            self.reason = reason

    class Foreseen(Message):
        """How much work the draft is, and how long it takes here."""

        def __init__(self, config: RunConfig, found: Forecast, note: str) -> None:
            super().__init__()
            self.config = config
            self.forecast = found
            self.note = note
            """Why the time is unknown, or what it rests on."""

    class Advised(Message):
        """What would make it fit."""

        def __init__(self, advice: Sequence[Advice]) -> None:
            super().__init__()
            self.advice = advice

    class Weighed(Message):
        """What single settings cost, by dotted key."""

        def __init__(self, effects: Mapping[str, str]) -> None:
            super().__init__()
            self.effects = effects

    class Studied(Message):
        """Quantization error of the draft's model, if known."""

        def __init__(self, model_id: str, errors: QuantizationErrors | None) -> None:
            super().__init__()
            self.model_id = model_id
            self.errors = errors

    class Badged(Message):
        """Whether models fit, by id."""

        def __init__(self, badges: Mapping[str, str]) -> None:
            super().__init__()
            self.badges = badges

    def __init__(self) -> None:
        super().__init__()
        self._config: RunConfig | None = None
        self._keys: tuple[str, ...] = ()
        self._choices: tuple[Choice, ...] = ()
        self._facts: dict[tuple[str, str | None], ModelFacts] = {}
        self._badges: dict[str, str] = {}
        self._counted: Counted | None = None
        self._card = ""
        self._outlook = Outlook()
        self._base: RunConfig | None = None
        self._told: Price | None = None
        self._pause: Timer | None = None

    def on_mount(self) -> None:
        self.set_interval(_REFRESH_S, self._refresh_machine)

    def price(self, config: RunConfig, base: RunConfig | None, keys: Sequence[str], choices: Sequence[Choice]) -> None:
        """Price this draft soon, then the settings in `keys` and the models in `choices`.

        `base`: what the draft began from. Another model is priced with the settings that choosing it would bring.
        """
        if config != self._config:
            self._badges = {}
        self._config, self._base, self._keys, self._choices = config, base, tuple(keys), tuple(choices)
        if self._pause is not None:
            self._pause.stop()
        self._pause = self.set_timer(_PAUSE_S, self._begin)

    def count(self, counted: Counted) -> None:
        """The rows of a configuration's data were counted."""
        self._counted = counted
        self._badges = {}
        self._begin()

    def sampled(self, config: RunConfig, tokens_per_row: float) -> None:
        """The first rows of a configuration's data were tokenized."""
        self._outlook.sampled(config, tokens_per_row)
        self._begin()

    def ask_about(self, card: str) -> None:
        """Price for another card, as `qlora-tui estimate --gpu` takes it; empty: for this machine."""
        self._card = card
        self._badges = {}
        self._begin()

    def _begin(self) -> None:
        if self._config is not None:
            self._price(self._config, self._keys, self._choices, everything=True)

    def _refresh_machine(self) -> None:
        busy = any(worker.node is self and not worker.is_finished for worker in self.app.workers)
        if self._config is not None and self.screen.is_current and not busy:
            self._price(self._config, (), (), everything=False)

    @work(thread=True, group="price", exclusive=True, exit_on_error=False)
    def _price(self, config: RunConfig, keys: Sequence[str], choices: Sequence[Choice], *, everything: bool) -> None:
        worker = get_current_worker()
        counted, base, card = self._counted, self._base, self._card
        try:
            facts = self._described(config)
            if everything:
                self._post(worker, self.Studied(config.model.id, quantization_errors.read(config.model.id)))
            machine = hardware.snapshot()
            usual = price(config, facts, machine, counted, card=card)
            if not everything and self._told is not None and _alike(usual, self._told):
                return
            self._told = usual
            if everything:
                self._post(worker, self.Priced(usual, facts))
                self._weigh(worker, usual, facts, keys)
            if worker.is_cancelled:
                return
            found = price(config, facts, machine, counted, card=card, replay=True)
        except QloraError as error:
            self._post(worker, self.Unpriced(f"{error.message}. {error.hint}".strip()))
            return
        except Exception as error:  # A fault of the estimator is said; a run can be started without a price.
            self._post(worker, self.Unpriced(f"there is no estimate: {type(error).__name__}: {error}"))
            return
        self._post(worker, self.Priced(found, facts))
        self._post(worker, self.Advised(_advice(found, facts)))
        self._foresee(worker, found, facts)
        self._judge(worker, found, base or config, choices, machine)

    def _foresee(self, worker: Worker[None], found: Price, facts: ModelFacts) -> None:
        asked = found.question
        seen = self._outlook.of(asked, facts)
        self._post(worker, self.Foreseen(found.config, seen, self._outlook.note(asked, seen)))
        if seen.work is not None and seen.duration is None and not worker.is_cancelled:
            self.app.call_from_thread(self._begin_measuring, asked)

    def _begin_measuring(self, asked: Question) -> None:
        if self._outlook.claim(asked):
            self._measure(asked)

    @work(thread=True, group="speed", exit_on_error=False)
    def _measure(self, asked: Question) -> None:
        """Measure this machine, once: no run of such a model has finished here."""
        self._outlook.measure(asked)
        if not get_current_worker().is_cancelled:
            self.app.call_from_thread(self._begin)

    def _weigh(self, worker: Worker[None], found: Price, facts: ModelFacts, keys: Sequence[str]) -> None:
        weighed: dict[str, str] = {}
        for key, text in effects(found, facts, keys):
            if worker.is_cancelled:
                return
            weighed[key] = text
        self._post(worker, self.Weighed(weighed))

    def _described(self, config: RunConfig) -> ModelFacts:
        from qlora_tui.models import describe

        key = (config.model.id, config.model.revision)
        if key not in self._facts:
            self._facts[key] = describe(*key)
        return self._facts[key]

    def _judge(
        self, worker: Worker[None], found: Price, base: RunConfig, choices: Sequence[Choice], machine: Machine
    ) -> None:
        """Post whether each model fits, on the device that its own settings would train on."""
        known = presets.presets()
        todo = [one.facts for one in choices if one.facts is not None and one.id not in self._badges]
        badges = dict(self._badges)
        for number, facts in enumerate(todo, 1):
            if worker.is_cancelled:
                return
            config, device = found.config, found.device
            if facts.id != config.model.id:
                try:
                    context = facts.context_tokens
                    config = adoption.for_model(config, base, facts.id, context_tokens=context, among=known).config
                    device = device_of(config, machine) if found.here else found.device
                except QloraError:
                    continue
            badges[facts.id] = badge(config, facts, device, found.counted)
            asked = Question(config, device, found.here, False, found.counted_rows(config))
            if badges[facts.id] == "fits" and self._outlook.is_slow(asked, facts):
                badges[facts.id] = "slow"
            if number % _BADGES_AT_ONCE == 0 or number == len(todo):
                self._badges = dict(badges)
                self._post(worker, self.Badged(self._badges))

    def _post(self, worker: Worker[None], message: Message) -> None:
        if not worker.is_cancelled:
            self.post_message(message)


def _alike(one: Price, other: Price) -> bool:
    """Whether there is nothing new to show: the same draft, and free memory within one percent."""
    moved = abs(one.device.free_bytes - other.device.free_bytes)
    return (
        one.config == other.config
        and one.verdict.answer == other.verdict.answer
        and (moved <= 0.01 * one.device.total_bytes)
    )


def _advice(found: Price, facts: ModelFacts) -> list[Advice]:
    longest = found.counted.longest(found.config) if found.counted is not None else None
    tokens = longest.train_tokens if longest is not None else None
    try:
        changes = suggestions(found.config, facts, found.estimate, longest_tokens=tokens, replay=True)
    except EnvironmentProblem:
        return []
    advice = []
    for one in changes:
        edits = {key: text for key, _, text in (change.partition("=") for change in one.changes)}
        names = ", ".join(f"{key.rpartition('.')[2]} = {text}" for key, text in edits.items())
        saves = signed_memory(-one.saves_bytes)
        then = "fits" if one.fits else f"needs {memory(one.need_bytes)}"
        advice.append(Advice(f"{names}  {saves}, {then}; {one.why}", edits))
    return advice
