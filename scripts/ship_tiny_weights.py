"""
Turn a checkpoint of the trainer into the weights that ship with the package.

    ./scripts/with_env python scripts/ship_tiny_weights.py runs/tiny2/latest.pt notes.json

With ``--average OTHER`` the mean of both checkpoints' weights is shipped.
``notes.json`` holds what a checkpoint does not know: licences, time, hardware, figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from masa_ros.models.tiny.weights import load_network, save_weights, SHIPPED
from masa_ros.training.adapt import part_of_the_way
import torch


def main() -> None:
    """Read, reduce to half precision, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('notes', type=Path)
    parser.add_argument('--average', default='', help='checkpoint to take the mean with')
    parser.add_argument('--out', type=Path, default=SHIPPED)
    arguments = parser.parse_args()
    network, _ = load_network(arguments.checkpoint)
    if arguments.average:
        network = part_of_the_way(network, load_network(arguments.average)[0], 0.5)
    stored = torch.load(arguments.checkpoint, map_location='cpu', weights_only=True)
    metadata = {
        **json.loads(arguments.notes.read_text()), 'steps': stored['step'],
        'recipe': stored['config'],
        'data': {'digest': stored['data']['digest'], 'images': len(stored['data']['images'])}}
    save_weights(arguments.out, network, metadata)
    print(f'{arguments.out}: {arguments.out.stat().st_size} bytes')


if __name__ == '__main__':
    main()
