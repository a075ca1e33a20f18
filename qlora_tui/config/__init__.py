"""What a run is configured by: RunConfig, TOML files, presets and `--set` flags."""
