"""
Make the corpora that the shipped weights of the model tiny were trained and judged on.

    ./scripts/with_env python scripts/prepare_tiny_corpus.py ../shared/data runs
    ./scripts/with_env python scripts/prepare_tiny_corpus.py ../shared/data runs --teacher \
        runs/tiny3/latest.pt

The first writes ``corpus_val`` (held out), ``corpus_train`` (first round: labels) and
``corpus_train2`` (second round: labels, detectors' boxes, rendered streets), the second
``corpus_train3`` (self-training: besides, what the network of the rounds before sees in the
training photos). Nothing of ``sequences`` is used.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
import multiprocessing
from pathlib import Path

from masa_ros.detectors import build_detector, DetectorConfig
from masa_ros.models import build_model, ModelConfig
from masa_ros.models.model import Model
from masa_ros.rendering.scene import SceneConfig
from masa_ros.structures.instances import Instances
from masa_ros.training.corpus import Corpus, LabelledImage, write_corpus
from masa_ros.training.labels import (
    add_detections,
    add_proposals,
    read_labels,
    rendered_clip,
)
from masa_ros.training.proposals import filter_proposals, ProposalConfig
import torch

# Left out although they are there: dashcam and street state no licence, and one group of
# nuScenes files mixes in frames of data sets with licences of their own.
SOURCES = ('bsds500', 'camvid', 'kitti2015', 'kitti_misc', 'kitti_scalabel', 'kitti_ab3dmot',
           'nuscenes_young', 'coco128train', 'coco_vqa', 'coco_caption')
HELD_OUT_POLYGONS = 28
STREETS, FRAMES_OF_A_STREET = range(1000, 1036), 6
STREET = SceneConfig(width_px=480, height_px=272, duration_s=10.0, num_objects=26,
                     camera_motion=2.0)


def main() -> None:
    """Read, split and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('data', type=Path, help='folder with pool, labels, images and models')
    parser.add_argument('out', type=Path, help='folder for the corpora')
    parser.add_argument('--teacher', default='', help='checkpoint for the self-training round')
    arguments = parser.parse_args()
    if arguments.teacher:
        write_corpus(arguments.out / 'corpus_train3', third_round(
            arguments.out / 'corpus_train2', arguments.teacher))
        return
    items = list(read_labels(arguments.data, SOURCES))
    held_out = held_out_names(items)
    rest = [item for item in items if item.name not in held_out]
    write_corpus(arguments.out / 'corpus_val', [i for i in items if i.name in held_out])
    write_corpus(arguments.out / 'corpus_train', rest)
    write_corpus(arguments.out / 'corpus_train2', second_round(rest, arguments.data))


def held_out_names(items: list[LabelledImage]) -> set[str]:
    """Choose every fifth BSDS500 photo and the last 28 COCO photos that have polygons."""
    polygons = sorted(item.name for item in items if item.source == 'coco128train'
                      and any(mask is not None for mask in item.masks))
    numbers = {item.name: int(item.name[8:12]) for item in items if item.source == 'bsds500'}
    return {*polygons[-HELD_OUT_POLYGONS:],
            *(name for name, number in numbers.items() if number % 5 == 0)}


def second_round(items: list[LabelledImage], data: Path) -> Iterator[LabelledImage]:
    """Add a detector's boxes where labels are few, and rendered streets."""
    detector = build_detector(DetectorConfig(
        name='onnx', checkpoint=str(data / 'models/picodet_s_416_coco.onnx'),
        score_threshold=0.4))
    for item in items:
        if detector is not None and item.source not in ('bsds500', 'coco128train'):
            yield add_detections(item, detector.detect([item.image])[0])
        else:
            yield item
    for seed in STREETS:
        yield from rendered_clip(seed, FRAMES_OF_A_STREET, STREET)


def third_round(folder: Path, teacher: str) -> Iterator[LabelledImage]:
    """Add masks of the boxes and proposals that the network of the rounds before makes."""
    # One thread each: threads of one network wait for each other far longer on a busy machine.
    context = multiprocessing.get_context('spawn')
    with context.Pool(None, _Teacher.start, (str(folder), teacher)) as pool:
        yield from pool.imap(_Teacher.look, range(len(Corpus(folder))), 8)


class _Teacher:
    """The network of the rounds before, in a process of its own."""

    corpus: Corpus
    model: Model
    # Masks keep their small parts: what is left of a car behind a fence is that car as well.
    kept = ProposalConfig(most=64, nms_threshold=0.5)

    @classmethod
    def start(cls, folder: str, teacher: str) -> None:
        """Open the corpus and load the network, once in each process."""
        torch.set_num_threads(1)
        cls.corpus = Corpus(folder)
        cls.model = build_model(ModelConfig(name='tiny', checkpoint=teacher, max_masks=300))

    @classmethod
    def look(cls, number: int) -> LabelledImage:
        """Mark one photo."""
        item = cls.corpus[number]
        # People drew every region of BSDS500; rendered frames know all their objects.
        if item.exhaustive or item.identities is not None:
            return item
        proposed, prompted = cls.model.run(
            [item.image, item.image], [None, Instances.from_boxes(item.boxes)])
        height, width = item.image.shape[:2]
        kept = filter_proposals(proposed, height, width, cls.kept)
        return add_proposals(item, kept, prompted)


if __name__ == '__main__':
    main()
