"""Progress bars that suit a terminal as well as a log file."""

from __future__ import annotations

from collections.abc import Iterable
import sys
from typing import Any

from tqdm import tqdm


def frame_bar(frames: Iterable[Any] | None = None, total: int | None = None) -> Any:
    """Progress bar with rate and time left; in a log file a line every ten seconds."""
    terminal = sys.stderr.isatty()
    return tqdm(frames, total=total, unit=' frames', dynamic_ncols=terminal,
                mininterval=0.1 if terminal else 10.0, maxinterval=10.0, ascii=not terminal)
