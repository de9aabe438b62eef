"""One TOML per device: facts with units and a source link. Installed as `ernie_cli.profiles`."""
