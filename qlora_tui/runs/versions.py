"""Versions of the libraries that decide what a run computes, read without importing them."""

import importlib.metadata

LIBRARIES = ("torch", "transformers", "bitsandbytes", "accelerate", "peft", "trl", "datasets")
"""Each after those that it imports, so that the first one that fails is the broken one."""


def library_versions() -> dict[str, str]:
    """Installed version of each library; one that is not installed is left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
