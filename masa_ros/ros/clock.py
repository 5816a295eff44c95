"""Which images come at a usable time: repeated and late stamps, clock jumps, looped bags."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

NANOSECONDS = 1_000_000_000

# Images in a row that are all older than the newest one, though each follows the one before:
# that is a sequence starting again (a looped bag shorter than the jump), not network disorder.
RESTART_AFTER = 5


class StampVerdict(Enum):
    """What to do with an image, by its stamp."""

    USE = 'use'
    """Newer than every image before."""
    REPEATED = 'repeated'
    """Same stamp as the newest image: dropped, it shows nothing new."""
    LATE = 'late'
    """A little older than the newest image: dropped, the tracker only goes forward."""
    JUMP_BACK = 'jump back'
    """Far older than the newest image (bag loop, clock set back): use it after a reset."""
    JUMP_FORWARD = 'jump forward'
    """Far newer than the newest image: use it after a reset."""


@dataclass
class StampPolicy:
    """
    Judges the stamps of one stream in order of arrival.

    Parameters
    ----------
    jump_back_s : float
        A stamp older than the newest one by at least this much is a jump; by less it is late.
    jump_forward_s : float
        A stamp newer than the newest one by at least this much is a jump; 0 allows any gap.

    """

    jump_back_s: float = 1.0
    jump_forward_s: float = 60.0
    _newest_ns: int | None = field(init=False, default=None)
    _last_late_ns: int | None = field(init=False, default=None)
    _late_in_a_row: int = field(init=False, default=0)

    def judge(self, stamp_ns: int) -> StampVerdict:
        """
        Tell what to do with the image of this stamp, and remember the stamp if it is used.

        Parameters
        ----------
        stamp_ns : int
            Acquisition time from the image's header.

        Returns
        -------
        StampVerdict
            After a jump the given stamp counts as the newest one.

        """
        verdict = self._compare(stamp_ns)
        if verdict is StampVerdict.LATE:
            follows = self._last_late_ns is None or stamp_ns > self._last_late_ns
            self._late_in_a_row = self._late_in_a_row + 1 if follows else 1
            self._last_late_ns = stamp_ns
            if self._late_in_a_row >= RESTART_AFTER:
                verdict = StampVerdict.JUMP_BACK
        if verdict not in (StampVerdict.LATE, StampVerdict.REPEATED):
            self._newest_ns = stamp_ns
            self._last_late_ns = None
            self._late_in_a_row = 0
        return verdict

    def reset(self) -> None:
        """Forget all stamps: the next image is used whatever its time."""
        self._newest_ns = None
        self._last_late_ns = None
        self._late_in_a_row = 0

    def _compare(self, stamp_ns: int) -> StampVerdict:
        if self._newest_ns is None:
            return StampVerdict.USE
        step_ns = stamp_ns - self._newest_ns
        if step_ns == 0:
            return StampVerdict.REPEATED
        if step_ns < 0:
            far = -step_ns >= self.jump_back_s * NANOSECONDS
            return StampVerdict.JUMP_BACK if far else StampVerdict.LATE
        if self.jump_forward_s > 0 and step_ns >= self.jump_forward_s * NANOSECONDS:
            return StampVerdict.JUMP_FORWARD
        return StampVerdict.USE
