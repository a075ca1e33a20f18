"""The workbench: a Textual app that shows runs and edits configurations. It holds no truth of its own."""
