"""Talking to a trained model: what is said to the chat process, the conversation, and its commands. No torch here."""
