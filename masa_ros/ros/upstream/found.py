"""What a converter makes of one message."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from masa_ros.structures.instances import Instances

# What the decoder of ROS puts in place of bytes that are no UTF-8.
REPLACEMENT = '\N{REPLACEMENT CHARACTER}'

NAME_LENGTH = 200
"""Longest class name; what is longer is cut."""


@dataclass
class Found:
    """
    Detections as a message says them, unchecked.

    Parameters
    ----------
    instances : Instances
        Boxes in the pixels of the image that the detector saw.
    size : tuple of int or None
        ``(height, width)`` of that image where the message says it.
    problems : Counter
        What could not be used, by reason.

    """

    instances: Instances
    size: tuple[int, int] | None = None
    problems: Counter[str] = field(default_factory=Counter)


def clean_name(name: str, problems: Counter[str]) -> str:
    """Class name without what is no text; the reason is counted."""
    if REPLACEMENT in name:
        problems['class names that are no UTF-8'] += 1
        name = name.replace(REPLACEMENT, '')
    if len(name) > NAME_LENGTH:
        problems['class names that are too long'] += 1
        name = name[:NAME_LENGTH]
    return name
