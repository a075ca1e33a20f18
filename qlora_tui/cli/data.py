"""`data`: the group of commands about training data."""

from qlora_tui.cli import data_check, data_inspect, data_sources
from qlora_tui.cli.command import Noun

app = Noun("List, inspect and convert training data.")
data_sources.register(app)
data_inspect.register(app)
data_check.register(app)
