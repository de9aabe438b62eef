"""One file per edge, named `<source>_to_<target>.py`: `NEEDS` and `convert(model, out, …)`. Installed as `ernie_cli.converters`."""
