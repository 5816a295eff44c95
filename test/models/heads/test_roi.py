"""Which level a box is pooled from, and what is pooled."""

from __future__ import annotations

from masa_ros.models.heads.roi import roi_features, roi_levels, roi_rows
import pytest
import torch


def test_levels_change_at_multiples_of_112_pixels() -> None:
    # floor(log2(side / 56)): below 112 level 0, from 112 level 1, from 224 level 2, 448 level 3.
    sides = torch.tensor([1.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 4000.0])
    boxes = torch.stack((sides * 0, sides * 0, sides, sides), dim=1)
    assert roi_levels(boxes, 4).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert roi_levels(boxes, 3).tolist() == [0, 0, 1, 1, 2, 2, 2, 2]


def test_pooled_values_are_means_of_a_ramp() -> None:
    # Level 0, stride 4: a cell (x, y) holds x. Aligned sampling reads x at pixel / 4 - 0.5.
    ramp = torch.arange(32.0).expand(1, 1, 32, 32)
    rows = roi_rows([torch.tensor([[8.0, 8.0, 64.0, 64.0]])])
    pooled = roi_features([ramp], rows, [4])
    # Seven bins of 8 px = 2 cells; centres at 8 + 4 + 8 k px.
    expected = [(12 + 8 * k) / 4 - 0.5 for k in range(7)]
    assert pooled[0, 0, 3].tolist() == pytest.approx(expected)


def test_rows_name_their_image_and_no_boxes_are_fine() -> None:
    rows = roi_rows([torch.zeros(0, 4), torch.ones(2, 4)])
    assert rows[:, 0].tolist() == [1, 1]
    empty = roi_features([torch.zeros(1, 8, 4, 4)], roi_rows([torch.zeros(0, 4)]), [4])
    assert empty.shape == (0, 8, 7, 7)


def test_boxes_far_outside_and_half_precision_give_finite_features() -> None:
    pyramid = [torch.ones(1, 2, 16, 16, dtype=torch.bfloat16)]
    rows = roi_rows([torch.tensor([[-900.0, -900.0, -800.0, -800.0], [-20.0, 3.0, 30.0, 90.0]])])
    pooled = roi_features(pyramid, rows, [4])
    assert pooled.dtype == torch.bfloat16
    assert pooled[0].abs().max().item() == 0
    assert torch.isfinite(pooled).all()
