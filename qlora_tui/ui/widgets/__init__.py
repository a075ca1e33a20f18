"""Widgets of the workbench, one noun a file. They are shown from values and open no files."""
