"""Online tracker (being written): boxes with embeddings in, identities out."""

from __future__ import annotations

from dataclasses import dataclass

from masa_ros.structures.settings import setting


@dataclass(frozen=True)
class TrackerConfig:
    """How instances become tracks."""

    match_threshold: float = setting(
        0.5, 'Lowest similarity of a match.', minimum=0.0, maximum=1.0, dynamic=True)
