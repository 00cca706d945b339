"""The command `tinygrad-sm`."""

from tinygrad_sm.cli.entry import main

__all__ = ["main"]
