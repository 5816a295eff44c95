"""
What each part of the training is worth: short runs that differ in one thing.

The arms follow Tables 8, 9 and 14 of the paper: augmentation (colour, crop and mirror alone; with
random affine; with affine and blended photos; with affine and large-scale jitter; all of them;
photometric extras on top), number of proposals of a batch (64, 128, 256), with and without
the detection losses, and our cut-outs. Every arm starts from the same detector weights with the
same seed and takes the same number of steps. It is scored by retrieval on held-out photos and by
AssA and IDF1 of the tracker that looks at embeddings alone (their learned half), on boxes of the
truth at every 5th and 10th frame, over all frames to begin at.

    ./scripts/with_env python benchmarks/ablations.py --data ../shared/data --steps 1000 \
        --out benchmarks/ablations.json

A run that was broken off goes on; arms that are in the table already are not done again. Another
``--seed`` adds rows.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
import subprocess
import time
from typing import Any

from masa_ros.cli.observers import Observation, observer, own_tracker
from masa_ros.detectors import DetectorConfig
from masa_ros.evaluation.benchmark import Faults, Plan, Run, run_benchmark
from masa_ros.evaluation.datasets.motchallenge import read_sequence
from masa_ros.evaluation.scores import combine
from masa_ros.models import ModelConfig
from masa_ros.models.tiny.model import TinyModel
from masa_ros.models.tiny.weights import load_network
from masa_ros.structures.instances import Instances
from masa_ros.tracking.presets import PRESETS
from masa_ros.tracking.tracker import TrackerConfig
from masa_ros.training.config import load_config, TrainConfig
from masa_ros.training.corpus import Corpus
from masa_ros.training.dataset import PairDataset
from masa_ros.training.train import train
from masa_ros.training.validation import validate
from masa_ros.training.views import ViewConfig
import numpy as np
from numpy.typing import NDArray

SEQUENCES = ('TUD-Campus', 'ETH-Sunnyday-a', 'kitti_drive_0052')
STRIDES = (5, 10)
JUDGING = ViewConfig(size=256, zoom_min=0.5, zoom_max=1.2, view_zoom=2.0, aspect=1.3, mixup=0.0,
                     paste_max=0, photometric=0.5)
JUDGE_PAIRS, JUDGE_SEED = 128, 11
PLAIN = {
    'views.large_scale': False, 'views.view_zoom': 1.0, 'views.aspect': 1.0,
    'views.rotation_deg': 0.0, 'views.shear_deg': 0.0, 'views.translation': 0.2,
    'views.view_flip': 0.5, 'views.mixup': 0.0, 'views.photometric': 0.0, 'views.paste_max': 0}
AFFINE = {'views.rotation_deg': 10.0, 'views.shear_deg': 2.0, 'views.view_zoom': 3.0,
          'views.aspect': 1.3}
MIXUP = {'views.mixup': 0.5}
# Views are a quarter of the paper's: a photo that is a tenth of one would be 25 pixels wide.
LARGE_SCALE = {'views.large_scale': True, 'views.resize_min': 0.5, 'views.resize_max': 3.0}
STRONG: dict[str, Any] = {**PLAIN, **AFFINE, **MIXUP, **LARGE_SCALE}

ARMS: dict[str, dict[str, dict[str, Any]]] = {
    'augmentation': {
        'flip, colour, crop': PLAIN,
        '+ affine': {**PLAIN, **AFFINE},
        '+ affine, MixUp': {**PLAIN, **AFFINE, **MIXUP},
        '+ affine, large-scale jitter': {**PLAIN, **AFFINE, **LARGE_SCALE},
        '+ all three': STRONG,
        '+ all three, photometric': {**STRONG, 'views.photometric': 0.3},
        'ours with cut-outs': {},
    },
    'proposals': {
        f'{number} a batch': {**STRONG, 'pairs.max_instances': number // 8}
        for number in (64, 128, 256)
    },
    'distillation': {
        'with': STRONG,
        'without': {**STRONG, 'loss.detection_weight': 0.0},
    },
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--data', type=Path, required=True)
    parser.add_argument('--recipe', type=Path, default=Path('config/train_tiny.yaml'))
    parser.add_argument('--steps', type=int, default=1000)
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--studies', nargs='+', choices=list(ARMS), default=list(ARMS))
    parser.add_argument('--runs', type=Path, default=Path('runs/ablations'))
    parser.add_argument('--out', type=Path, default=Path('benchmarks/ablations.json'))
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format='%(asctime)s %(message)s')
    table = json.loads(arguments.out.read_text()) if arguments.out.is_file() else {'rows': []}
    table['command'] = ('benchmarks/ablations.py --steps '
                        f'{arguments.steps} --seed {arguments.seed} --recipe {arguments.recipe}')
    table['commit'] = subprocess.run(
        ['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True,
        check=False).stdout.strip()
    known: dict[str, dict[str, Any]] = {}
    for row in table['rows']:
        known[_key(row['settings'], row['steps'], row['seed'])] = row
    for study in arguments.studies:
        for name, settings in ARMS[study].items():
            key = _key(settings, arguments.steps, arguments.seed)
            # Two studies may share an arm; it is trained once.
            scores = known.get(key) or _run_arm(name, settings, arguments, len(known))
            known[key] = scores
            row = {**scores, 'study': study, 'arm': name}
            table['rows'] = [old for old in table['rows']
                             if (old['study'], old['arm'], old['seed'])
                             != (study, name, arguments.seed)] + [row]
            arguments.out.write_text(json.dumps(table, indent=1) + '\n')
            print(f'{study:13s} {name:30s} ' + '  '.join(
                f'{column} {value:.3f}' for column, value in row['scores'].items()), flush=True)


def _run_arm(
    name: str, settings: dict[str, Any], arguments: argparse.Namespace, number: int,
) -> dict[str, Any]:
    """Train one arm and score it."""
    place = arguments.runs / f'seed{arguments.seed}_{number:02d}'
    config = load_config(arguments.recipe, {
        'steps': arguments.steps, 'seed': arguments.seed, 'validate_every': 0,
        'data.workers': 0, 'data.validation': '', **settings, 'run': str(place)})
    logging.getLogger(__name__).info('%s in %s', name, place)
    started = time.process_time()
    weights = train(config)
    seconds = time.process_time() - started
    scores = {**_validated(weights, arguments.recipe), **_tracked(weights, arguments.data, place)}
    return {'settings': settings, 'steps': arguments.steps, 'seed': arguments.seed,
            'tracked from': 'every start', 'cpu_s': round(seconds), 'scores': scores}


def _validated(weights: Path, recipe: Path) -> dict[str, float]:
    """Score retrieval, masks and proposals on held-out photos, under the same views for all."""
    config: TrainConfig = load_config(recipe)
    corpus = Corpus(config.data.validation)
    share = {name: float(corpus.sources().count(name)) for name in set(corpus.sources())}
    pairs = PairDataset(corpus, share, {}, JUDGING, config.pairs, JUDGE_SEED, JUDGE_PAIRS)
    return {name: round(value, 4)
            for name, value in validate(load_network(weights)[0], pairs).items()}


def _tracked(weights: Path, data: Path, place: Path) -> dict[str, float]:
    """AssA and IDF1 of the tracker that looks at embeddings alone."""
    # Measured colours would hide what training changes.
    TinyModel._measured = _nothing  # type: ignore[method-assign, assignment]
    model = ModelConfig(name='tiny', max_masks=0, checkpoint=str(weights))
    sequences = tuple(read_sequence(data / 'sequences' / name) for name in SEQUENCES)
    runs: list[Run] = run_benchmark(Plan(
        sequences, (observer('truth', Observation('truth', DetectorConfig(), model)),),
        (own_tracker('appearance', TrackerConfig(**PRESETS['tao_bench'])),), STRIDES, (Faults(),),
        place / 'cache', every_start=True))
    scores = {}
    for stride in STRIDES:
        found = combine([run.score for run in runs
                         if run.stride == stride and run.score is not None]).table()
        scores[f'AssA_{stride}'] = round(found['AssA'], 4)
        scores[f'IDF1_{stride}'] = round(found['IDF1'], 4)
    return scores


def _nothing(_: Any, image: Any, detections: Instances, length: float) -> NDArray[np.float32]:
    """Stand in for the measured half of the embedding."""
    return np.zeros((len(detections), 1), np.float32)


def _key(settings: dict[str, Any], steps: int, seed: int) -> str:
    """Name of what decides an arm's result."""
    return json.dumps([sorted(settings.items()), steps, seed])


if __name__ == '__main__':
    main()
