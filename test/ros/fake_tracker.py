"""
The real node with a model that needs neither weights nor time; run as a script.

The model gives every box a full mask and the mean color of its pixels as embedding. It proposes
one box, the right half of the image, when PROPOSES=1. SLOW_S delays every frame, FAIL_FILE makes
loading fail while that file is missing. DETECTS=1 adds a detector that looks for any class that is
named, and finds one box in the left half for each.
"""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
import sys
import time
from typing import Any
from unittest.mock import patch

from masa_ros.models import ModelConfig
from masa_ros.models.model import WeightsInfo
from masa_ros.structures.boxes import clip_boxes
from masa_ros.structures.instances import Flag, Instances
from masa_ros.structures.masks import encode_crop
import numpy as np
from numpy.typing import NDArray


class FakeModel:
    name = 'fake'
    weights = WeightsInfo()
    device = 'cpu'

    def __init__(self, config: ModelConfig) -> None:
        missing = os.environ.get('FAIL_FILE')
        if missing and not Path(missing).exists():
            raise FileNotFoundError(f'weights {missing} are not there; put them there')
        self.can_propose = os.environ.get('PROPOSES') == '1'
        self.delay_s = float(os.environ.get('SLOW_S', '0'))

    def warm_up(self) -> None:
        pass

    def run(
        self, images: Sequence[NDArray[np.uint8]], detections: Sequence[Instances | None],
    ) -> list[Instances]:
        time.sleep(self.delay_s)
        return [self.segment(image, boxes) for image, boxes in zip(images, detections,
                                                                   strict=True)]

    def segment(self, image: NDArray[np.uint8], given: Instances | None) -> Instances:
        height, width = image.shape[:2]
        if image[0, 0].tolist() == [66, 6, 66]:
            raise RuntimeError('the model does not like this picture')
        if given is None:
            if not self.can_propose:
                raise ValueError('model fake has no proposals')
            given = Instances.from_boxes(
                [[width / 2, 0, width, height]], flag=Flag.FROM_PROPOSAL)
        corners = clip_boxes(given.boxes, height, width).round().astype(int).tolist()
        means = [image[y0:max(y1, y0 + 1), x0:max(x1, x0 + 1)].mean(axis=(0, 1))
                 for x0, y0, x1, y1 in corners]
        return given.with_fields(
            masks=tuple(encode_crop(np.ones((y1 - y0, x1 - x0), bool), x0, y0)
                        for x0, y0, x1, y1 in corners),
            mask_qualities=np.full(len(given), 0.5, np.float32),
            embeddings=np.array(means, np.float32).reshape(-1, 3) - 127.5)

    def reconfigure(self, config: Any) -> None:
        pass

    def close(self) -> None:
        pass


class FakeDetector:
    name = 'fake'
    open_vocabulary = True

    def __init__(self) -> None:
        self.class_names: tuple[str, ...] = ()

    def warm_up(self) -> None:
        pass

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
        names = self.class_names[:4]
        boxes = [[8 * row, 4, 8 * row + 6, 40] for row in range(len(names))]
        return [Instances.from_boxes(np.array(boxes, np.float32).reshape(-1, 4), labels=names)
                for _ in images]

    def set_classes(self, names: Sequence[str]) -> None:
        if not names or 'nonsense' in names:
            raise ValueError('expected classes that are no nonsense')
        self.class_names = tuple(names)

    def reconfigure(self, config: Any) -> None:
        if config.classes:
            self.set_classes(config.classes)

    def close(self) -> None:
        pass


def main() -> int:
    from masa_ros.ros.node import main as run_node
    detector = FakeDetector() if os.environ.get('DETECTS') == '1' else None
    with (patch('masa_ros.pipeline.build_model', FakeModel),
          patch('masa_ros.pipeline.build_detector', lambda *_: detector)):
        return run_node()


if __name__ == '__main__':
    sys.exit(main())
