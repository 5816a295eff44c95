"""Counters, rates and latencies of the node, and what /diagnostics says about them."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
import threading

# Rates and latencies are over the images of this many seconds.
WINDOW_S = 5.0
LOG_EVERY_S = 5.0
# Texts that were logged are remembered up to here; beyond, old ones are forgotten.
MOST_LOGGED = 500

# A latency beyond this is no latency: stamps and clock do not belong together.
FOREIGN_CLOCK_S = 3600.0


@dataclass(frozen=True)
class Snapshot:
    """
    State of the monitor at one time.

    Parameters
    ----------
    received, processed : int
        Images since the start.
    dropped : dict
        Images since the start that were received but not processed, by reason.
    problems : dict
        Other things that went wrong since the start, by name.
    input_rate_hz, output_rate_hz : float
        Over the last seconds.
    latency_s, worst_latency_s : float or None
        Median and largest age of the images at publication over the last seconds; ``None``
        where there were none, or stamps and clock do not belong together.
    foreign_clock : bool
        Whether they do not.
    stage_times_ms : dict
        Mean time of each stage over the last seconds.
    since_last_image_s : float or None
        Time since an image was received; ``None`` before the first.

    """

    received: int
    processed: int
    dropped: dict[str, int]
    problems: dict[str, int]
    input_rate_hz: float
    output_rate_hz: float
    latency_s: float | None
    worst_latency_s: float | None
    foreign_clock: bool
    stage_times_ms: dict[str, float]
    since_last_image_s: float | None


@dataclass
class _Done:
    at_s: float
    latency_s: float
    stages_ms: dict[str, float] = field(default_factory=dict)


class Monitor:
    """
    Counts what happens to images; every method may be called from any thread.

    Times are those of a monotonic clock in seconds, given by the caller.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = 0
        self._processed = 0
        self._dropped: Counter[str] = Counter()
        self._reported_drops = 0
        self._problems: Counter[str] = Counter()
        self._arrivals: deque[float] = deque()
        self._done: deque[_Done] = deque()
        self._logged: dict[str, float] = {}

    def received(self, now_s: float) -> None:
        """Count an image that arrived."""
        with self._lock:
            self._received += 1
            self._arrivals.append(now_s)
            _forget(self._arrivals, now_s)

    def dropped(self, reason: str, count: int = 1) -> None:
        """Count images that will not be processed."""
        if count:
            with self._lock:
                self._dropped[reason] += count

    def problem(self, name: str, count: int = 1) -> None:
        """Count something that went wrong without costing an image."""
        if count:
            with self._lock:
                self._problems[name] += count

    def processed(self, now_s: float, latency_s: float, stages_ms: dict[str, float]) -> None:
        """Count an image whose objects were published."""
        with self._lock:
            self._processed += 1
            self._done.append(_Done(now_s, latency_s, stages_ms))
            while self._done and self._done[0].at_s < now_s - WINDOW_S:
                self._done.popleft()

    def take_drops(self) -> int:
        """Return images dropped since the previous call."""
        with self._lock:
            total = sum(self._dropped.values())
            fresh = total - self._reported_drops
            self._reported_drops = total
        return fresh

    def should_log(self, what: str, now_s: float) -> bool:
        """Whether a repeated message is due again; each text of `what` has its own clock."""
        with self._lock:
            last = self._logged.get(what)
            due = last is None or now_s - last >= LOG_EVERY_S
            if due:
                if len(self._logged) >= MOST_LOGGED:
                    self._logged = {text: at for text, at in self._logged.items()
                                    if now_s - at < LOG_EVERY_S}
                self._logged[what] = now_s
        return due

    def snapshot(self, now_s: float) -> Snapshot:
        """Return all numbers at this time."""
        with self._lock:
            last = self._arrivals[-1] if self._arrivals else None
            _forget(self._arrivals, now_s, keep=1)
            arrivals = [at for at in self._arrivals if at >= now_s - WINDOW_S]
            done = [entry for entry in self._done if entry.at_s >= now_s - WINDOW_S]
            latencies = sorted(entry.latency_s for entry in done)
            foreign = any(abs(value) > FOREIGN_CLOCK_S for value in latencies)
            known = bool(latencies) and not foreign
            return Snapshot(
                self._received, self._processed, dict(self._dropped), dict(self._problems),
                _rate(arrivals), _rate([entry.at_s for entry in done]),
                latencies[len(latencies) // 2] if known else None,
                latencies[-1] if known else None, foreign, _mean_stages(done),
                None if last is None else now_s - last)


def _forget(times: deque[float], now_s: float, keep: int = 0) -> None:
    while len(times) > keep and times[0] < now_s - WINDOW_S:
        times.popleft()


def _rate(times: list[float]) -> float:
    """Events per second from the intervals between them; 0 with fewer than two."""
    if len(times) < 2 or times[-1] <= times[0]:
        return 0.0
    return (len(times) - 1) / (times[-1] - times[0])


def _mean_stages(done: list[_Done]) -> dict[str, float]:
    names = list(dict.fromkeys(name for entry in done for name in entry.stages_ms))
    return {name: sum(entry.stages_ms.get(name, 0.0) for entry in done) / len(done)
            for name in names}
