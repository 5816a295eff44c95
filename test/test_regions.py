"""Ignored parts of the image; areas and shares worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
from masa_ros.regions import IgnoredArea, read_polygon, Regions, RegionsConfig
from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_crop, RoiMask
import numpy as np
import pytest

BONNET = '0,30 60,30 60,40 0,40'  # The lowest ten rows of 60 x 40 pixels.


def area(rows: int = 40, columns: int = 60, **settings: Any) -> IgnoredArea:
    return Regions(RegionsConfig(**settings)).area(rows, columns)


def write(path: Path, image: np.ndarray) -> str:
    path.write_bytes(cv2.imencode('.png', image)[1].tobytes())
    return str(path)


def test_a_polygon_covers_the_pixels_whose_centres_are_inside() -> None:
    # Right triangle with legs of 4: x + 0.5 + y + 0.5 < 4 holds for three pixels of row 0.
    mask = area(ignore_polygons=('0,0 4,0 0,4',)).mask
    assert [int(row.sum()) for row in mask[:5]] == [3, 2, 1, 0, 0]
    assert mask.sum() == 6


def test_a_bonnet_is_the_rows_that_it_covers() -> None:
    mask = area(ignore_polygons=(BONNET,)).mask
    assert mask.sum() == 600
    assert mask[30:].all()


def test_a_ring_drawn_in_one_line_leaves_its_inside_out() -> None:
    """A polygon that crosses itself is inside where an odd number of edges lies to the left."""
    mask = area(10, 10, ignore_polygons=('0,0 8,0 8,8 0,8 0,0 2,2 6,2 6,6 2,6 2,2',)).mask
    assert mask.sum() == 64 - 16
    assert not mask[2:6, 2:6].any()


def test_outside_the_interest_is_ignored_and_several_polygons_add_up() -> None:
    mask = area(interest_polygons=('0,0 10,0 10,40 0,40', '50,0 60,0 60,40 50,40')).mask
    assert not mask[:, :10].any()
    assert not mask[:, 50:].any()
    assert mask[:, 10:50].all()
    both = area(interest_polygons=('0,0 10,0 10,40 0,40',), ignore_polygons=(BONNET,)).mask
    assert (~both).sum() == 10 * 30


def test_polygons_follow_the_size_of_the_image_where_their_own_is_said() -> None:
    mask = area(400, 600, ignore_polygons=(BONNET,), width=60, height=40).mask
    assert mask[300:].all()
    assert mask.sum() == 600 * 100
    same = area(400, 600, ignore_polygons=(BONNET,)).mask
    assert same.sum() == 600


def test_image_files_are_scaled_and_black_or_see_through_is_not_marked(tmp_path: Path) -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[15:] = (0, 0, 255)
    path = write(tmp_path / 'bonnet.png', picture)
    assert area(ignore_image=path).mask[30:].all()
    assert area(ignore_image=path).mask.sum() == 600
    assert area(interest_image=path).mask.sum() == 60 * 40 - 600
    clear = np.full((20, 30, 4), 255, np.uint8)
    clear[:15, :, 3] = 0
    assert area(ignore_image=write(tmp_path / 'clear.png', clear)).mask.sum() == 600
    deep = np.zeros((20, 30), np.uint16)
    deep[15:] = 65535
    assert area(ignore_image=write(tmp_path / 'deep.png', deep)).mask.sum() == 600


def test_shares_of_boxes_are_exact_between_pixels_too() -> None:
    ignored = area(ignore_polygons=(BONNET,))
    boxes = np.array([
        [0, 0, 10, 10],      # above
        [10, 25, 20, 35],    # half
        [10.5, 29.5, 11.5, 31.5],  # 1.5 of 2 rows
        [5, 32, 9, 38],      # inside
        [-50, 28, 10, 60],   # of the 12 rows in the image, 10
    ], np.float32)
    np.testing.assert_allclose(
        ignored.box_shares(boxes), [0, 0.5, 0.75, 1, 10 / 12], atol=1e-6)
    assert ignored.box_shares(np.zeros((0, 4), np.float32)).shape == (0,)
    np.testing.assert_array_equal(
        ignored.box_shares(np.array([[100, 100, 120, 120]], np.float32)), [0])


def test_given_boxes_go_by_their_box_and_own_proposals_by_their_mask() -> None:
    ignored = area(ignore_polygons=(BONNET,))
    # The box is 60 % in the bonnet; of its mask only the four rows above and one of six below.
    crop = np.zeros((10, 10), bool)
    crop[:5] = True
    found = Instances.from_boxes([[10, 26, 20, 36]]).with_fields(
        masks=(encode_crop(crop, 10, 26),))
    assert ignored.mask_share(found.masks[0] or RoiMask(0, 0, 0, 0, np.zeros(0, np.uint32))) == 0.2
    assert ignored.keeps_boxes(found, 0.5).tolist() == [False]
    assert ignored.keeps_masks(found, 0.5).tolist() == [True]
    without = found.with_fields(masks=(None,))
    assert ignored.keeps_masks(without, 0.5).tolist() == [False]
    # Exactly the share stays.
    assert ignored.keeps_boxes(found, 0.6).tolist() == [True]


def test_masks_that_leave_the_image_are_judged_by_their_part_inside() -> None:
    ignored = area(ignore_polygons=(BONNET,))
    full = encode_crop(np.ones((20, 20), bool), -10, 25)  # 10 x 15 pixels inside, 10 x 10 ignored
    assert ignored.mask_share(full) == pytest.approx(100 / 150)
    assert ignored.mask_share(encode_crop(np.ones((5, 5), bool), 100, 100)) == 0


def test_points_are_in_or_out() -> None:
    ignored = area(ignore_polygons=(BONNET,))
    assert [ignored.contains(x, y) for x, y in (
        (5, 29.9), (5, 30), (59.9, 39.9), (60, 35), (-1, 35))] == [
        False, True, True, False, False]


def test_nothing_described_is_nothing_ignored() -> None:
    assert not Regions(RegionsConfig())
    assert Regions(RegionsConfig(ignore_polygons=(BONNET,)))


def test_without_regions_every_object_stays() -> None:
    found = Instances.from_boxes([[0, 0, 9, 9], [0, 31, 9, 39]])
    nothing, bonnet = Regions(RegionsConfig()), Regions(RegionsConfig(ignore_polygons=(BONNET,)))
    assert nothing.keeps(found, 40, 60, by_mask=True).tolist() == [True, True]
    assert bonnet.keeps(found, 40, 60, by_mask=False).tolist() == [True, False]
    assert bonnet.keeps(Instances(), 40, 60, by_mask=False).shape == (0,)


def test_a_reduced_image_has_the_regions_of_the_whole_one(tmp_path: Path) -> None:
    # Rows from 30 on of 40, in half the size from 15 on; the picture of 12 x 8 stands for 60 x 40.
    found = Instances.from_boxes([[0, 10, 9, 20], [0, 11, 9, 21]])
    for config in (RegionsConfig(ignore_polygons=('0,30 60,30 60,40 0,40',)),
                   RegionsConfig(ignore_polygons=('0,300 600,300 600,400 0,400',),
                                 width=600, height=400)):
        regions = Regions(config)
        kept = regions.keeps(found, 20, 30, by_mask=False, full_size=(40, 60))
        assert kept.tolist() == [True, False]
        assert regions.keeps(found, 40, 60, by_mask=False).all()
    # 61 x 7 reduced to 20 x 2 is another shape by 15 %, which is the rounding's fault.
    file = tmp_path / 'long.png'
    cv2.imwrite(str(file), np.pad(np.full((4, 61), 255, np.uint8), ((3, 0), (0, 0))))
    long = Regions(RegionsConfig(ignore_image=str(file)))
    assert long.area(2, 20, (7, 61)).mask.any()
    with pytest.raises(ValueError, match='the images are 61 x 9'):
        long.area(2, 20, (9, 61))


@pytest.mark.parametrize('text', [
    '', '1,2', '1,2 3,4', '1,2 3,4 5', '1,2 3,4 five,6', '1,2 3,4 nan,6', '1,2 3,4 inf,6',
    '1,2 3,4 1e9,6', '1 2 3', '1,2,3 4,5,6 7,8,9'])
def test_wrong_polygons_are_refused_when_given(text: str) -> None:
    with pytest.raises(ValueError, match='expected at least three corners in pixels'):
        RegionsConfig(ignore_polygons=(text,))


def test_half_a_size_is_refused() -> None:
    with pytest.raises(ValueError, match='expected both or neither'):
        RegionsConfig(width=640)


def test_corners_are_read_as_they_are() -> None:
    np.testing.assert_array_equal(
        read_polygon(' 0,600  300.5,-2 6e2,7'), [[0, 600], [300.5, -2], [600, 7]])


def test_wrong_files_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'ignore_image: .*none.png is not there'):
        area(ignore_image=str(tmp_path / 'none.png'))
    for name, content in (('empty.png', b''), ('text.png', b'not an image')):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match='cannot be read as an image'):
            area(interest_image=str(tmp_path / name))
    with pytest.raises(FileNotFoundError):
        area(ignore_image=str(tmp_path))
    square = write(tmp_path / 'square.png', np.zeros((50, 50), np.uint8))
    with pytest.raises(ValueError, match='is 50 x 50 pixels, the images are 60 x 40: another'):
        area(ignore_image=square)


def test_regions_that_leave_nothing_are_an_error(tmp_path: Path) -> None:
    black = write(tmp_path / 'black.png', np.zeros((40, 60), np.uint8))
    with pytest.raises(ValueError, match='leave nothing of an image of 60 x 40'):
        area(interest_image=black)
    with pytest.raises(ValueError, match='leave nothing'):
        area(interest_polygons=('100,100 200,100 200,200',))
