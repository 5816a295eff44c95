"""The copies of other packages' messages speak to the real ones; ours fit the structures."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.ros

# Type hashes (REP 2011). Equal hashes mean equal names, types and order of all fields, nested ones
# included. vision_msgs: 4.1.1, built from its own sources. yolo_msgs (4.6.1, 2026-07) and
# autoware_perception_msgs (2026-04): computed by rosbags from the published .msg files.
# tier4_perception_msgs: the same from its files of 2024-03 with autoware_auto_perception_msgs
# replaced by autoware_perception_msgs, as Autoware did in 2024-05. nav_msgs: of its wheel 5.5.1.
# tf2_msgs: computed by rosbags from the definition that it carries.
REAL = {
    'vision_msgs/msg/Detection2DArray':
        'RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968',
    'vision_msgs/msg/LabelInfo':
        'RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783',
    'nav_msgs/msg/Odometry':
        'RIHS01_3cc97dc7fb7502f8714462c526d369e35b603cfc34d946e3f2eda2766dfec6e0',
    'tf2_msgs/msg/TFMessage':
        'RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087',
    'yolo_msgs/msg/DetectionArray':
        'RIHS01_719290b4e201b2b6f9aa59f01215bc15b774e7b822f7f6d931d68e5ba6354a6a',
    'autoware_perception_msgs/msg/DetectedObject':
        'RIHS01_395e8cae03c45c86ddb3263f9db58f5a1364bdabdcec56c24c817a372f7d566f',
    'tier4_perception_msgs/msg/DetectedObjectsWithFeature':
        'RIHS01_57ca7ba338d93c8174ea5a411ed093a01cd22df19c934ffb977103c98d697291',
}


@pytest.mark.parametrize('name', REAL)
def test_the_copies_have_the_types_of_the_real_packages(name: str) -> None:
    package, _, kind = name.split('/')
    pytest.importorskip(f'{package}.msg')
    prefixes = os.environ['AMENT_PREFIX_PATH'].split(os.pathsep)
    paths = [Path(prefix) / 'share' / package / 'msg' / f'{kind}.json'
             for prefix in prefixes if prefix]
    found = [path for path in paths if path.is_file()]
    if not found:
        pytest.skip('this ROS 2 distribution has no type hashes')
    hashes = {entry['type_name']: entry['hash_string']
              for entry in json.loads(found[0].read_text())['type_hashes']}
    assert hashes[name] == REAL[name]


def test_states_and_flags_of_the_message_are_those_of_the_structures() -> None:
    from masa_ros.msg import TrackedObject
    from masa_ros.structures.instances import Flag, TrackState
    for state in TrackState:
        assert getattr(TrackedObject, f'STATE_{state.name}') == state
    for flag in Flag:
        if flag:
            assert getattr(TrackedObject, f'FLAG_{flag.name}') == flag
