"""Paddle inference programs: found, exported, imported, described. Checkpoints are checkpoint/'s."""
