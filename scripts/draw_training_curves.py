#!/usr/bin/env python3
"""
Draw losses and held-out scores of successive rounds of training from their TensorBoard logs.

    ./scripts/with_env python scripts/draw_training_curves.py docs/training_curves.png \
        runs/tiny1 runs/tiny2 runs/tiny3

"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib import pyplot
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

PANELS = {'loss/contrast': 'contrastive loss', 'loss/mask': 'mask cross entropy',
          'loss/objectness': 'objectness', 'validation/retrieval': 'held-out retrieval'}
SMOOTHED = 5  # Logged values; each is of one batch.


def main() -> None:
    """Draw and write the picture."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('picture', type=Path)
    parser.add_argument('runs', type=Path, nargs='+', help='folders, in order')
    arguments = parser.parse_args()
    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(13, 3))
    first = 0
    for number, folder in enumerate(arguments.runs, 1):
        events = EventAccumulator(str(folder))
        events.Reload()
        known = events.Tags()['scalars']
        last = max(item.step for item in events.Scalars('loss/total'))
        for panel, (tag, title) in zip(panels, PANELS.items(), strict=True):
            panel.set_title(title, fontsize=10)
            points = [(first + item.step, item.value) for item in events.Scalars(tag)
                      ] if tag in known else []
            # Weights of zero are logged too: a round of the track head learns no masks.
            if not any(value for _, value in points):
                continue
            steps, values = np.array(points).T
            if tag.startswith('loss/'):
                weights = np.ones(SMOOTHED)
                values = (np.convolve(values, weights, 'same')
                          / np.convolve(np.ones_like(values), weights, 'same'))
            panel.plot(steps, values, marker='' if tag.startswith('loss/') else 'o',
                       markersize=4, label=f'round {number}', color=f'C{number - 1}')
        first += last
    for panel in panels:
        panel.set_xlabel('step')
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(arguments.picture, dpi=80)


if __name__ == '__main__':
    main()
