"""The weights in the package."""

from __future__ import annotations

import json

from masa_ros.models import build_model, ModelConfig
from masa_ros.models.tiny.weights import load_network, SHIPPED
from masa_ros.structures.instances import Instances
import numpy as np


def test_the_package_carries_its_weights_and_their_origin() -> None:
    assert SHIPPED.stat().st_size <= 12 * 2 ** 20
    _, info = load_network()
    page = json.loads(SHIPPED.with_suffix('.json').read_text())
    assert page['sha256'] == info.sha256
    assert info.trained
    assert {'use', 'licences', 'commands', 'seeds', 'hardware', 'recipe'} <= page.keys()


def test_a_bright_disc_on_a_plain_ground_is_found_cut_out_and_known_again() -> None:
    rows, columns = np.mgrid[:240, :320] + 0.5
    ground = np.full((240, 320, 3), (90, 110, 100), np.uint8)
    first, second = ground.copy(), ground.copy()
    red = (columns - 90) ** 2 + (rows - 120) ** 2 < 40 ** 2
    blue = (columns - 220) ** 2 + (rows - 120) ** 2 < 40 ** 2
    first[red], first[blue] = (210, 40, 40), (40, 60, 200)
    second[red], second[blue] = (40, 60, 200), (210, 40, 40)
    model = build_model(ModelConfig(name='tiny', device='cpu'))
    boxes = Instances.from_boxes([[50, 80, 130, 160], [180, 80, 260, 160]])
    one, two = model.run([first, second], [boxes, boxes])
    for found, truth in zip(one.masks, (red, blue), strict=True):
        assert found is not None
        plane = found.paste(240, 320)
        assert (plane & truth).sum() / (plane | truth).sum() > 0.75
    assert one.embeddings is not None
    assert two.embeddings is not None
    # The discs have changed places: each is more like its own colour than like its place.
    alike = one.embeddings @ two.embeddings.T
    assert alike.argmax(1).tolist() == [1, 0]
    proposed = model.run([first], [None])[0]
    overlap = max(
        min(box[2], 130) - max(box[0], 50) for box in proposed.boxes[:20])
    assert len(proposed) > 0
    assert overlap > 60
