"""What a run will need in memory, before anything is downloaded. No torch in here."""
