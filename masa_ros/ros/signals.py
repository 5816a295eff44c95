"""How our programs end when they are told to."""

from __future__ import annotations

import signal


def finish_undisturbed() -> None:
    """
    Ignore SIGINT and SIGTERM from now on; for the first line of the last cleaning up.

    Ctrl-C reaches a node twice, from the terminal and from launch. The second one would cut the
    cleaning up short and end the process with an abort.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
