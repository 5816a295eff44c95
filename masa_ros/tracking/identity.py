"""Identities that are unique across streams, resets and runs."""

from __future__ import annotations

import hashlib
import secrets

import numpy as np
from numpy.typing import NDArray


class UuidSource:
    """
    Version 4 UUIDs (RFC 4122), one after the other.

    Parameters
    ----------
    seed : str, optional
        Makes them a function of this text; random when missing.

    """

    def __init__(self, seed: str | None = None) -> None:
        self._key = (secrets.token_bytes(32) if seed is None
                     else hashlib.blake2b(seed.encode(), digest_size=32).digest())
        self.seeded = seed is not None
        self.taken = 0

    def take(self, count: int) -> NDArray[np.uint8]:
        """Return the next ``(count, 16)``."""
        numbers = range(self.taken, self.taken + count)
        self.taken += count
        digests = b''.join(
            hashlib.blake2b(b'%d' % number, key=self._key, digest_size=16).digest()
            for number in numbers)
        uuids = np.frombuffer(digests, np.uint8).reshape(count, 16).copy()
        uuids[:, 6] = uuids[:, 6] & 0x0F | 0x40
        uuids[:, 8] = uuids[:, 8] & 0x3F | 0x80
        return uuids
