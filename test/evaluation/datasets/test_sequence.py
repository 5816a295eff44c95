"""The common form of every data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
from masa_ros.evaluation.datasets.sequence import (
    inside_fraction,
    regular_stamps_ns,
    Sequence,
    sized_by_boxes,
    with_ids,
)
from masa_ros.structures.instances import Instances
import numpy as np
import pytest


def make(count: int = 6) -> Sequence:
    indices = np.arange(count, dtype=np.int64)
    truth = tuple(with_ids(Instances.from_boxes([[i, 0, i + 4, 4]]), [1]) for i in range(count))
    return Sequence('s', indices, regular_stamps_ns(indices, 10.0), 10.0, truth=truth)


def test_a_stride_keeps_times_and_lowers_the_rate() -> None:
    strided = make(6).strided(5)
    assert strided.frame_indices.tolist() == [0, 5]
    assert strided.stamps_ns.tolist() == [0, 500_000_000]
    assert strided.rate_hz == 2.0
    assert [frame.boxes[0, 0] for frame in strided.truth] == [0, 5]


def test_an_unknown_image_size_is_the_smallest_that_holds_all_boxes() -> None:
    assert (sized_by_boxes(make(6)).height_px, sized_by_boxes(make(6)).width_px) == (4, 9)
    known = replace(make(6), height_px=10, width_px=20)
    assert sized_by_boxes(known) is known


def test_a_stride_below_one_is_an_error() -> None:
    with pytest.raises(ValueError, match='stride is 0, expected 1'):
        make().strided(0)


def test_stamps_that_stand_still_are_an_error() -> None:
    with pytest.raises(ValueError, match='frame 1 has stamp 0 ns after 0 ns'):
        Sequence('s', np.arange(2), np.zeros(2, np.int64), 10.0)


def test_a_list_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(ValueError, match='3 frames but 1 truth'):
        Sequence('s', np.arange(3), np.arange(3), 1.0, truth=make(1).truth)


def test_an_image_is_read_as_rgb(tmp_path: Path) -> None:
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), np.full((4, 5, 3), (0, 0, 200), np.uint8))  # Red, in BGR.
    sequence = Sequence('s', np.arange(1), np.arange(1), 1.0, (path,))
    assert sequence.frame(0).image[0, 0].tolist() == [200, 0, 0]


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    sequence = Sequence('s', np.arange(1), np.arange(1), 1.0, (tmp_path / 'gone.png',))
    with pytest.raises(FileNotFoundError, match=r'gone\.png is missing; sequence s needs it'):
        sequence.image(0)
    with pytest.raises(FileNotFoundError, match='read without its images'):
        make().image(0)


def test_the_share_inside_a_region_is_of_the_own_area() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 0, 2, 2], [9, 9, 9, 12]], np.float32)
    regions = np.array([[2, 0, 8, 8], [0, 0, 4, 1]], np.float32)
    assert inside_fraction(boxes, regions).tolist() == [0.5, 0.5, 0.0]
    assert inside_fraction(boxes, np.zeros((0, 4), np.float32)).tolist() == [0, 0, 0]
