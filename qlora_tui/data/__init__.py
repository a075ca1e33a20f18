"""Rows from any source, the text and tokens they become, and which of them the loss sees."""
