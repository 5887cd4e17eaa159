"""Where the `discovery` command starts and ends: everything is closed in order, and then the process is gone."""

from __future__ import annotations

import atexit
import os
import sys


class Ending:
    """Ends the process as the last of its exit handlers. Python would then take apart some 4,600 modules and 600,000 objects: 3 s for nothing.

    To be the last of the handlers, it is made before anything else is imported. Threads were joined by then, and what libraries close at the end is closed.
    """

    def __init__(self) -> None:
        self.code: int | None = None  # of a command that has returned; without one (a traceback, a refused option) Python ends as ever
        atexit.register(self.leave)

    def leave(self) -> None:
        """End here, unless something still has to be seen: an output that cannot be written, what a debugger or a coverage tool has to say."""
        if self.code is None or sys.gettrace() is not None or sys.getprofile() is not None:
            return
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            return
        os._exit(self.code)


def command() -> None:
    """Run the command line and exit with its code."""
    ending = Ending()
    from discovery.cli import main

    ending.code = main()
    sys.exit(ending.code)


if __name__ == "__main__":
    command()
