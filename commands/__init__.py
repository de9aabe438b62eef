"""One file per subcommand: signature, examples, one call into the core, one result. Installed as `ernie_cli.commands`."""
