"""`python -m ernie_cli` is `ernie`."""

from .app import entry

entry()
