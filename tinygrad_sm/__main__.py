"""`python -m tinygrad_sm` is the command `tinygrad-sm`."""

from tinygrad_sm.cli import main

main()
