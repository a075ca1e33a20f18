"""A run is a folder: its events, what they mean, and the processes that write them."""
