"""Measuring a trained model beside its base: `python -m qlora_tui.engine.evaluation RUN_FOLDER TASK`."""
