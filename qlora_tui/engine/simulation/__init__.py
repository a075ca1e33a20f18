"""A training step on tensors without data: what it would hold on a GPU, found without a GPU and without weights."""
