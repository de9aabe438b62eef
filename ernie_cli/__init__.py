"""ernie: ERNIE 4.5 from download to a fast engine. The command line is `ernie_cli.app`; each room below is one idea."""

__version__ = "0.1.0"
