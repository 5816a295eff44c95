"""Overlays and contact sheets."""

from __future__ import annotations

from typing import Any

from masa_ros.structures.instances import Flag, Instances, TrackedInstances, TrackState
from masa_ros.structures.masks import encode_crop
from masa_ros.visualization import (
    BACKGROUND,
    contact_sheet,
    draw_tracks,
    PALETTE,
    track_color,
    Trails,
)
import numpy as np
from numpy.typing import ArrayLike, NDArray
import pytest

GREY = 100


def blank(height: int = 120, width: int = 160) -> NDArray[np.uint8]:
    return np.full((height, width, 3), GREY, np.uint8)


def make_tracks(boxes: ArrayLike, **changes: Any) -> TrackedInstances:
    """Tracked rows with ids from 1, without masks; fields can be replaced."""
    plain = Instances.from_boxes(boxes)
    rows = len(plain)
    values: dict[str, Any] = {
        'track_ids': np.arange(1, rows + 1), 'uuids': (bytes(16),) * rows,
        'states': np.full(rows, TrackState.TRACKED, np.uint8),
        'first_seen_ns': np.zeros(rows, np.int64), 'last_seen_ns': np.zeros(rows, np.int64),
        'ages': np.zeros(rows, np.int64), 'similarities': np.ones(rows, np.float32),
        'margins': np.ones(rows, np.float32), 'boxes': plain.boxes, 'scores': plain.scores,
        'class_ids': plain.class_ids, 'labels': plain.labels, 'flags': plain.flags,
        'masks': plain.masks, 'mask_qualities': plain.mask_qualities, **changes}
    return TrackedInstances(**values)


def changed(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return np.asarray((image != GREY).any(axis=2))


def test_the_image_given_is_left_alone() -> None:
    image = blank()
    drawn = draw_tracks(image, make_tracks([[20, 30, 60, 90]]))
    assert not changed(image).any()
    assert changed(drawn).any()


def test_nothing_to_draw_gives_an_equal_copy() -> None:
    image = blank()
    drawn = draw_tracks(image, make_tracks(np.zeros((0, 4))))
    np.testing.assert_array_equal(drawn, image)
    assert drawn is not image


def test_a_track_keeps_its_color_wherever_it_goes() -> None:
    first = draw_tracks(blank(), make_tracks([[20, 30, 60, 90]], track_ids=np.array([7])))
    second = draw_tracks(blank(), make_tracks(
        [[5, 5, 30, 30], [80, 40, 120, 100]], track_ids=np.array([3, 7])))
    assert tuple(first[60, 20]) == tuple(second[70, 80]) == track_color(7)
    assert tuple(second[20, 5]) == track_color(3)


def to_oklab(colors: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab of linear RGB (B. Ottosson, "A perceptual color space for image processing")."""
    cones = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                      [0.2119034982, 0.6806995451, 0.1073969566],
                      [0.0883024619, 0.2817188376, 0.6299787005]])
    axes = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                     [1.9779984951, -2.4285922050, 0.4505937099],
                     [0.0259040371, 0.7827717662, -0.8086757660]])
    return np.asarray(np.cbrt(np.clip(colors, 0, 1) @ cones.T) @ axes.T)


@pytest.mark.parametrize('seen', [
    np.eye(3),
    # Protanopia and deuteranopia, Machado, Oliveira and Fernandes 2009, table 1, severity 1.
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
              [-0.003882, -0.048116, 1.051998]]),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
              [-0.011820, 0.042940, 0.968881]]),
])
def test_ten_ids_in_a_row_can_be_told_apart_by_everyone(seen: NDArray[np.float64]) -> None:
    srgb = np.array([track_color(i) for i in range(len(PALETTE) + 9)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    lab = to_oklab(linear @ seen.T)
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=2)
    for start in range(len(PALETTE)):
        window = distances[start:start + 10, start:start + 10]
        # Two greys that differ by 0.02 can be told apart side by side; 0.08 is four such steps.
        assert window[~np.eye(len(window), dtype=bool)].min() > 0.08


def test_masks_tint_exactly_their_pixels() -> None:
    crop = np.zeros((40, 50), bool)
    crop[10:30, 10:40] = True
    tracks = make_tracks([[20, 30, 70, 70]], masks=(encode_crop(crop, 20, 30),))
    drawn = draw_tracks(blank(), tracks, boxes=False, labels=False, mask_opacity=0.5)
    expected = np.zeros((120, 160), bool)
    expected[40:60, 30:60] = True
    np.testing.assert_array_equal(changed(drawn), expected)
    # Outline in full color, inside half of it.
    assert tuple(drawn[40, 45]) == track_color(1)
    np.testing.assert_allclose(drawn[50, 45], (GREY + np.array(track_color(1))) / 2, atol=1)


@pytest.mark.parametrize(('x', 'y'), [(-30, 10), (140, 100), (-30, -20), (500, 10), (10, -90)])
def test_masks_that_leave_the_image_are_cut(x: int, y: int) -> None:
    tracks = make_tracks([[0, 0, 9, 9]], masks=(encode_crop(np.ones((40, 50), bool), x, y),))
    drawn = draw_tracks(blank(), tracks, boxes=False, labels=False)
    expected = np.zeros((120, 160), bool)
    expected[max(y, 0):max(y + 40, 0), max(x, 0):max(x + 50, 0)] = True
    np.testing.assert_array_equal(changed(drawn), expected)


def test_empty_masks_are_ignored() -> None:
    masks = (encode_crop(np.zeros((5, 5), bool), 3, 3), encode_crop(np.zeros((0, 0), bool)))
    tracks = make_tracks([[0, 0, 9, 9], [5, 5, 9, 9]], masks=masks)
    assert not changed(draw_tracks(blank(), tracks, boxes=False, labels=False)).any()


def share_of_edge(state: TrackState) -> float:
    tracks = make_tracks([[20, 30, 140, 90]], states=np.array([state], np.uint8))
    drawn = draw_tracks(blank(), tracks, labels=False)
    return float(changed(drawn)[30, 20:140].mean())


def test_the_line_of_a_box_tells_its_state() -> None:
    assert share_of_edge(TrackState.TRACKED) == 1
    assert share_of_edge(TrackState.TENTATIVE) == 1
    assert 0.5 < share_of_edge(TrackState.COASTING) < 0.7
    assert 0.3 < share_of_edge(TrackState.LOST) < 0.45
    assert share_of_edge(TrackState.REMOVED) == 0


def test_lost_boxes_are_dimmer_than_coasting_ones() -> None:
    states = np.array([TrackState.COASTING, TrackState.LOST], np.uint8)
    tracks = make_tracks([[20, 30, 60, 90], [100, 30, 140, 90]], states=states,
                         track_ids=np.array([2, 2]))
    drawn = draw_tracks(blank(), tracks, labels=False)
    assert tuple(drawn[30, 20]) == track_color(2)
    assert tuple(drawn[30, 100]) == tuple(value // 2 + 48 for value in track_color(2))


def test_boxes_reach_their_edges_and_not_beyond() -> None:
    drawn = draw_tracks(blank(), make_tracks([[20, 30, 60, 90]], states=np.array([0], np.uint8)),
                        labels=False)
    rows, columns = np.nonzero(changed(drawn))
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (20, 30, 60, 90)


@pytest.mark.parametrize('state', [TrackState.TRACKED, TrackState.COASTING, TrackState.LOST])
@pytest.mark.parametrize('box', [
    [-1e9, -1e9, 1e9, 1e9], [500, 500, 600, 600], [-80, -80, -20, -20], [10, 10, 10.2, 10.2],
    [-5, 20, 300, 40], [np.nan, 0, 5, 5], [0, np.inf, 5, 5],
])
def test_boxes_of_every_kind_can_be_drawn(box: list[float], state: TrackState) -> None:
    tracks = make_tracks([box], states=np.array([state], np.uint8))
    assert draw_tracks(blank(), tracks).shape == (120, 160, 3)


def test_a_proposal_is_shown_by_its_mask_and_only_while_it_is_seen() -> None:
    proposed = np.array([Flag.FROM_PROPOSAL], np.uint8)
    mask = encode_crop(np.ones((10, 10), bool), 50, 50)
    box = [[20, 30, 80, 90]]
    shown = draw_tracks(blank(), make_tracks(box, masks=(mask,), flags=proposed), labels=False)
    # The mask is tinted, the edge of the box is not drawn.
    assert changed(shown)[50:60, 50:60].all()
    assert changed(shown).sum() == changed(shown)[49:61, 49:61].sum()
    # Without a mask the box says where it is; a predicted one is not drawn at all.
    assert changed(draw_tracks(blank(), make_tracks(box, flags=proposed)))[60, 20]
    for state in (TrackState.COASTING, TrackState.LOST):
        unseen = make_tracks(box, flags=proposed, states=np.array([state], np.uint8))
        assert not changed(draw_tracks(blank(), unseen)).any()
    # The label is the id alone.
    detected = changed(draw_tracks(blank(), make_tracks(box, masks=(mask,)), boxes=False))
    plain = changed(draw_tracks(blank(), make_tracks(box, masks=(mask,), flags=proposed)))
    assert plain.sum() < detected.sum()


def test_labels_stay_inside_the_image_and_beside_each_other() -> None:
    # Two boxes at the same corner: the labels cannot both go above.
    tracks = make_tracks([[2, 2, 150, 110], [2, 2, 148, 112]], labels=('person', 'rider'))
    with_labels = draw_tracks(blank(), tracks, boxes=False)
    first, second = (np.all(with_labels == track_color(i), axis=2).sum() for i in (1, 2))
    assert min(first, second) > 150
    assert not changed(draw_tracks(blank(), tracks, boxes=False, labels=False)).any()


def test_labels_name_what_they_show() -> None:
    def plate_width(**changes: Any) -> int:
        tracks = make_tracks([[60, 60, 90, 90]], **changes)
        drawn = draw_tracks(blank(200, 400), tracks, boxes=False)
        return int(changed(drawn).any(axis=0).sum())
    seen = plate_width(labels=('person',))
    assert seen > plate_width(labels=('cat',)) > plate_width()
    # A coasting object was not seen, so it has no score of this frame.
    coasting = np.array([TrackState.COASTING], np.uint8)
    assert plate_width(labels=('person',), states=coasting) < seen
    assert plate_width(labels=('person',), scores=np.array([np.nan], np.float32)) < seen


def test_names_beyond_ascii_do_not_fail() -> None:
    tracks = make_tracks([[60, 60, 90, 90]], labels=('Fußgänger 行人',))
    assert changed(draw_tracks(blank(200, 400), tracks)).any()


def test_a_label_wider_than_the_image_is_cut() -> None:
    tracks = make_tracks([[2, 2, 8, 8]], labels=('a very long name ' * 5,))
    assert changed(draw_tracks(blank(12, 20), tracks)).any()


def test_lines_and_letters_grow_with_the_image() -> None:
    def drawn_share(scale: int) -> float:
        tracks = make_tracks(np.array([[60, 60, 200, 180]]) * scale)
        drawn = draw_tracks(blank(240 * scale, 640 * scale), tracks)
        return float(changed(drawn).mean())
    assert 0.5 < drawn_share(3) / drawn_share(1) < 1.5


def test_trails_follow_the_foot_of_each_track_and_end_with_it() -> None:
    trails = Trails(length=3)
    for step in range(5):
        trails.update(make_tracks(
            [[10 + 10 * step, 20, 30 + 10 * step, 60], [0, 0, 10, 10]],
            track_ids=np.array([4, 9])))
    assert list(trails) == [4, 9]
    assert list(trails[4]) == [(40, 60), (50, 60), (60, 60)]
    drawn = draw_tracks(blank(), make_tracks([[50, 20, 70, 60]], track_ids=np.array([4])),
                        boxes=False, labels=False, trails=trails)
    rows, columns = np.nonzero(changed(drawn))
    # A smooth line spreads by one pixel.
    np.testing.assert_allclose([rows.min(), rows.max()], 60, atol=1)
    np.testing.assert_allclose([columns.min(), columns.max()], [40, 60], atol=1)
    removed = np.array([TrackState.REMOVED, TrackState.LOST], np.uint8)
    trails.update(make_tracks(
        [[0, 0, 1, 1], [0, 0, 1, 1]], track_ids=np.array([4, 9]), states=removed))
    assert list(trails) == [9]
    assert len(trails[9]) == 3  # A lost track stays where it was last.


@pytest.mark.parametrize('image', [
    np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
    np.zeros((0, 4, 3), np.uint8),
])
def test_images_of_another_kind_are_refused(image: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match='uint8 RGB'):
        draw_tracks(image, make_tracks([[0, 0, 1, 1]]))
    with pytest.raises(ValueError, match='uint8 RGB'):
        contact_sheet([image])


def test_a_contact_sheet_places_images_row_by_row() -> None:
    images = [np.full((20, 40, 3), 50 * (i + 1), np.uint8) for i in range(3)]
    sheet = contact_sheet(images, columns=2, tile_width_px=40)
    # Gap 2: two tiles of 40 x 20 and three gaps each way.
    assert sheet.shape == (2 * 20 + 3 * 2, 2 * 40 + 3 * 2, 3)
    assert [int(sheet[y, x, 0]) for y, x in ((5, 5), (5, 50), (30, 5))] == [50, 100, 150]
    assert tuple(sheet[30, 60]) == BACKGROUND


def test_a_contact_sheet_keeps_aspect_ratios_and_takes_any_number_of_columns() -> None:
    images = [np.full((10, 40, 3), 200, np.uint8), np.full((80, 40, 3), 200, np.uint8)]
    sheet = contact_sheet(images, columns=9, tile_width_px=80)
    assert sheet.shape == (160 + 4, 2 * 80 + 6, 3)
    assert (sheet == 200).all(axis=2).sum() == 80 * 20 + 80 * 160


def test_rows_of_a_contact_sheet_are_as_high_as_they_need() -> None:
    images = [np.full((height, 40, 3), 200, np.uint8) for height in (10, 30, 20)]
    sheet = contact_sheet(images, columns=2, tile_width_px=40)
    assert sheet.shape[0] == 30 + 20 + 3 * 2
    assert (sheet[34:54, 2:42] == 200).all()


def test_titles_stand_above_their_images() -> None:
    images = [np.full((20, 100, 3), 200, np.uint8)] * 2
    sheet = contact_sheet(images, columns=2, titles=['a', 'b' * 90], tile_width_px=100)
    assert sheet.shape[0] == 20 + 14 + 2 * 2
    band = (sheet[2:16] != BACKGROUND).any(axis=2)
    assert band[:, 2:102].any()
    assert band[:, 104:204].any()
    assert not band[:, 204:].any()


def test_contact_sheets_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(ValueError, match='no images'):
        contact_sheet([])
    with pytest.raises(ValueError, match='0 columns'):
        contact_sheet([blank()], columns=0)
    with pytest.raises(ValueError, match='2 titles were given for 1 images'):
        contact_sheet([blank()], titles=['a', 'b'])
