"""What large images need before ROS starts: shared memory and a calm allocator."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
import sys

# From malloc.h of the GNU C library.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3

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
    for name in (_PROFILE_VARIABLE, _OLD_PROFILE_VARIABLE):
        if os.environ.get(name):
            return f'Fast DDS profile given: {os.environ[name]}'
    path = profile_path()
    if path is None:
        return 'no Fast DDS profile found: large images may be lost'
    humble = os.environ.get('ROS_DISTRO') == 'humble'
    os.environ[_OLD_PROFILE_VARIABLE if humble else _PROFILE_VARIABLE] = str(path)
    return f'Fast DDS profile: {path}'


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
    # Buffers below 32 MiB come from the heap, which keeps up to 512 MiB of free memory.
    return bool(mallopt(_M_MMAP_THRESHOLD, 1 << 25) and mallopt(_M_TRIM_THRESHOLD, 1 << 29))
