"""The only place that imports torch. Each program here runs as a child: `python -m qlora_tui.engine.<name>`."""
