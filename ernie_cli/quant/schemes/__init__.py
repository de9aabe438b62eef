"""One file per scheme. The name in it is what is typed after --to."""
