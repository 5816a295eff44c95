"""Bring each image together with its detections: exact stamp, then a tolerance, bounded wait."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

ImageT = TypeVar('ImageT')
DetectionsT = TypeVar('DetectionsT')

# Stamps that went through float seconds differ by up to 240 ns, those cut to microseconds by
# up to 1000 ns; no camera is that fast.
SAME_STAMP_NS = 1_000

# Detections this much newer than the first image after a jump are taken for those of the
# images that follow it.
OVERTAKEN_NS = 2_000_000_000


@dataclass(frozen=True)
class Joined(Generic[ImageT, DetectionsT]):
    """
    An image that needs to wait no longer.

    Parameters
    ----------
    stamp_ns : int
        Stamp of the image.
    image : object
        The image as it was added.
    detections : object or None
        Its detections; ``None`` where none came in time.

    """

    stamp_ns: int
    image: ImageT
    detections: DetectionsT | None


@dataclass
class _Image(Generic[ImageT]):
    stamp_ns: int
    image: ImageT
    deadline_s: float


class DetectionJoin(Generic[ImageT, DetectionsT]):
    """
    Pairs images with detections of the same acquisition time.

    Both must be added in order of their stamps (images older than the newest one are the
    caller's business); either may arrive first. An image leaves, in stamp order, as soon as one
    of these holds:

    - detections with the same stamp are there;
    - detections within the tolerance are there that cannot belong to a later image;
    - newer detections are there, so its own were never made (a detector that drops frames);
    - it waited for `wait_s`, or more than `capacity` images wait.

    Parameters
    ----------
    tolerance_s : float
        Largest difference of two stamps that still belong together.
    wait_s : float
        Longest time an image waits.
    capacity : int
        Most images that wait.

    """

    def __init__(self, tolerance_s: float, wait_s: float, capacity: int) -> None:
        self.tolerance_s = tolerance_s
        self.wait_s = wait_s
        self.capacity = capacity
        self.unused_detections = 0
        """Detections that found no image so far."""
        self.pushed_out = 0
        """Images that left because more than `capacity` waited."""
        self._released_ns: int | None = None
        self._joined_ns: int | None = None
        self._images: deque[_Image[ImageT]] = deque()
        self._detections: deque[tuple[int, DetectionsT]] = deque()
        self._newest_image_ns: int | None = None
        self._newest_detections_ns: int | None = None

    def __len__(self) -> int:
        """Return how many images wait."""
        return len(self._images)

    @property
    def deadline_s(self) -> float | None:
        """When the oldest image has waited long enough; None while none waits."""
        return self._images[0].deadline_s if self._images else None

    def is_late(self, stamp_ns: int) -> bool:
        """Whether detections of this stamp come after their image has left without them."""
        return (self._released_ns is not None and stamp_ns <= self._released_ns
                and stamp_ns != self._joined_ns)

    def add_image(
        self, stamp_ns: int, image: ImageT, now_s: float,
    ) -> list[Joined[ImageT, DetectionsT]]:
        """Add an image; returns the images that need to wait no longer, oldest first."""
        self._images.append(_Image(stamp_ns, image, now_s + self.wait_s))
        self._newest_image_ns = stamp_ns
        return self.release(now_s)

    def add_detections(
        self, stamp_ns: int, detections: DetectionsT, now_s: float,
    ) -> list[Joined[ImageT, DetectionsT]]:
        """Add detections; returns the images that need to wait no longer, oldest first."""
        if self._newest_detections_ns is not None and stamp_ns <= self._newest_detections_ns:
            place = sum(known <= stamp_ns for known, _ in self._detections)
            self._detections.insert(place, (stamp_ns, detections))
        else:
            self._newest_detections_ns = stamp_ns
            self._detections.append((stamp_ns, detections))
        released = self.release(now_s)
        while len(self._detections) > self.capacity:
            self._detections.popleft()
            self.unused_detections += 1
        return released

    def release(self, now_s: float) -> list[Joined[ImageT, DetectionsT]]:
        """Return the images that need to wait no longer at this time, oldest first."""
        released: list[Joined[ImageT, DetectionsT]] = []
        while self._images:
            head = self._images[0]
            expired = now_s >= head.deadline_s
            over = expired or len(self._images) > self.capacity
            index = self._match(head.stamp_ns, over)
            if index is None and not self._missed(head.stamp_ns):
                if not over:
                    break
                self.pushed_out += not expired
            self._images.popleft()
            self._released_ns = head.stamp_ns
            detections = None
            if index is not None:
                self._joined_ns, detections = self._detections[index]
                del self._detections[index]
            released.append(Joined(head.stamp_ns, head.image, detections))
            self._drop_outdated(head.stamp_ns)
        return released

    def restart(self, stamp_ns: int) -> list[Joined[ImageT, DetectionsT]]:
        """
        Go on after a jump of the stamps; returns the images that were waiting.

        Detections near the new time stay: they may have overtaken their image.
        """
        near = [(detected_ns, detections) for detected_ns, detections in self._detections
                if -self._tolerance_ns <= detected_ns - stamp_ns <= OVERTAKEN_NS]
        waiting = self.clear()
        self.unused_detections -= len(near)
        self._detections.extend(near)
        self._newest_detections_ns = near[-1][0] if near else None
        return waiting

    def clear(self) -> list[Joined[ImageT, DetectionsT]]:
        """Forget everything; returns the images that were waiting."""
        waiting = [Joined[ImageT, DetectionsT](entry.stamp_ns, entry.image, None)
                   for entry in self._images]
        self.unused_detections += len(self._detections)
        self._images.clear()
        self._detections.clear()
        self._newest_image_ns = None
        self._newest_detections_ns = None
        self._released_ns = self._joined_ns = None
        return waiting

    @property
    def _tolerance_ns(self) -> int:
        return max(SAME_STAMP_NS, round(self.tolerance_s * 1e9))

    def _match(self, stamp_ns: int, over: bool) -> int | None:
        """Index of the detections for the oldest image, or None while there are none."""
        best: tuple[int, int] | None = None
        for index, (detected_ns, _) in enumerate(self._detections):
            distance = abs(detected_ns - stamp_ns)
            if distance <= SAME_STAMP_NS:
                return index
            if distance > self._tolerance_ns or self._belongs_elsewhere(detected_ns, over):
                continue
            if best is None or distance < best[0]:
                best = distance, index
        return None if best is None else best[1]

    def _belongs_elsewhere(self, detected_ns: int, over: bool) -> bool:
        """Whether detections near the oldest image are, or may be, those of a later one."""
        head = self._images[0].stamp_ns
        nearest = min((entry.stamp_ns for entry in self._images),
                      key=lambda stamp: abs(stamp - detected_ns))
        if nearest != head:
            return True
        newest = self._newest_image_ns
        # Its image may still be on the way, until a newer image has come or the wait is over.
        return not over and newest is not None and detected_ns > newest

    def _missed(self, stamp_ns: int) -> bool:
        """Whether detections newer than the image show that its own will not come."""
        newest = self._newest_detections_ns
        return newest is not None and newest > stamp_ns + self._tolerance_ns

    def _drop_outdated(self, released_ns: int) -> None:
        """Drop detections that are too old for every image still to come."""
        oldest = released_ns + SAME_STAMP_NS - self._tolerance_ns
        while self._detections and self._detections[0][0] < oldest:
            self._detections.popleft()
            self.unused_detections += 1
