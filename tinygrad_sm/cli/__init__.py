"""The command `tinygrad-sm`."""

from tinygrad_sm.cli.main import main

__all__ = ["main"]
