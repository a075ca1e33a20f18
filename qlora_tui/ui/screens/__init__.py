"""The places of the workbench, one screen a file with its .tcss beside it."""
