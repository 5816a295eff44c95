"""The rendered street and its truth."""

from __future__ import annotations

import cv2
from masa_ros.rendering import Scene, SceneConfig
from masa_ros.rendering.mesh import VEHICLES
from masa_ros.rendering.traffic import _ROOM_M, CLASS_NAMES
from masa_ros.structures.masks import label_image
import numpy as np
import pytest

SMALL = SceneConfig(width_px=320, height_px=180, num_objects=25, duration_s=6.0, view='high')


@pytest.fixture(scope='module')
def scene() -> Scene:
    return Scene(5, SMALL)


def test_equal_seeds_give_equal_pixels_in_any_order(scene: Scene) -> None:
    late, early = scene.render(3.0), scene.render(1.0)
    again = Scene(5, SMALL)
    np.testing.assert_array_equal(again.render(1.0).image, early.image)
    np.testing.assert_array_equal(again.render(3.0).image, late.image)
    np.testing.assert_array_equal(again.render(3.0).truth.track_ids, late.truth.track_ids)


def test_other_seeds_give_other_streets(scene: Scene) -> None:
    other = Scene(6, SMALL).render(1.0).image.astype(int)
    assert np.abs(other - scene.render(1.0).image).mean() > 10


def test_masks_do_not_overlap_and_fill_their_boxes(scene: Scene) -> None:
    for time_s in (0.0, 2.0, 4.0):
        truth = scene.render(time_s).truth
        planes = [mask.paste(180, 320) for mask in truth.masks]
        assert np.sum(planes, axis=0).max() <= 1
        for plane, box in zip(planes, truth.visible_boxes, strict=True):
            if plane.any():
                rows, columns = np.nonzero(plane)
                np.testing.assert_array_equal(
                    box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            else:
                np.testing.assert_array_equal(box, 0)


def test_visible_pixels_lie_inside_the_whole_silhouette(scene: Scene) -> None:
    truth = scene.render(2.0).truth
    seen = truth.visibilities > 0
    assert seen.any()
    visible, amodal = truth.visible_boxes[seen], truth.amodal_boxes[seen]
    assert (visible[:, :2] >= amodal[:, :2] - 1).all()
    assert (visible[:, 2:] <= amodal[:, 2:] + 1).all()
    assert (truth.visibilities >= 0).all()
    assert (truth.visibilities <= 1).all()


def test_masks_lie_where_the_objects_change_the_picture() -> None:
    """The picture with and without objects differs inside the masks and hardly elsewhere."""
    config = SceneConfig(320, 180, num_objects=12, num_props=0, noise=0.0, shadow_strength=0.0,
                         duration_s=6.0, view='corner')
    scene = Scene(5, config)
    frame = scene.render(2.0)
    scene.actors = []
    empty = scene.render(2.0).image
    changed = np.abs(frame.image.astype(int) - empty).max(axis=2) > 6
    masked = label_image(frame.truth.masks, range(1, len(frame.truth) + 1), 180, 320) > 0
    border = cv2.dilate(masked.astype(np.uint8), np.ones((3, 3))) > 0
    assert masked.sum() > 500
    assert changed[masked].mean() > 0.9
    assert changed[~border].mean() < 0.01  # Objects too small for the truth.


def test_visibility_is_the_share_that_nearer_objects_leave() -> None:
    scene = Scene(5, SMALL)
    together = scene.render(2.0).truth
    row = int(np.argmax((together.visibilities > 0.2) & (together.visibilities < 0.8)))
    assert 0.2 < together.visibilities[row] < 0.8
    inside = together.amodal_boxes[row]
    assert inside[0] >= 0
    assert inside[2] <= 320
    assert inside[3] <= 180
    scene.actors = [actor for actor in scene.actors if actor.track_id == together.track_ids[row]]
    scene._props = []
    alone = scene.render(2.0).truth
    assert alone.visibilities[0] == pytest.approx(1.0)
    ratio = together.masks[row].area / alone.masks[0].area
    assert together.visibilities[row] == pytest.approx(ratio)


def test_identities_keep_their_class(scene: Scene) -> None:
    classes: dict[int, int] = {}
    for time_s in np.arange(0, 6, 1.0):
        truth = scene.render(float(time_s)).truth
        assert len(set(truth.track_ids)) == len(truth)
        for track_id, class_id, label in zip(
                truth.track_ids, truth.class_ids, truth.labels, strict=True):
            assert classes.setdefault(int(track_id), int(class_id)) == class_id
            assert CLASS_NAMES[class_id] == label
    assert len(set(classes.values())) >= 3


def test_objects_enter_and_leave(scene: Scene) -> None:
    first, last = scene.render(0.0).truth, scene.render(6.0).truth
    assert set(first.track_ids) - set(last.track_ids)
    assert set(last.track_ids) - set(first.track_ids)


def test_nobody_runs_into_anybody(scene: Scene) -> None:
    times = np.arange(0, 6, 0.2)
    for i, one in enumerate(scene.actors):
        for other in scene.actors[:i]:
            gap = np.abs(one.path.positions(times) - other.path.positions(times))[:, ::2]
            needed = np.add(_ROOM_M[CLASS_NAMES[one.class_id]],
                            _ROOM_M[CLASS_NAMES[other.class_id]])
            assert (gap > needed).any(axis=1).all()


def test_an_empty_street_has_no_truth() -> None:
    frame = Scene(1, SceneConfig(160, 90, num_objects=0, num_props=0)).render(0.0)
    assert frame.image.shape == (90, 160, 3)
    assert len(frame.truth) == 0
    assert frame.truth.visible_boxes.shape == (0, 4)


def test_motion_blur_leaves_the_truth_alone(scene: Scene) -> None:
    blurred = Scene(5, SceneConfig(320, 180, num_objects=25, duration_s=6.0, view='high',
                                   exposures=3, exposure_s=0.1))
    sharp, soft = scene.render(2.0), blurred.render(2.0)
    np.testing.assert_array_equal(sharp.truth.visible_boxes, soft.truth.visible_boxes)
    assert np.abs(sharp.image.astype(int) - soft.image).mean() > 0.5


@pytest.mark.parametrize('view', ['street', 'corner', 'across', 'high'])
def test_every_point_of_view_shows_a_textured_street(view: str) -> None:
    image = Scene(3, SceneConfig(160, 90, num_objects=10, view=view)).render(1.0).image
    assert image.std() > 20
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 1000


@pytest.mark.parametrize('name', sorted(VEHICLES))
def test_vehicles_stand_on_the_ground(name: str) -> None:
    mesh = VEHICLES[name](np.random.default_rng(0))
    assert mesh.points[:, 1].min() >= -1e-9
    assert len(mesh.normals) == len(mesh.starts) - 1
    np.testing.assert_allclose(np.linalg.norm(mesh.normals, axis=1), 1, atol=1e-9)
