"""The command `mover`, also as `python -m mover`. The libraries are loaded here, which takes half a second."""

import importlib
import os
import signal

_INTERRUPTED = 130  # as shells report SIGINT


def main() -> None:
    """The console script."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # else whoever started us has Ctrl-C ignored
        # Nothing is begun that would have to be ended, and an exception could be swallowed by what is being loaded.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    run = importlib.import_module("mover.cli.main").main
    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
