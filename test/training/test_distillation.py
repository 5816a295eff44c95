from __future__ import annotations

from masa_ros.models.heads.boxes import apply_deltas
from masa_ros.training.distillation import (
    assign,
    box_head_losses,
    BOX_STDS,
    deltas_between,
    draw,
    IGNORED,
    NOTHING,
    rpn_losses,
    sampled_tracking_loss,
    track_samples,
    TrackSamples,
)
from masa_ros.training.losses import cosine_margin, reference_contrastive
import pytest
import torch
from torch import Tensor

TRUTH = torch.tensor([[0.0, 0, 10, 10], [20.0, 20, 40, 40]])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_boxes_belong_to_the_label_they_overlap_most() -> None:
    # IoU with the first label: 1, 0.6 (6 of 10 columns), 0.2, 0; with the second 0, 0, 0, 0.25.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0.0, 0, 6, 10], [0.0, 0, 2, 10], [20.0, 20, 30, 30]])
    assert assign(boxes, TRUTH, 0.7, 0.3).tolist() == [0, IGNORED, NOTHING, NOTHING]
    assert assign(boxes, TRUTH, 0.5, 0.5).tolist() == [0, 0, NOTHING, NOTHING]


def test_every_label_gets_its_best_anchor_if_that_is_good_enough() -> None:
    boxes = torch.tensor([[0.0, 0, 6, 10], [20.0, 20, 30, 40], [50.0, 50, 60, 60]])
    assert assign(boxes, TRUTH, 0.7, 0.3, 0.3).tolist() == [0, 1, NOTHING]
    assert assign(boxes, TRUTH, 0.7, 0.3, 0.55).tolist() == [0, IGNORED, NOTHING]


def test_nothing_is_assigned_without_labels_or_boxes() -> None:
    assert assign(TRUTH, TRUTH[:0], 0.7, 0.3).tolist() == [NOTHING, NOTHING]
    assert assign(TRUTH[:0], TRUTH, 0.7, 0.3).shape == (0,)


def test_draws_keep_their_numbers() -> None:
    owners = torch.tensor([0] * 50 + [1] * 2 + [NOTHING] * 100 + [IGNORED] * 5)
    yes, no = draw(owners, 40, 0.5, rng())
    assert (len(yes), len(no)) == (20, 20)
    assert (owners[yes] >= 0).all()
    assert (owners[no] == NOTHING).all()
    yes, no = draw(owners, 400, 0.5, rng(), negatives_per_positive=1)
    assert (len(yes), len(no)) == (52, 52)
    again = draw(owners, 40, 0.5, rng())
    assert torch.equal(again[0], draw(owners, 40, 0.5, rng())[0])


def test_a_balanced_draw_takes_the_rare_label_too() -> None:
    owners = torch.tensor([0] * 50 + [1] * 2 + [2] * 9)
    yes, _ = draw(owners, 20, 0.5, rng(), balanced=True)
    assert owners[yes].bincount().tolist() == [4, 2, 4]


@pytest.mark.parametrize('stds', [(1.0, 1.0, 1.0, 1.0), BOX_STDS])
def test_deltas_are_what_the_heads_undo(stds: tuple[float, ...]) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5.0, 5, 45, 25]])
    moved = apply_deltas(boxes, deltas_between(boxes, TRUTH, stds), (100, 100), stds)
    torch.testing.assert_close(moved, TRUTH, atol=1e-4, rtol=0)


def test_a_perfect_region_head_has_no_loss_and_a_wrong_one_has() -> None:
    # One level of 8 x 8 cells at stride 4: anchors are 32 px wide. The label is the anchor of
    # ratio 1 at cell (4, 4), whose centre is (16, 16). One cell beside it the IoU is 896 / 1152.
    truth = torch.tensor([[0.0, 0, 32, 32]])
    logits, deltas = torch.full((1, 3, 8, 8), -20.0), torch.zeros(1, 12, 8, 8)
    wrong = rpn_losses([logits], [deltas], [4], [truth], 0.0, rng())
    for row, column in ((4, 4), (3, 4), (5, 4), (4, 3), (4, 5)):
        logits[0, 1, row, column] = 20.0
    right = rpn_losses([logits], [deltas], [4], [truth], 0.0, rng())
    assert float(wrong['rpn_score']) > 0.3
    assert float(right['rpn_score']) < 1e-6
    # The four neighbours have to move by an eighth of their side.
    count = round(5 * 20 / float(wrong['rpn_score']))
    assert float(right['rpn_box']) == pytest.approx(4 * 0.125 / count, rel=1e-3)
    alone = rpn_losses([torch.full((1, 3, 8, 8), -20.0)], [deltas], [4], [truth[:0]], 0.0, rng())
    assert float(alone['rpn_score']) < 1e-6
    assert float(alone['rpn_box']) == 0


def test_box_head_losses_by_hand() -> None:
    regions = torch.tensor([[60.0, 60, 70, 70], [80.0, 80, 90, 95]])

    def judge(boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        count = len(boxes[0])
        assert count == 4  # Two labels and two regions of nothing.
        return torch.zeros(count, 2), torch.full((count, 4), 0.5)

    losses = box_head_losses(judge, [regions], [TRUTH], rng())
    # Undecided logits cost ln 2 each. Labels themselves need no move: 2 boxes x 4 x 0.5, over 4.
    assert float(losses['head_score']) == pytest.approx(0.693147, abs=1e-5)
    assert float(losses['head_box']) == pytest.approx(1.0)


def test_images_without_labels_teach_only_background() -> None:
    def judge(boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        return torch.zeros(len(boxes[0]), 2), torch.ones(len(boxes[0]), 4)

    for regions in (torch.zeros(0, 4), TRUTH):
        losses = box_head_losses(judge, [regions], [torch.zeros(0, 4)], rng())
        assert float(losses['head_score']) == pytest.approx(0.693147, abs=1e-5)
        assert float(losses['head_box']) == 0


def test_track_samples_are_labels_close_proposals_and_background() -> None:
    rois = torch.tensor([[0.0, 0, 0, 10, 10], [0.0, 20, 20, 40, 40], [1.0, 0, 0, 10, 10]])
    near = torch.tensor([[0.0, 0, 10, 9.5], [70.0, 70, 80, 80], [0.0, 0, 10, 5]])
    samples = track_samples([near, near[:0]], rois, torch.tensor([7, 8, 7]), rng())
    first = samples.rois[:, 0] == 0
    # Two labels and one proposal of 0.95; the one of 0.5 is neither, the far one is background.
    assert sorted(samples.identities[first].tolist()) == [-1, 7, 7, 8]
    assert samples.identities[~first].tolist() == [7]


def test_the_loss_of_samples_is_the_reference_loss_of_each_photo() -> None:
    torch.manual_seed(0)
    embeddings = torch.randn(6, 4)
    samples = TrackSamples(
        torch.tensor([[0.0], [0.0], [0.0], [1.0], [1.0], [1.0]]).expand(6, 5),
        torch.tensor([3, 4, -1, 4, 3, -1]))
    key, partner = embeddings[:2], embeddings[3:]
    positive = torch.tensor([[False, True, False], [True, False, False]])
    losses = sampled_tracking_loss(embeddings, samples, 1, 'reference', 0.25, 1.0)
    torch.testing.assert_close(
        losses['contrast'], 0.25 * reference_contrastive(key, partner, positive))
    torch.testing.assert_close(losses['margin'], cosine_margin(key, partner, positive))


def test_boxes_of_nothing_never_match_each_other() -> None:
    samples = TrackSamples(torch.tensor([[0.0], [1.0]]).expand(2, 5), torch.tensor([-1, -1]))
    losses = sampled_tracking_loss(torch.ones(2, 4), samples, 1, 'paper', 1.0, 1.0)
    assert float(losses['contrast']) == 0
