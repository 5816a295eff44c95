"""Selection of boxes by the box head."""

from __future__ import annotations

from masa_ros.models.heads.box_head import BoxHead
import torch


def test_selection_thresholds_suppresses_and_limits_by_hand() -> None:
    proposals = torch.tensor([
        [0.0, 0.0, 10.0, 10.0], [1.0, 0.0, 11.0, 10.0], [50.0, 50.0, 60.0, 60.0],
        [80.0, 80.0, 90.0, 90.0], [20.0, 20.0, 30.0, 30.0]])
    # Object logits against a background of 0: scores are sigmoids.
    logits = torch.stack((torch.tensor([1.0, 2.0, 0.5, -9.0, 0.1]), torch.zeros(5)), dim=1)
    boxes, scores = BoxHead.select(
        proposals, logits, torch.zeros(5, 4), (100, 100), 0.02, 0.5, 2)
    # Row 1 suppresses row 0 (IoU 9/11); row 3 is below 0.02; only two are kept.
    assert boxes.tolist() == [[1, 0, 11, 10], [50, 50, 60, 60]]
    assert torch.allclose(scores, torch.sigmoid(torch.tensor([2.0, 0.5])))


def test_no_proposals_give_no_boxes() -> None:
    boxes, scores = BoxHead.select(
        torch.zeros(0, 4), torch.zeros(0, 2), torch.zeros(0, 4), (10, 10), 0.02, 0.5, 5)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)
