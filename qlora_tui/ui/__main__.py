"""`python -m qlora_tui.ui`: the workbench alone."""

import sys

from qlora_tui import crash
from qlora_tui.ui.app import Workbench

if __name__ == "__main__":
    app = Workbench()
    app.run()
    if app.crash is not None:
        crash.report(app.crash)
    sys.exit(app.return_code or 0)
