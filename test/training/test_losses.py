from __future__ import annotations

import math
from pathlib import Path

from masa_ros.training.losses import (
    assign_cells,
    cell_centres,
    cosine_margin,
    mask_loss,
    paper_contrastive,
    proposal_loss,
    reference_contrastive,
    tracking_loss,
)
import numpy as np
import pytest
import torch


@pytest.fixture
def stored_case(golden: Path) -> dict[str, torch.Tensor]:
    with np.load(golden / 'small_units.npz') as stored:
        return {name: torch.from_numpy(np.asarray(stored[f'loss.{name}']))
                for name in ('key', 'ref', 'target', 'contrast', 'aux')}


@pytest.mark.data
def test_the_reference_loss_gives_the_stored_number(stored_case: dict[str, torch.Tensor]) -> None:
    # The official code multiplies by 0.25 before it reports.
    loss = 0.25 * reference_contrastive(
        stored_case['key'], stored_case['ref'], stored_case['target'] > 0)
    assert float(loss) == pytest.approx(float(stored_case['contrast']), rel=1e-6)


@pytest.mark.data
def test_the_margin_loss_gives_the_stored_number(stored_case: dict[str, torch.Tensor]) -> None:
    loss = cosine_margin(stored_case['key'], stored_case['ref'], stored_case['target'] > 0)
    assert float(loss) == pytest.approx(float(stored_case['aux']), rel=1e-6)


def test_the_paper_loss_by_hand() -> None:
    # One key along x; the positive is itself (cosine 1), the negative is at a right angle.
    key = torch.tensor([[2.0, 0.0]])
    reference = torch.tensor([[5.0, 0.0], [0.0, 1.0]])
    positive = torch.tensor([[True, False]])
    expected = math.log(1 + math.exp(-1 / 0.07))
    assert float(paper_contrastive(key, reference, positive)) == pytest.approx(
        expected, abs=1e-6)


def test_the_reference_loss_by_hand_with_two_positives() -> None:
    # Dot products 1, 2 (positives) and 0: Z = (e + e^2)/2 + 1, loss = ln Z - 1.5.
    key = torch.tensor([[1.0]])
    reference = torch.tensor([[1.0], [2.0], [0.0]])
    positive = torch.tensor([[True, True, False]])
    expected = math.log((math.e + math.e ** 2) / 2 + 1) - 1.5
    assert float(reference_contrastive(key, reference, positive)) == pytest.approx(
        expected, rel=1e-6)


@pytest.mark.parametrize('loss', [paper_contrastive, reference_contrastive, cosine_margin])
def test_nothing_in_common_costs_nothing(loss: object) -> None:
    assert callable(loss)
    key = torch.randn(3, 4)
    value = loss(key, torch.randn(2, 4), torch.zeros(3, 2, dtype=torch.bool))
    assert float(value) == 0
    value = loss(torch.zeros(0, 4), torch.zeros(0, 4), torch.zeros(0, 0, dtype=torch.bool))
    assert float(value) == 0


@pytest.mark.parametrize('kind', ['paper', 'reference'])
def test_gradients_are_finite_when_rows_lack_positives_or_negatives(kind: str) -> None:
    embeddings = torch.randn(5, 8, requires_grad=True)
    losses = tracking_loss(
        embeddings, torch.tensor([1, 2, 3, 1, 2]), torch.tensor([0, 0, 0, 1, 1]), 1, kind, 1.0,
        1.0, False)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    assert embeddings.grad is not None
    assert torch.isfinite(embeddings.grad).all()


def test_a_target_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r'expected bool of \(2, 3\)'):
        paper_contrastive(torch.zeros(2, 4), torch.zeros(3, 4),
                          torch.zeros(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match='expected'):
        paper_contrastive(torch.zeros(2, 4), torch.zeros(3, 5),
                          torch.zeros(2, 3, dtype=torch.bool))


def test_instances_of_other_photos_are_negatives_only_when_asked() -> None:
    # Both photos hold the same direction, so across photos nothing can be told apart.
    embeddings = 4 * torch.eye(2)[[0, 0, 0, 0]]
    identities, views = torch.tensor([1, 2, 1, 2]), torch.tensor([0, 1, 2, 3])
    apart = tracking_loss(embeddings, identities, views, 2, 'paper', 1.0, 0.0, False)
    mixed = tracking_loss(embeddings, identities, views, 2, 'paper', 1.0, 0.0, True)
    assert float(apart['contrast']) == pytest.approx(0)
    assert float(mixed['contrast']) == pytest.approx(math.log(2))


@pytest.mark.parametrize('kind', ['paper', 'reference'])
def test_pairs_of_one_recording_are_not_told_apart(kind: str) -> None:
    # Two pairs of two instances; the second shows the objects of the first under other numbers.
    rng = torch.Generator().manual_seed(0)
    first = torch.randn(2, 8, generator=rng)
    embeddings = torch.cat([first, first, first, first])
    views = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3]).float()
    identities = torch.tensor([1, 2, 11, 12, 1, 2, 11, 12])

    def loss(recordings: list[int]) -> dict[str, float]:
        losses = tracking_loss(embeddings, identities, views, 2, kind, 1.0, 1.0, True,
                               torch.tensor(recordings))
        return {name: float(value) for name, value in losses.items()}

    alone = tracking_loss(embeddings[[0, 1, 4, 5]], identities[[0, 1, 4, 5]],
                          torch.tensor([0.0, 0, 1, 1]), 1, kind, 1.0, 1.0, True)
    assert loss([7, 7])['contrast'] == pytest.approx(float(alone['contrast']), rel=1e-5)
    assert loss([7, 7])['contrast'] < 0.1 * loss([7, 8])['contrast']
    assert loss([7, 7])['margin'] < loss([7, 8])['margin']
    # 0 is no recording.
    assert loss([0, 0]) == loss([7, 8])


def test_the_cells_under_a_box_learn_it() -> None:
    centres, strides = cell_centres(64, torch.device('cpu'))
    boxes = torch.cat([centres - 8, centres + 8], 1)
    truth = torch.tensor([[16.0, 16.0, 32.0, 32.0]])
    cells, owners = assign_cells(boxes, torch.zeros(len(boxes)), truth, centres, strides)
    assert len(cells) > 0
    assert set(owners.tolist()) == {0}
    assert ((centres[cells] - 24).abs().amax(1) < 2 * strides[cells]).all()


def test_perfect_proposals_cost_less_than_empty_ones() -> None:
    centres, _ = cell_centres(64, torch.device('cpu'))
    truth = torch.tensor([[16.0, 16.0, 32.0, 32.0]])
    fitting = truth.expand(len(centres), 4)[None]
    off = torch.cat([centres - 1, centres + 1], 1)[None]
    logits = torch.zeros(1, len(centres))
    flags = torch.tensor([True])
    good = proposal_loss(fitting, logits, [truth], flags, 64, 1.0)['box']
    bad = proposal_loss(off, logits, [truth], flags, 64, 1.0)['box']
    assert float(good) == pytest.approx(0, abs=1e-5)
    assert float(bad) > 1


def test_a_view_without_boxes_teaches_background_only() -> None:
    centres, _ = cell_centres(64, torch.device('cpu'))
    boxes = torch.cat([centres - 1, centres + 1], 1)[None]
    losses = proposal_loss(boxes, torch.zeros(1, len(centres)), [torch.zeros(0, 4)],
                           torch.tensor([True]), 64, 0.25)
    assert float(losses['box']) == 0
    # Cross entropy ln 2 at even odds, weighted by the squared error 1/4, for 84 cells.
    assert float(losses['objectness']) == pytest.approx(84 * math.log(2) / 4, rel=1e-5)


def test_masks_that_fit_cost_nothing() -> None:
    target = torch.zeros(1, 8, 8)
    target[:, :4] = 1
    losses = mask_loss(200 * (target - 0.5), torch.tensor([100.0]), target)
    assert float(losses['mask']) == pytest.approx(0, abs=1e-6)
    assert float(losses['dice']) == pytest.approx(0, abs=1e-6)
    assert float(losses['quality']) == pytest.approx(0, abs=1e-6)


def test_no_masks_cost_nothing() -> None:
    losses = mask_loss(torch.zeros(0, 8, 8), torch.zeros(0), torch.zeros(0, 8, 8))
    assert [float(value) for value in losses.values()] == [0, 0, 0]
