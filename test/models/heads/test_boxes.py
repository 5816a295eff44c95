"""Anchors, deltas and suppression, by hand."""

from __future__ import annotations

import math

from masa_ros.models.heads.boxes import anchors, apply_deltas, nms_within_groups
import pytest
import torch


def test_anchors_are_eight_cells_wide_and_centred_on_cell_corners() -> None:
    grid = anchors(2, 3, 4, torch.device('cpu'))
    assert grid.shape == (2 * 3 * 3, 4)
    # Ratio 1 of the first cell: side 8 * 4 = 32 around (0, 0).
    assert grid[1].tolist() == [-16, -16, 16, 16]
    # Ratio 0.5 (height / width): width 32 * sqrt(2), height 32 / sqrt(2).
    half_width, half_height = 16 * math.sqrt(2), 16 / math.sqrt(2)
    assert grid[0].tolist() == pytest.approx([-half_width, -half_height, half_width, half_height])
    # Next cell along the row first, then down.
    assert grid[4].tolist() == [-12, -16, 20, 16]
    assert grid[3 * 3 + 1].tolist() == [-16, -12, 16, 20]


def test_deltas_move_scale_and_clip_by_hand() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 20.0]] * 3)
    deltas = torch.tensor([
        [0.1, -0.1, 0.0, math.log(0.5)],  # Centre (6, 8), size (10, 10).
        [1.0, 1.0, 0.0, 0.0],             # Centre (15, 30): cut at width 16, height 32.
        [0.0, 0.0, 100.0, 0.0]])          # Exponent limited to ln(62.5).
    moved = apply_deltas(boxes, deltas, (32, 16))
    assert moved[0].tolist() == pytest.approx([1, 3, 11, 13])
    assert moved[1].tolist() == pytest.approx([10, 20, 16, 32])
    assert moved[2].tolist() == pytest.approx([0, 0, 16, 20])
    wide = apply_deltas(boxes[2:], deltas[2:], (10 ** 4, 10 ** 4))
    assert wide[0, 2].item() == pytest.approx(5 + 0.5 * 10 * 62.5)


def test_deltas_are_multiplied_by_their_deviations() -> None:
    moved = apply_deltas(
        torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]]), (99, 99),
        stds=(0.1, 0.1, 0.2, 0.2))
    assert moved[0].tolist() == pytest.approx([1, 0, 11, 10])


def test_suppression_keeps_equal_boxes_of_different_groups() -> None:
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0]] * 4)
    kept = nms_within_groups(
        boxes, torch.tensor([0.1, 0.9, 0.5, 0.2]), torch.tensor([0, 0, 1, 1]), 0.5)
    assert kept.tolist() == [1, 2]
    assert nms_within_groups(boxes[:0], torch.zeros(0), torch.zeros(0), 0.5).tolist() == []
