"""Truth in ignored parts of the image does not count; shares worked by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
from masa_ros.cli.ignored_truth import image_size, without_ignored_truth
from masa_ros.evaluation.datasets.sequence import Sequence, with_ids
from masa_ros.evaluation.scores import score_sequence
from masa_ros.regions import Regions, RegionsConfig
from masa_ros.structures.instances import Instances
import numpy as np
import pytest

LOWER_HALF = '0,20 60,20 60,40 0,40'  # Of 60 x 40 pixels.


def ignoring(*polygons: str, share: float = 0.5) -> Regions:
    return Regions(RegionsConfig(ignore_polygons=polygons, share=share))


def sequence(*boxes: list[int], height_px: int = 40, width_px: int = 60) -> Sequence:
    truth = with_ids(Instances.from_boxes(list(boxes)), range(len(boxes)))
    return Sequence('s', np.arange(1), np.arange(1), 1.0, height_px=height_px, width_px=width_px,
                    truth=(truth,))


def test_what_is_mostly_ignored_is_neither_truth_nor_false() -> None:
    # Of their heights of 10, from row 20 on: 4, exactly 5, 6 and all are ignored.
    boxes = [[0, 14, 9, 24], [10, 15, 19, 25], [20, 16, 29, 26], [30, 25, 39, 35]]
    left, count = without_ignored_truth(sequence(*boxes), ignoring(LOWER_HALF))
    assert count == 2
    assert left.truth[0].track_ids.tolist() == [0, 1]
    assert left.distractors[0].tolist() == boxes[2:]
    # A result on the third, a row higher (9 of 11 rows common), has half of its height outside.
    found = with_ids(Instances.from_boxes([*boxes[:2], [20, 15, 29, 25]]), [5, 6, 7])
    table = score_sequence(left, [found]).table()
    assert (table['FN'], table['FP'], table['HOTA']) == (0, 0, 1)
    all_truth = score_sequence(sequence(*boxes), [found]).table()
    assert (all_truth['FN'], all_truth['FP']) == (1, 0)


def test_distractors_of_the_data_set_stay() -> None:
    known = replace(sequence([30, 25, 39, 35]),
                    distractors=(np.array([[1, 1, 5, 5]], np.float32),))
    left, _ = without_ignored_truth(known, ignoring(LOWER_HALF))
    assert left.distractors[0].tolist() == [[1, 1, 5, 5], [30, 25, 39, 35]]


def test_a_sequence_without_truth_stays_as_it_is() -> None:
    plain = replace(sequence(), truth=())
    assert without_ignored_truth(plain, ignoring(LOWER_HALF)) == (plain, 0)
    empty, count = without_ignored_truth(sequence(), ignoring(LOWER_HALF))
    assert (len(empty.truth[0]), count) == (0, 0)


def test_regions_that_do_not_fit_name_the_sequence() -> None:
    with pytest.raises(ValueError, match='sequence s: the regions leave nothing of an image'):
        without_ignored_truth(replace(sequence(), truth=()), ignoring('0,0 60,0 60,40 0,40'))


def test_the_size_of_images_is_that_of_the_first_where_nothing_tells(tmp_path: Path) -> None:
    unknown = sequence(height_px=0, width_px=0)
    with pytest.raises(ValueError, match='sequence s does not tell the size of its images'):
        image_size(unknown)
    path = tmp_path / '1.png'
    cv2.imwrite(str(path), np.zeros((7, 9, 3), np.uint8))
    assert image_size(replace(unknown, image_paths=(path,))) == (7, 9)
    assert image_size(sequence()) == (40, 60)
