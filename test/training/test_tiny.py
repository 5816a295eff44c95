from __future__ import annotations

from masa_ros.training.tiny import filled_up, ROI_STEP
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
