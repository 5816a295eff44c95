"""Bring each image together with its detections: exact stamp, then a tolerance, bounded wait."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

ImageT = TypeVar('ImageT')
DetectionsT = TypeVar('DetectionsT')

# Stamps that went through float seconds differ by up to 240 ns, those cut to microseconds by
# up to 1000 ns; no camera is that fast.
SAME_STAMP_NS = 1_000

# Detections this much newer than the first image after a jump are taken for those of the
# images that follow it.
OVERTAKEN_NS = 2_000_000_000

# A source is silent after this many images in a row that waited for it in vain, if also nothing
# came from it for so long; images wait for it no more until it is heard again.
SILENT_IMAGES = 3
SILENT_S = 1.0

# Gaps between a source's stamps from which its rhythm is read, and the part of its shortest gap
# that must have passed before its next detections are waited for.
RHYTHM_GAPS = 4
RHYTHM_PART = 0.9


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
    parts : tuple
        Detections of each source; ``None`` where none came in time.
    late : tuple of bool
        Which sources were due, or are silent, and gave nothing.

    """

    stamp_ns: int
    image: ImageT
    parts: tuple[DetectionsT | None, ...]
    late: tuple[bool, ...]


@dataclass
class _Image(Generic[ImageT]):
    stamp_ns: int
    image: ImageT
    deadline_s: float


@dataclass
class _Source(Generic[DetectionsT]):
    """What came from one source and waits for its image."""

    waiting: deque[tuple[int, DetectionsT]] = field(default_factory=deque)
    newest_ns: int | None = None
    joined_ns: int | None = None
    gaps_ns: deque[int] = field(default_factory=lambda: deque(maxlen=RHYTHM_GAPS))
    heard_s: float = 0.0
    in_vain: int = 0
    """Images in a row that waited for it to the end, with nothing coming from it meanwhile."""

    def add(self, stamp_ns: int, detections: DetectionsT, now_s: float) -> None:
        self.heard_s = now_s
        self.in_vain = 0
        if self.newest_ns is not None and stamp_ns <= self.newest_ns:
            place = sum(known <= stamp_ns for known, _ in self.waiting)
            self.waiting.insert(place, (stamp_ns, detections))
            return
        if self.newest_ns is not None:
            self.gaps_ns.append(stamp_ns - self.newest_ns)
        self.newest_ns = stamp_ns
        self.waiting.append((stamp_ns, detections))

    def is_silent(self, now_s: float) -> bool:
        """Whether waiting for it makes no sense."""
        return self.in_vain >= SILENT_IMAGES and now_s - self.heard_s >= SILENT_S

    def is_between(self, stamp_ns: int) -> bool:
        """Whether, by its rhythm, its next detections belong to a later image."""
        if self.newest_ns is None or len(self.gaps_ns) < RHYTHM_GAPS:
            return False
        return stamp_ns - self.newest_ns < RHYTHM_PART * min(self.gaps_ns)


class DetectionJoin(Generic[ImageT, DetectionsT]):
    """
    Pairs images with detections of the same acquisition time from one or several sources.

    Both must be added in order of their stamps (images older than the newest one are the
    caller's business); either may arrive first. For each source an image is settled as soon as
    one of these holds:

    - detections with the same stamp are there;
    - detections within the tolerance are there that cannot belong to a later image;
    - newer detections are there, so its own were never made (a detector that drops frames);
    - the source has been silent for some images;
    - another source has detections for the image, and by the rhythm of this one its next belong
      to a later image (a detector slower than the camera).

    It leaves, in stamp order, when all sources are settled, or when it waited for `wait_s`, or
    when more than `capacity` images wait.

    Parameters
    ----------
    tolerance_s : float
        Largest difference of two stamps that still belong together.
    wait_s : float
        Longest time an image waits.
    capacity : int
        Most images that wait.
    sources : int
        Number of sources of detections.

    """

    def __init__(
        self, tolerance_s: float, wait_s: float, capacity: int, sources: int = 1,
    ) -> None:
        self.tolerance_s = tolerance_s
        self.wait_s = wait_s
        self.capacity = capacity
        self.unused_detections = 0
        """Detections that found no image so far."""
        self.pushed_out = 0
        """Images that left because more than `capacity` waited."""
        self._released_ns: int | None = None
        self._images: deque[_Image[ImageT]] = deque()
        self._newest_image_ns: int | None = None
        self._sources: list[_Source[DetectionsT]] = [_Source() for _ in range(sources)]

    def __len__(self) -> int:
        """Return how many images wait."""
        return len(self._images)

    @property
    def deadline_s(self) -> float | None:
        """When the oldest image has waited long enough; None while none waits."""
        return self._images[0].deadline_s if self._images else None

    def is_silent(self, source: int, now_s: float) -> bool:
        """Whether images do not wait for a source any more."""
        return self._sources[source].is_silent(now_s)

    def is_late(self, stamp_ns: int, source: int = 0) -> bool:
        """Whether detections of this stamp come after their image has left without them."""
        return (self._released_ns is not None and stamp_ns <= self._released_ns
                and stamp_ns != self._sources[source].joined_ns)

    def add_image(
        self, stamp_ns: int, image: ImageT, now_s: float,
    ) -> list[Joined[ImageT, DetectionsT]]:
        """Add an image; returns the images that need to wait no longer, oldest first."""
        self._images.append(_Image(stamp_ns, image, now_s + self.wait_s))
        self._newest_image_ns = stamp_ns
        return self.release(now_s)

    def add_detections(
        self, stamp_ns: int, detections: DetectionsT, now_s: float, source: int = 0,
    ) -> list[Joined[ImageT, DetectionsT]]:
        """Add detections; returns the images that need to wait no longer, oldest first."""
        waiting = self._sources[source].waiting
        self._sources[source].add(stamp_ns, detections, now_s)
        released = self.release(now_s)
        while len(waiting) > self.capacity:
            waiting.popleft()
            self.unused_detections += 1
        return released

    def release(self, now_s: float) -> list[Joined[ImageT, DetectionsT]]:
        """Return the images that need to wait no longer at this time, oldest first."""
        released: list[Joined[ImageT, DetectionsT]] = []
        while self._images:
            head = self._images[0]
            expired = now_s >= head.deadline_s
            over = expired or len(self._images) > self.capacity
            indices = [self._match(source, head.stamp_ns, over) for source in self._sources]
            missing = self._missing(head.stamp_ns, indices, now_s)
            late = tuple(waited or (index is None and source.is_silent(now_s))
                         for source, index, waited
                         in zip(self._sources, indices, missing, strict=True))
            if any(missing):
                if not over:
                    break
                self.pushed_out += not expired
                if expired:
                    for source, waited in zip(self._sources, missing, strict=True):
                        source.in_vain += waited
            self._images.popleft()
            self._released_ns = head.stamp_ns
            parts = tuple(self._take(source, index)
                          for source, index in zip(self._sources, indices, strict=True))
            released.append(Joined(head.stamp_ns, head.image, parts, late))
            self._drop_outdated(head.stamp_ns)
        return released

    def restart(self, stamp_ns: int) -> list[Joined[ImageT, DetectionsT]]:
        """
        Go on after a jump of the stamps; returns the images that were waiting.

        Detections near the new time stay: they may have overtaken their image.
        """
        near = [[(detected_ns, detections) for detected_ns, detections in source.waiting
                 if -self._tolerance_ns <= detected_ns - stamp_ns <= OVERTAKEN_NS]
                for source in self._sources]
        waiting = self.clear()
        for source, kept in zip(self._sources, near, strict=True):
            self.unused_detections -= len(kept)
            source.waiting.extend(kept)
            source.newest_ns = kept[-1][0] if kept else None
        return waiting

    def clear(self) -> list[Joined[ImageT, DetectionsT]]:
        """Forget everything; returns the images that were waiting."""
        nothing = (None,) * len(self._sources)
        waiting = [Joined[ImageT, DetectionsT](
            entry.stamp_ns, entry.image, nothing, (True,) * len(self._sources))
            for entry in self._images]
        self._images.clear()
        for source in self._sources:
            self.unused_detections += len(source.waiting)
            source.waiting.clear()
            source.newest_ns = source.joined_ns = None
            source.gaps_ns.clear()
            source.in_vain = 0
        self._newest_image_ns = None
        self._released_ns = None
        return waiting

    @property
    def _tolerance_ns(self) -> int:
        return max(SAME_STAMP_NS, round(self.tolerance_s * 1e9))

    def _match(
        self, source: _Source[DetectionsT], stamp_ns: int, over: bool,
    ) -> int | None:
        """Index of the detections for the oldest image, or None while there are none."""
        best: tuple[int, int] | None = None
        for index, (detected_ns, _) in enumerate(source.waiting):
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

    def _missing(
        self, stamp_ns: int, indices: list[int | None], now_s: float,
    ) -> list[bool]:
        """Tell which sources the oldest image has to wait for."""
        some = any(index is not None for index in indices)
        missing = []
        for source, index in zip(self._sources, indices, strict=True):
            newest = source.newest_ns
            # Detections newer than the image show that its own will not come.
            settled = index is not None or (
                newest is not None and newest > stamp_ns + self._tolerance_ns)
            settled = settled or source.is_silent(now_s) or (some and source.is_between(stamp_ns))
            missing.append(not settled)
        return missing

    def _take(self, source: _Source[DetectionsT], index: int | None) -> DetectionsT | None:
        if index is None:
            return None
        source.joined_ns, detections = source.waiting[index]
        del source.waiting[index]
        return detections

    def _drop_outdated(self, released_ns: int) -> None:
        """Drop detections that are too old for every image still to come."""
        oldest = released_ns + SAME_STAMP_NS - self._tolerance_ns
        for source in self._sources:
            while source.waiting and source.waiting[0][0] < oldest:
                source.waiting.popleft()
                self.unused_detections += 1
