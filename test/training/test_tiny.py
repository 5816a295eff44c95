"""What the small network learns from."""

from __future__ import annotations

from masa_ros.training.distillation import TrackSamples
from masa_ros.training.tiny import filled_up, LOOSEST, ROI_STEP, STRANGERS, with_proposals
import pytest
import torch


@pytest.mark.parametrize(('rows', 'filled'), [(0, 1), (1, 1), (ROI_STEP, 1), (ROI_STEP + 1, 2)])
def test_rois_are_filled_up_behind_the_real_ones(rows: int, filled: int) -> None:
    rois, values = torch.rand(rows, 5), torch.arange(rows) + 1
    more, numbers = filled_up(rois, values)
    assert (len(more), len(numbers)) == (filled * ROI_STEP,) * 2
    assert torch.equal(more[:rows], rois)
    assert torch.equal(numbers[:rows], values)
    # A box with area, on the first image, so that pooling it is harmless.
    assert (more[rows:, 3:] > more[rows:, 1:3]).all()
    assert not numbers[rows:].any()


def labelled() -> TrackSamples:
    """Two objects of the first view and one of the second, which shows the first of them."""
    return TrackSamples(
        torch.tensor([[0, 0, 0, 40, 40], [0, 100, 0, 140, 40], [1, 10, 10, 50, 50]],
                     dtype=torch.float32), torch.tensor([7, 8, 7]))


def test_an_own_box_of_each_object_is_learned_beside_the_labelled_one() -> None:
    # First view: IoU 0.6 with the first object, 0.4 with the second. Second view: 0.75.
    boxes = torch.tensor([[[0, 0, 40, 24], [100, 0, 116, 40]],
                          [[10, 10, 50, 40], [10, 10, 50, 20]]], dtype=torch.float32)
    samples = with_proposals(labelled(), boxes, torch.zeros(2, 2), torch.Generator())
    assert torch.equal(samples.rois[:3], labelled().rois)
    assert samples.rois[3:].tolist() == [[0, 0, 0, 40, 24], [1, 10, 10, 50, 40],
                                         [1, 10, 10, 50, 20]]
    # A quarter of an object, IoU 0.25, is nobody.
    assert samples.identities.tolist() == [7, 8, 7, 7, 7, -1]


def test_small_and_large_overlaps_are_drawn_alike() -> None:
    # Boxes of the first object with an IoU of 0.5 to 1, most of them tight.
    heights = torch.cat([torch.linspace(20, 40, 11), torch.full((200,), 39.9)])
    boxes = torch.zeros(2, len(heights), 4)
    boxes[0, :, 2], boxes[0, :, 3] = 40, heights
    boxes[1, :, :] = torch.tensor([200, 200, 210, 210])
    generator = torch.Generator().manual_seed(0)
    drawn = [float(with_proposals(labelled(), boxes, torch.zeros(2, len(heights)), generator)
                   .rois[3, 4]) / 40 for _ in range(300)]
    assert min(drawn) >= LOOSEST
    # Uniform between 0.5 and 1: mean 0.75, deviation 0.144, here of a mean of 300.
    assert sum(drawn) / len(drawn) == pytest.approx(0.75, abs=0.03)


def test_a_box_belongs_to_the_label_it_overlaps_most() -> None:
    near = TrackSamples(torch.tensor([[0, 0, 0, 40, 40], [0, 10, 0, 50, 40]],
                                     dtype=torch.float32), torch.tensor([1, 2]))
    boxes = torch.tensor([[[9, 0, 49, 40]]], dtype=torch.float32)
    samples = with_proposals(near, boxes, torch.zeros(1, 1), torch.Generator())
    assert samples.identities.tolist() == [1, 2, 2]


def test_the_surest_of_what_is_nobody_compete_each_as_its_own() -> None:
    count = STRANGERS + 4
    boxes = torch.tensor([300.0, 300.0, 340.0, 340.0]).expand(2, count, 4)
    scores = torch.arange(count).float().expand(2, count)
    samples = with_proposals(labelled(), boxes, scores, torch.Generator())
    strangers = samples.identities[3:]
    assert len(strangers) == 2 * STRANGERS
    assert (strangers < 0).all()
    assert len(set(strangers.tolist())) == len(strangers)


def test_views_without_labels_and_boxes_of_no_number_add_nothing() -> None:
    alone = TrackSamples(labelled().rois[:2], labelled().identities[:2])
    boxes = torch.full((3, 5, 4), float('nan'))
    samples = with_proposals(alone, boxes, torch.full((3, 5), float('nan')), torch.Generator())
    assert samples.rois.shape == (2, 5)
    nothing = TrackSamples(torch.zeros(0, 5), torch.zeros(0, dtype=torch.long))
    assert len(with_proposals(nothing, boxes, torch.zeros(3, 5), torch.Generator()).rois) == 0
