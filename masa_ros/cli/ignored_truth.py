"""The ground truth in parts of the image that do not count; see `masa_ros.regions`."""

from __future__ import annotations

from dataclasses import replace

from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.regions import Regions, RegionsConfig
import numpy as np


def image_size(sequence: Sequence) -> tuple[int, int]:
    """
    Return height and width of the images of a sequence.

    Raises
    ------
    ValueError
        If it was read without its images and does not say.

    """
    if sequence.height_px and sequence.width_px:
        return sequence.height_px, sequence.width_px
    if not sequence.image_paths:
        raise ValueError(f'sequence {sequence.name} does not tell the size of its images, and '
                         'regions need it; give the folder of the images')
    height, width = sequence.image(0).shape[:2]
    return height, width


def without_ignored_truth(sequence: Sequence, regions: Regions) -> tuple[Sequence, int]:
    """
    Leave out of the truth what lies in the ignored part of the images, judged by its boxes.

    What was left out is neither right nor wrong from then on (`Sequence.distractors`): a result
    that lies on it, just outside, is not false.

    Parameters
    ----------
    sequence : Sequence
        With or without truth.
    regions : Regions
        What is ignored.

    Returns
    -------
    sequence : Sequence
        With the rest of the truth.
    left_out : int
        How many boxes were left out of it.

    Raises
    ------
    ValueError
        If the regions do not fit the images of the sequence, or their size is not known.

    """
    size = image_size(sequence)
    try:
        regions.area(*size)  # Refuses what does not fit, also where there is no truth.
    except ValueError as error:
        raise ValueError(f'sequence {sequence.name}: {error}') from error
    if not sequence.truth:
        return sequence, 0
    kept = [regions.keeps(frame, *size, by_mask=False) for frame in sequence.truth]
    ignored = [frame.boxes[~rows] for frame, rows in zip(sequence.truth, kept, strict=True)]
    if sequence.distractors:
        ignored = [np.concatenate(both)
                   for both in zip(sequence.distractors, ignored, strict=True)]
    return (replace(sequence.select_truth(kept), distractors=tuple(ignored)),
            sum(int((~rows).sum()) for rows in kept))


def in_regions(sequences: list[Sequence], config: RegionsConfig) -> list[Sequence]:
    """
    Leave the truth in ignored parts of the images out, where ``regions.*`` names some.

    Raises
    ------
    FileNotFoundError
        If an image file is not there.
    ValueError
        If the regions do not fit the images of a sequence.

    """
    regions = Regions(config)
    if not regions:
        return sequences
    pairs = [without_ignored_truth(sequence, regions) for sequence in sequences]
    total = sum(len(frame) for sequence in sequences for frame in sequence.truth)
    if total:
        print(f'{sum(left_out for _, left_out in pairs)} of {total} boxes of the truth are in '
              'ignored regions and do not count')
    return [sequence for sequence, _ in pairs]
