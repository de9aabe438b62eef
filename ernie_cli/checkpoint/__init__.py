"""ERNIE 4.5 on disk: its config, the two layouts as one table, a lazy reader, a streaming writer. Computes nothing with it."""

from .reader import Checkpoint

__all__ = ["Checkpoint"]
