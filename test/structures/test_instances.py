from __future__ import annotations

from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Flag, Instances, TrackedInstances
import numpy as np
import pytest


def test_missing_fields_get_neutral_values() -> None:
    instances = Instances.from_boxes([[0, 0, 2, 2], [1, 1, 4, 4]])
    assert instances.scores.tolist() == [1, 1]
    assert instances.class_ids.tolist() == [-1, -1]
    assert instances.labels == ('', '')
    assert instances.flags.tolist() == [Flag.FROM_DETECTION] * 2
    assert np.isnan(instances.mask_qualities).all()


def test_selection_keeps_rows_together() -> None:
    instances = Instances.from_boxes(
        [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]], [0.1, 0.2, 0.3], [4, 5, 6], ['a', 'b', 'c'])
    picked = instances.select([2, 0])
    assert picked.labels == ('c', 'a')
    assert picked.class_ids.tolist() == [6, 4]
    assert instances.select(np.array([False, True, False])).labels == ('b',)
    assert len(instances.select([])) == 0


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match='2 boxes but 1 scores'):
        Instances.from_boxes([[0, 0, 1, 1], [0, 0, 1, 1]], [0.5])


def test_no_objects_is_an_ordinary_frame() -> None:
    assert len(Instances()) == 0
    assert len(Instances.from_boxes([])) == 0
    assert TrackedInstances().seen.shape == (0,)


@pytest.mark.parametrize('image', [
    np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32),
    None])
def test_a_frame_refuses_what_is_not_an_rgb_image(image: object) -> None:
    with pytest.raises(ValueError, match='expected a non-empty'):
        Frame(image, 0, 0)  # type: ignore[arg-type]
