"""How much work a run is before it starts: optimizer steps, tokens and time. Must not know torch or the screen."""
