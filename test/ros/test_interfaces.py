"""The copy of vision_msgs speaks to the real package; ours is built from the files of msg/."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

# Type hashes (REP 2011) of ros-perception/vision_msgs 4.1.1, built from its own sources. Equal
# hashes mean equal names, types and order of all fields, nested ones included.
REAL = {
    'Detection2DArray':
        'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968',
    'LabelInfo':
        'RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783',
}


@pytest.mark.parametrize('name', REAL)
def test_vision_msgs_has_the_types_of_the_real_package(name: str) -> None:
    pytest.importorskip('vision_msgs.msg')
    prefixes = os.environ['AMENT_PREFIX_PATH'].split(os.pathsep)
    paths = [Path(prefix) / 'share' / 'vision_msgs' / 'msg' / f'{name}.json'
             for prefix in prefixes if prefix]
    found = [path for path in paths if path.is_file()]
    if not found:
        pytest.skip('this ROS 2 distribution has no type hashes')
    hashes = {entry['type_name']: entry['hash_string']
              for entry in json.loads(found[0].read_text())['type_hashes']}
    assert hashes[f'vision_msgs/msg/{name}'] == REAL[name]


def test_states_and_flags_of_the_message_are_those_of_the_structures() -> None:
    from masa_ros.msg import TrackedObject
    from masa_ros.structures.instances import Flag, TrackState
    for state in TrackState:
        assert getattr(TrackedObject, f'STATE_{state.name}') == state
    for flag in Flag:
        if flag:
            assert getattr(TrackedObject, f'FLAG_{flag.name}') == flag
