"""What this machine has to train on."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.reactive import reactive
from textual.widgets import Static

from qlora_tui.terminal import printable
from qlora_tui.ui.widgets.meter import Meter
from qlora_tui.units import memory

if TYPE_CHECKING:
    from qlora_tui.hardware import Gpu, Machine

_LABEL_COLUMNS = 4


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One reading of the machine and of the disk that holds the runs."""

    machine: "Machine"
    disk_free_bytes: int
    disk_total_bytes: int


class MachinePanel(Vertical, can_focus=True):
    """GPUs with their memory, RAM, processor and disk."""

    HELP = """
### This machine
What a run could use now. **VRAM** is the memory of a graphics card: base weights, adapter, optimizer and
activations of a run live there. Without an NVIDIA card everything works on the processor, in RAM, only slower:
good for the starter and for models up to about a billion parameters.

The disk is the one that holds your runs.
"""
    DEFAULT_CSS = """
    MachinePanel {
        height: auto; padding: 0 1; border: round $foreground 25%; border-title-color: $foreground;
        &:focus { border: round $border; }
        Static { height: auto; color: $text-muted; }
    }
    """
    surroundings: reactive[Surroundings | None] = reactive(None)

    def __init__(self) -> None:
        super().__init__()
        self.border_title = "This machine"

    def compose(self) -> ComposeResult:
        if self.surroundings is None:
            yield Static("looking around...")
            return
        for gpu in self.surroundings.machine.gpus:
            yield Static(_gpu_name(gpu), markup=False)
        if not self.surroundings.machine.gpus:
            yield Static("no GPU: CPU mode works")
        for label, share, numbers in _meters(self.surroundings):
            yield Meter(label, share, numbers, label_width=_LABEL_COLUMNS)

    async def watch_surroundings(self, before: Surroundings | None, now: Surroundings | None) -> None:
        """New numbers go into the meters that are there; another number of cards makes new ones."""
        if now is None or before is None or len(before.machine.gpus) != len(now.machine.gpus):
            await self.recompose()
            return
        for line, gpu in zip(self.query(Static), now.machine.gpus, strict=False):
            line.update(_gpu_name(gpu))
        for meter, (_, share, numbers) in zip(self.query(Meter), _meters(now), strict=True):
            meter.share, meter.numbers = share, numbers


def _meters(around: Surroundings) -> list[tuple[str, float, str]]:
    """Label, share in use and numbers of each bar, the graphics cards first."""
    machine, total = around.machine, around.disk_total_bytes
    rows = [("VRAM" if len(machine.gpus) == 1 else f"GPU{gpu.index}", gpu.free_bytes, gpu.total_bytes)
            for gpu in machine.gpus]  # fmt: skip
    rows.append(("RAM", machine.ram_available_bytes, machine.ram_total_bytes))
    rows.append(("Disk", around.disk_free_bytes, total))
    meters = [(label, 1 - free / whole, f"{memory(free)} free of {memory(whole)}") for label, free, whole in rows]
    meters.append(("CPU", machine.cpu_percent / 100, f"{machine.cpu_percent:.0f} % of {machine.cpu_cores} cores"))
    return meters


def _gpu_name(gpu: "Gpu") -> str:
    sensors = [
        f"{gpu.utilization_percent} %" if gpu.utilization_percent is not None else "",
        f"{gpu.temperature_c} °C" if gpu.temperature_c is not None else "",
        f"{gpu.power_w:.0f} W" if gpu.power_w is not None else "",
    ]
    return "  ".join([f"GPU {gpu.index}: {printable(gpu.name, one_line=True)}", *filter(None, sensors)])
