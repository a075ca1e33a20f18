"""`python -m qlora_tui` is the same program as the `qlora-tui` command."""

from qlora_tui.cli import main

if __name__ == "__main__":
    main()
