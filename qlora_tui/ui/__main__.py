"""`python -m qlora_tui.ui`: the workbench alone."""

from qlora_tui.ui.app import Workbench

if __name__ == "__main__":
    Workbench().run()
