"""Main memory and processor of the machine, and the worker's part of them."""

from textual.content import Content

from qlora_tui.ui.load_history import sparkline
from qlora_tui.ui.run_view import RunView
from qlora_tui.ui.widgets.gauge import Part, gauge
from qlora_tui.ui.widgets.run_static import RunStatic
from qlora_tui.units import memory

_LABEL_COLUMNS = 5


class HostPanel(RunStatic):
    """Two bars with their history of up to ten minutes."""

    BORDER_TITLE = "Host"
    DEFAULT_CSS = """
    HostPanel { height: auto; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    def content_of(self, view: RunView) -> Content:
        machine = view.machine
        if machine is None:
            return Content("")
        width = self.content_size.width - _LABEL_COLUMNS
        total_bytes = machine.ram_total_bytes
        used_bytes = total_bytes - machine.ram_available_bytes
        ours_bytes = min(view.worker_bytes or 0, used_bytes)
        ram = gauge(
            width,
            [
                Part(ours_bytes / total_bytes, "$vram", "█"),
                Part((used_bytes - ours_bytes) / total_bytes, "$foreground 50%", "▒"),
            ],
        )
        cpu = gauge(width, [Part(machine.cpu_percent / 100, "$secondary", "█")])
        worker = f", █ this run {memory(ours_bytes)}" if ours_bytes else ""
        label = Content(" " * _LABEL_COLUMNS)
        before_ram = sparkline([load.ram for load in view.loads], width)
        before_cpu = sparkline([load.cpu for load in view.loads], width)
        return Content("\n").join(
            [
                Content("RAM".ljust(_LABEL_COLUMNS)) + ram,
                Content(" " * _LABEL_COLUMNS + f"{memory(used_bytes)} of {memory(total_bytes)}{worker}"),
                label + Content.styled(before_ram, "$vram"),
                Content("CPU".ljust(_LABEL_COLUMNS)) + cpu,
                Content(" " * _LABEL_COLUMNS + f"{machine.cpu_percent:.0f} % of {machine.cpu_cores} cores"),
                label + Content.styled(before_cpu, "$secondary"),
            ]
        )
