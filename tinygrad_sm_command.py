"""The command `tinygrad-sm`, and how it is stopped while it still loads, or when all is done.

It stands beside the package because whatever is in the package loads NumPy first.
"""

import os
import signal
import sys


def main() -> None:
    """Run the command line; Ctrl-C before and after that ends all without a word, status 130."""
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is ignored
    if ours:
        signal.signal(signal.SIGINT, _end)
    try:
        from tinygrad_sm.cli import main as run  # noqa: PLC0415  the handler comes first

        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except ModuleNotFoundError as error:  # pictures load their packages when they are drawn
        package = str(error.name).partition(".")[0]
        sys.stderr.write(
            f"tinygrad-sm: the command needs the package {package}, which is not installed: "
            f"python -m pip install {package}\n"
        )
        sys.exit(2)
    finally:
        if ours:
            signal.signal(signal.SIGINT, _end)


def _end(*_: object) -> None:
    os._exit(130)
