"""
Make the corpora that the shipped weights of the model tiny were trained and judged on.

    ./scripts/with_env python scripts/prepare_tiny_corpus.py ../shared/data runs
    ./scripts/with_env python scripts/prepare_tiny_corpus.py ../shared/data runs --teacher \
        runs/tiny3/latest.pt
    ./scripts/with_env python scripts/prepare_tiny_corpus.py ../shared/data runs --teacher \
        runs/tiny8/latest.pt --videos VIDEOS

The first writes ``corpus_val`` (held out), ``corpus_train`` (first round: labels) and
``corpus_train2`` (second round: labels, detectors' boxes, rendered streets), the second
``corpus_train3`` (self-training: besides, what the network of the rounds before sees in the
training photos). With a folder of videos ``corpus_train4`` is written: the third one and clips
of the videos, in which the tracker follows what that network and a detector find. Nothing of
``sequences`` is used.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice
import json
import multiprocessing
from pathlib import Path
import re

from masa_ros.detectors import build_detector, DetectorConfig
from masa_ros.models import build_model, ModelConfig
from masa_ros.models.model import Model
from masa_ros.models.weights import check, WeightsFile
from masa_ros.rendering.scene import SceneConfig
from masa_ros.sources import open_source, read_image
from masa_ros.structures.instances import Instances
from masa_ros.training.corpus import Corpus, LabelledImage, write_corpus
from masa_ros.training.labels import (
    add_detections,
    add_proposals,
    read_labels,
    rendered_clip,
    shrink,
)
from masa_ros.training.proposals import filter_proposals, ProposalConfig
from masa_ros.training.tracklets import at_most_ten_a_second, followed
import numpy as np
from numpy.typing import NDArray
import torch

# Left out although they are there: dashcam and street state no licence, and one group of
# nuScenes files mixes in frames of data sets with licences of their own.
SOURCES = ('bsds500', 'camvid', 'kitti2015', 'kitti_misc', 'kitti_scalabel', 'kitti_ab3dmot',
           'nuscenes_young', 'coco128train', 'coco_vqa', 'coco_caption')
HELD_OUT_POLYGONS = 28
STREETS, FRAMES_OF_A_STREET = range(1000, 1036), 6
STREET = SceneConfig(width_px=480, height_px=272, duration_s=10.0, num_objects=26,
                     camera_motion=2.0)
_INTEL = ('https://raw.githubusercontent.com/intel-iot-devkit/sample-videos/'
          '57978890822836f2b4743852f04f62fc511757e4/')
_SAM2 = ('https://raw.githubusercontent.com/facebookresearch/sam2/'
         '2b90b9f5ceec907a1c18123530e92e794ad901a4/')
# Saved under these names.
VIDEOS = tuple(WeightsFile(file.partition('.')[0], file, url, licence, size, sha256)
               for file, url, licence, size, sha256 in (
    ('intel_car-detection.mp4', _INTEL + 'car-detection.mp4', 'CC BY 4.0', 2811553,
     'd31e0ebf194cc16e50eea784e7c3b0b1bb7976a4fb9b3fec26cb92a6704cca34'),
    ('intel_one-by-one-person-detection.mp4', _INTEL + 'one-by-one-person-detection.mp4',
     'CC BY 4.0', 3291918, 'a5964aa259099a482a8b360ffc2c57b5a30f84d5919236a4dad01f8e929ac07c'),
    ('sam2_01_dog.mp4', _SAM2 + 'demo/data/gallery/01_dog.mp4', 'Apache-2.0', 1738970,
     '21425eb9b7fce7d3fb23fa17b1c07bcbe99ba9e64e3b5347d8052ba6d9c38924'),
    ('sam2_02_cups.mp4', _SAM2 + 'demo/data/gallery/02_cups.mp4', 'Apache-2.0', 2543710,
     '6320759eede8c82c7d43fe1cc569f3a389758ec37b2b1dc9e9b7b4ce4110ab13'),
    ('sam2_03_blocks.mp4', _SAM2 + 'demo/data/gallery/03_blocks.mp4', 'Apache-2.0', 1808832,
     '2868f2c62f5cfa28dabbe925fae95da7f896531630a0627e5edbc784ea42413d'),
    ('sam2_04_coffee.mp4', _SAM2 + 'demo/data/gallery/04_coffee.mp4', 'Apache-2.0', 1177415,
     'f9a439a8bf66910db3e2a9d9ea853bc24c760c8d4ca227f4c33051b1cef28c03'),
    ('sam2_05_default_juggle.mp4', _SAM2 + 'demo/data/gallery/05_default_juggle.mp4',
     'Apache-2.0', 1842699, '60d23773ad50389a5c2df9ba4ab05e9b4d39d21dfa7b75d15b46666ff7a4e2bb'),
    ('sam2_bedroom.mp4', _SAM2 + 'notebooks/videos/bedroom.mp4', 'Apache-2.0', 2380401,
     '1be76d5d19b066e8ad7c565d88a98e11a8f8d456a707508a7aa35390def70e30'),
    ('vtest.avi', 'https://raw.githubusercontent.com/opencv/opencv/4.9.0/samples/data/vtest.avi',
     'Apache-2.0', 8131690, '45cddc9490be69345cbdab64ca583be65987e864ca408038e648db99e10516cf'),
))
# A clip is what one look of the tracker covers; every third of its frames is kept.
MOST_FRAMES, CLIP_FRAMES, KEPT_FRAMES, LONG_SIDE_PX = 600, 60, 3, 512
# Frames of this CamVid recording are a fifteenth of a second apart where the numbers are near.
CAMVID_RECORDING, CAMVID_GAP = re.compile(r'0016E5_(\d+)'), 3


def main() -> None:
    """Read, split and write."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('data', type=Path, help='folder with pool, labels, images and models')
    parser.add_argument('out', type=Path, help='folder for the corpora')
    parser.add_argument('--teacher', default='', help='checkpoint for the self-training round')
    parser.add_argument('--videos', type=Path, help='folder of videos to follow objects in')
    arguments = parser.parse_args()
    if arguments.videos:
        write_corpus(arguments.out / 'corpus_train4', ninth_round(
            arguments.out / 'corpus_train3', arguments.data, arguments.videos,
            arguments.teacher))
        return
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


def ninth_round(
    folder: Path, data: Path, videos: Path, teacher: str,
) -> Iterator[LabelledImage]:
    """Add clips of videos to the corpus of the rounds before."""
    for video in VIDEOS:
        if not (videos / video.file).is_file():
            raise FileNotFoundError(f'{videos / video.file} is missing; it is {video.url} '
                                    f'({video.size_bytes} bytes, {video.licence})')
        check(video, videos / video.file)
    corpus = Corpus(folder)
    yield from (corpus[i] for i in range(len(corpus)))
    clips = [(video.name, [str(videos / video.file)]) for video in VIDEOS]
    clips.append(('camvid_clip', camvid_recording(data / 'pool')))
    context = multiprocessing.get_context('spawn')
    arguments = (str(data / 'models/yolox_nano.onnx'), teacher)
    with context.Pool(None, _Follower.start, arguments) as pool:
        for frames in pool.imap(_Follower.follow, clips, 1):
            print(frames[0].source if frames else 'nothing', len(frames), flush=True)
            yield from frames


def camvid_recording(pool: Path) -> list[str]:
    """List the photos of the pool that are successive frames, in order of time."""
    numbered = {}
    for entry in json.loads((pool / 'index.json').read_text()):
        match = CAMVID_RECORDING.search(entry['path'])
        if match:
            numbered[int(match[1])] = str(pool / entry['file'])
    numbers = sorted(numbered)
    near = [n for n in numbers if any(
        0 < abs(n - other) <= CAMVID_GAP for other in numbers)]
    return [numbered[n] for n in near]


class _Follower:
    """Network, detector and tracker in a process of its own."""

    kept = ProposalConfig(most=32, nms_threshold=0.5)

    @classmethod
    def start(cls, detector: str, teacher: str) -> None:
        """Load the networks, once in each process."""
        torch.set_num_threads(1)
        cls.detector = build_detector(DetectorConfig(
            name='onnx', checkpoint=detector, score_threshold=0.3))
        cls.model = build_model(ModelConfig(name='tiny', checkpoint=teacher, max_masks=300))

    @classmethod
    def follow(cls, video: tuple[str, list[str]]) -> list[LabelledImage]:
        """Mark the frames of a video and follow the objects of each of its clips."""
        name, files = video
        images = ((frame.image for frame in at_most_ten_a_second(open_source(files[0])))
                  if len(files) == 1 else (read_image(Path(file)) for file in files))
        marked = [cls._mark(f'{name}/{i}', name, shrink(image, LONG_SIDE_PX))
                  for i, image in enumerate(islice(images, MOST_FRAMES))]
        result = []
        for start in range(0, len(marked), CLIP_FRAMES):
            frames, found = zip(*marked[start:start + CLIP_FRAMES], strict=True)
            result += followed(frames, found, f'{name}/{start}')[::KEPT_FRAMES]
        return [frame for frame in result if len(frame.boxes)]

    @classmethod
    def _mark(
        cls, name: str, source: str, image: NDArray[np.uint8],
    ) -> tuple[LabelledImage, Instances]:
        """Mark what the detector and the network find, with embeddings of all of it."""
        assert cls.detector is not None
        boxes = cls.detector.detect([image])[0]
        item = LabelledImage(name, source, image, boxes.boxes, (None,) * len(boxes),
                             boxes.class_ids)
        proposed, prompted = cls.model.run([image, image], [None, boxes])
        kept = filter_proposals(proposed, *image.shape[:2], cls.kept)
        item = add_proposals(item, kept, prompted)
        return item, cls.model.run([image], [Instances.from_boxes(item.boxes)])[0]


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
