"""Memory of every card: who has it, what this run took, what was estimated, and how hard the card works."""

from textual.content import Content

from qlora_tui.hardware import Gpu
from qlora_tui.terminal import printable
from qlora_tui.ui.load_history import sparkline
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.widgets.gauge import Part, gauge
from qlora_tui.ui.widgets.run_static import RunStatic
from qlora_tui.units import memory


class MemoryPanel(RunStatic):
    """One block a card. Without a card, the main memory that a run on the CPU takes."""

    BORDER_TITLE = "GPU memory"
    DEFAULT_CSS = """
    MemoryPanel { height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def content_of(self, view: RunView) -> Content:
        machine, width = view.machine, self.content_size.width
        if machine is None:
            return Content.styled("reading the sensors", "$foreground 60%")
        if not machine.gpus:
            return Content("\n").join([Content("No GPU: runs train on the CPU."), *_this_run(view)])
        ours = _uuid_of_ours(view, machine.gpus)
        blocks = [_card(view, gpu, width, is_ours=gpu.uuid == ours) for gpu in machine.gpus]
        return Content("\n").join([*blocks, *_this_run(view)])


def _uuid_of_ours(view: RunView, gpus: tuple[Gpu, ...]) -> str | None:
    """The GPU that the run works on: the one that it named, or the only one when it took GPU memory and named none."""
    device, last = view.state.device, view.state.steps.last
    if device is not None and device.gpu_uuid:
        return device.gpu_uuid
    return gpus[0].uuid if len(gpus) == 1 and last is not None and last.allocated_bytes else None


def _card(view: RunView, gpu: Gpu, width: int, *, is_ours: bool) -> Content:
    used_bytes = gpu.total_bytes - gpu.free_bytes
    last = view.state.steps.last
    ours_bytes = min(last.allocated_bytes, used_bytes) if last and view.is_live and is_ours else 0
    kept_bytes = min(max(last.reserved_bytes - ours_bytes, 0), used_bytes - ours_bytes) if ours_bytes and last else 0
    others_bytes = used_bytes - ours_bytes - kept_bytes
    parts = [
        Part(ours_bytes / gpu.total_bytes, "$vram", "█"),
        Part(kept_bytes / gpu.total_bytes, "$vram 60%", "▓"),
        Part(others_bytes / gpu.total_bytes, "$foreground 50%", "▒"),
    ]
    mark = view.estimate.full_bytes / gpu.total_bytes if view.estimate and is_ours else None
    load = [
        None if gpu.utilization_percent is None else f"{gpu.utilization_percent} %",
        None if gpu.temperature_c is None else f"{gpu.temperature_c} °C",
        None if gpu.power_w is None else f"{gpu.power_w:.0f} W",
    ]
    before = [load.vram[gpu.index] for load in view.loads if gpu.index < len(load.vram)]
    name = printable(gpu.name, one_line=True).removeprefix("NVIDIA ")
    title = f"{gpu.index} {name}  {'  '.join(item for item in load if item)}"
    return Content("\n").join(
        [
            Content.styled(title, "bold"),
            gauge(width, parts, mark=mark),
            Content(f"{memory(used_bytes)} of {memory(gpu.total_bytes)} used, {memory(gpu.free_bytes)} free"),
            *([Content.styled(sparkline(before, width), "$vram")] if before else []),
        ]
    )


def _this_run(view: RunView) -> list[Content]:
    """What the run itself says of its memory."""
    last, lines = view.state.steps.last, []
    if last is not None and last.allocated_bytes:
        reserved = f"  ▓ reserved {memory(last.reserved_bytes)}" if last.reserved_bytes else ""
        lines.append(
            Content.assemble(("█", "$vram"), f" allocated {memory(last.allocated_bytes)}", (reserved, "$foreground"))
        )
    if view.state.peak_bytes:
        lines.append(Content(f"peak {memory(view.state.peak_bytes)}"))
    elif view.worker_bytes:
        lines.append(Content(f"the worker has {memory(view.worker_bytes)} of main memory"))
    if view.estimate:
        lines.append(Content.assemble(("│", "bold $warning"), f" estimate {memory(view.estimate.full_bytes)}"))
        if view.estimate.covers:
            lines.append(Content.styled(f"  for {view.estimate.covers}", "$foreground 60%"))
    return lines
