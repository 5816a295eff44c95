"""
MOTChallenge text: one line for each object of each frame.

``frame, id, left, top, width, height, confidence, class, visibility``, frames and pixels counted
from 1. The class is the one of the detector plus 1 (the format counts classes from 1) and -1 where
it is unknown; the visibility is not known to a tracker and -1. Only objects that were seen in the
frame get a line. `masa_ros.evaluation.datasets.motchallenge` reads the format.
"""

from __future__ import annotations

from pathlib import Path

from masa_ros.evaluation.formats.append import AppendFile
from masa_ros.structures.instances import TrackedInstances


def format_rows(frame_index: int, tracks: TrackedInstances) -> str:
    """
    Lines of one frame, each ending with a newline; empty where nothing was seen.

    Parameters
    ----------
    frame_index : int
        Position in the sequence, from 0.
    tracks : TrackedInstances
        Objects of the frame.

    """
    seen = tracks.select(tracks.seen)
    lines = []
    for track_id, box, score, class_id in zip(
            seen.track_ids.tolist(), seen.boxes.tolist(), seen.scores.tolist(),
            seen.class_ids.tolist(), strict=True):
        x0, y0, x1, y1 = box
        number = class_id + 1 if class_id >= 0 else -1
        lines.append(f'{frame_index + 1},{track_id},{x0 + 1:.2f},{y0 + 1:.2f},{x1 - x0:.2f},'
                     f'{y1 - y0:.2f},{score:.4f},{number},-1\n')
    return ''.join(lines)


class MotWriter:
    """
    Writes a result file frame by frame; whole lines only.

    Parameters
    ----------
    path : Path
        File to write.

    """

    def __init__(self, path: Path) -> None:
        self._file = AppendFile(path)

    def write(self, frame_index: int, tracks: TrackedInstances) -> None:
        """Append the objects of a frame."""
        self._file.write(format_rows(frame_index, tracks))

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
