"""What large images need before ROS starts: shared memory and a calm allocator."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
import sys

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Buffers below the first come from the heap, which keeps this much free memory.
_MMAP_BYTES = 1 << 25
_TRIM_BYTES = 1 << 29

_PROFILE_VARIABLE = 'FASTDDS_DEFAULT_PROFILES_FILE'
# The name that Humble reads; later versions read it too, and complain.
_OLD_PROFILE_VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'


def profile_path() -> Path | None:
    """Path of the Fast DDS profile that comes with the package, or None where it is missing."""
    for folder in _share_folders():
        path = folder / 'config' / 'fastdds.xml'
        if path.is_file():
            return path
    return None


def _share_folders() -> list[Path]:
    checkout = Path(__file__).resolve().parents[2]
    prefixes = [*os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep), sys.prefix]
    return [*(Path(prefix) / 'share' / 'masa_ros' for prefix in prefixes if prefix), checkout]


def environment() -> dict[str, str]:
    """
    Variables that give a process started from here the same transport and allocator.

    Empty for what the user has set already; for launch files and other senders of images.
    """
    variables = {'MALLOC_MMAP_THRESHOLD_': str(_MMAP_BYTES),
                 'MALLOC_TRIM_THRESHOLD_': str(_TRIM_BYTES)}
    path = profile_path()
    if path is not None and not _given_profile():
        humble = os.environ.get('ROS_DISTRO') == 'humble'
        variables[_OLD_PROFILE_VARIABLE if humble else _PROFILE_VARIABLE] = str(path)
    return {name: value for name, value in variables.items() if name not in os.environ}


def _given_profile() -> str:
    """Fast DDS profile that the user has set."""
    return os.environ.get(_PROFILE_VARIABLE) or os.environ.get(_OLD_PROFILE_VARIABLE) or ''


def prepare_transport() -> str:
    """
    Set up shared memory and the allocator; call it before ``rclpy.init``.

    With the defaults of Fast DDS images of 720p and more are lost or late, and with those of the
    allocator every large message costs thousands of page faults (docs/node.md has the figures).
    A profile that the user has set stays in force.

    Returns
    -------
    str
        What is in force, for the log.

    """
    keep_freed_memory()
    given = _given_profile()
    os.environ.update(environment())
    if given:
        return f'Fast DDS profile given: {given}'
    profile = _given_profile()
    if not profile:
        return 'no Fast DDS profile found: large images may be lost'
    return f'Fast DDS profile: {profile}'


def keep_freed_memory() -> bool:
    """
    Keep freed image buffers in the process instead of giving them back to the kernel.

    Returns
    -------
    bool
        Whether the C library knows how; only GNU's does.

    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)
                and mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES))
