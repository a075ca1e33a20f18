"""What one place of the workbench asks of another. Every message bubbles to the app, which answers it."""

from typing import TYPE_CHECKING, Any

from textual.message import Message

from qlora_tui.errors import QloraError

if TYPE_CHECKING:
    from qlora_tui.config.run import RunConfig


class PlaceRequested(Message):
    """Somebody wants to be in another place."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place


class RunRequested(Message):
    """Show this run in the Run place."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class ChatRequested(Message):
    """Talk to the adapter of this run, or to its checkpoint of a step."""

    def __init__(self, name: str, checkpoint: int | None = None) -> None:
        super().__init__()
        self.name = name
        self.checkpoint = checkpoint


class DraftReplaced(Message):
    """The configuration being set up is now this one (a preset was loaded, a run imported, a field edited)."""

    def __init__(self, config: "RunConfig", source: str) -> None:
        super().__init__()
        self.config = config
        self.source = source
        """Where it comes from, for people: "preset starter", "run one", "edited"."""


class StartRequested(Message):
    """Start a run from this configuration, under this name or a free one."""

    def __init__(
        self,
        config: "RunConfig",
        name: str | None = None,
        *,
        preset: str | None = None,
        allow_download: bool = False,
        estimate: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.name = name
        self.preset = preset
        self.allow_download = allow_download
        """Whether the person said yes to a download whose size was shown."""
        self.estimate = estimate
        """The memory estimate that was shown, for plan.json; None: a new one is made."""


class ConfigEdited(Message):
    """Somebody typed or chose a value for a setting, as text that `--set` takes. Not yet validated."""

    def __init__(self, edits: dict[str, str]) -> None:
        super().__init__()
        self.edits = edits
        """Texts by dotted key; several are meant together or not at all."""


class Complained(Message):
    """Something a person wanted cannot be done; the app says why and what to do."""

    def __init__(self, error: QloraError) -> None:
        super().__init__()
        self.error = error
