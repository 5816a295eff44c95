"""The launch files as ROS's launch reads them; skipped where launch_ros is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path
import re
from typing import Any, TypeAlias

import pytest

pytestmark = pytest.mark.ros

# The class in conftest.py, which pytest does not let a test module import.
Robot: TypeAlias = Any

NAMES = ['tracker.launch.py', 'replay.launch.py']


def load(root: Path, name: str) -> Any:
    pytest.importorskip('launch_ros.actions', reason='launch_ros is not installed')
    spec = importlib.util.spec_from_file_location(name.replace('.', '_'), root / 'launch' / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments_of(module: Any) -> dict[str, str]:
    from launch.actions import DeclareLaunchArgument
    return {entity.name: entity.description
            for entity in module.generate_launch_description().entities
            if isinstance(entity, DeclareLaunchArgument)}


def started(module: Any, **given: str) -> list[Any]:
    """Actions that a launch file starts with some arguments."""
    from launch.actions import DeclareLaunchArgument, OpaqueFunction
    from launch.launch_context import LaunchContext
    context = LaunchContext()
    context.launch_configurations.update(given)
    actions: list[Any] = []
    for entity in module.generate_launch_description().entities:
        if isinstance(entity, DeclareLaunchArgument):
            entity.visit(context)
        elif isinstance(entity, OpaqueFunction):
            actions += entity.execute(context)
    return actions


def test_the_tracker_takes_the_arguments_that_users_expect(root: Path) -> None:
    assert set(arguments_of(load(root, 'tracker.launch.py'))) >= {
        'image_topic', 'detections_topic', 'model', 'checkpoint', 'device', 'params_file',
        'namespace', 'use_sim_time', 'autostart', 'compressed', 'log_level', 'respawn'}


@pytest.mark.parametrize('name', NAMES)
def test_every_argument_is_described_and_in_the_document(root: Path, name: str) -> None:
    text = (root / 'docs' / 'node.md').read_text()
    for argument, description in arguments_of(load(root, name)).items():
        assert description.endswith('.'), argument
        assert re.search(rf'`{argument}`|{argument}:=', text), argument


def test_arguments_of_the_tracker_name_real_parameters(root: Path) -> None:
    from masa_ros.ros.parameters import described
    module = load(root, 'tracker.launch.py')
    named = {parameter for _, parameter, _, _ in module.PARAMETERS} - {'use_sim_time'}
    assert named <= set(described())


def test_only_given_arguments_reach_the_node(root: Path) -> None:
    module = load(root, 'tracker.launch.py')
    # Only now is it known that ROS's launch is here and not just our folder of that name.
    from launch.launch_context import LaunchContext
    from launch_ros.utilities import evaluate_parameters
    node = started(module)[0]
    assert not node._Node__parameters
    node = started(module, model='sam_vit_b', compressed='true', params_file='/my.yaml')[0]
    context = LaunchContext()
    context.launch_configurations.update(model='sam_vit_b', compressed='true')
    values = evaluate_parameters(context, node._Node__parameters)
    assert str(values[0]) == '/my.yaml'
    assert values[1] == {'model.name': 'sam_vit_b', 'compressed': True}


def test_the_topics_of_one_camera_are_remapped(root: Path) -> None:
    module = load(root, 'tracker.launch.py')
    from launch.launch_context import LaunchContext
    context = LaunchContext()
    context.launch_configurations.update(
        image_topic='/camera/image', detections_topic='', camera_info_topic='', click_topic='')
    assert module._remappings(context, []) == [
        ('~/input/image', '/camera/image'), ('~/input/detections', 'detections'),
        ('~/input/camera_info', 'camera_info')]
    context.launch_configurations['click_topic'] = '/clicked_point'
    assert module._remappings(context, [])[0] == ('~/input/click', '/clicked_point')


def test_the_topics_of_several_cameras_carry_their_names(root: Path) -> None:
    module = load(root, 'tracker.launch.py')
    from launch.launch_context import LaunchContext
    from launch_ros.utilities import evaluate_parameters
    node = started(module, cameras='front, left', text='car . bus',
                   image_topic='/sensors/{camera}/image')[0]
    context = LaunchContext()
    context.launch_configurations.update(
        cameras='front, left', text='car . bus', image_topic='/sensors/{camera}/image',
        detections_topic='', camera_info_topic='', click_topic='')
    values = evaluate_parameters(context, node._Node__parameters)[0]
    assert list(values['cameras']) == ['front', 'left']
    assert values['detector.text'] == 'car . bus'
    assert module._remappings(context, ['front', 'left'])[:3] == [
        ('~/front/input/image', '/sensors/front/image'),
        ('~/left/input/image', '/sensors/left/image'),
        ('~/front/input/detections', 'front/detections')]
    context.launch_configurations['click_topic'] = '/clicked_point'
    assert module._remappings(context, ['front', 'left'])[:2] == [
        ('~/front/input/click', '/clicked_point'), ('~/left/input/click', '/clicked_point')]
    context.launch_configurations['image_topic'] = '/one'
    with pytest.raises(RuntimeError, match='must stand in it'):
        module._remappings(context, ['front', 'left'])


def test_a_replay_finds_the_topics_of_the_bag(root: Path, tmp_path: Path) -> None:
    from masa_ros.ros import convert
    from masa_ros.structures.instances import Instances
    import numpy as np
    module = load(root, 'replay.launch.py')
    bags = pytest.importorskip('masa_ros.ros.bag')
    with bags.BagWriter(tmp_path / 'bag') as writer:
        header = convert.make_header(5, 'camera', writer.builder)
        writer.write('/left/compressed', convert.rgb_to_compressed(
            np.zeros((4, 6, 3), np.uint8), header, builder=writer.builder), 5)
        writer.write('/boxes', convert.instances_to_detections(
            Instances(), header, writer.builder), 5)
    tracker = started(module, bag=str(tmp_path / 'bag'))[0]
    given = dict(tracker.launch_arguments)
    assert given['image_topic'] == '/left/compressed'
    assert given['detections_topic'] == '/boxes'
    assert (given['compressed'], given['policy'], given['use_sim_time']) == (
        'true', 'every', 'true')


RUN = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(sys.argv[1]),
    launch_arguments=[argument.split(':=') for argument in sys.argv[2:]])]))
sys.exit(service.run())
"""


def test_a_launched_node_tracks_what_each_camera_shows(root: Path, robot: Robot) -> None:
    pytest.importorskip('launch_ros.actions', reason='launch_ros is not installed')
    from masa_ros.msg import TrackedObjectArray
    from masa_ros.ros import convert
    import numpy as np
    from sensor_msgs.msg import Image
    robot.execute('-c', RUN, str(root / 'launch' / 'tracker.launch.py'), 'cameras:=front,left',
                  'image_topic:=/sensors/{camera}/image_raw', 'device:=cpu', 'policy:=every')
    for name in ('front', 'left'):
        robot.listen(name, TrackedObjectArray, f'/tracker/{name}/output/tracks')
    robot.wait_until(lambda: 'active: tracking /sensors/front/image_raw' in robot.output,
                     'the node to be active')
    for name in ('front', 'left'):
        robot.publisher(name, Image, f'/sensors/{name}/image_raw').publish(
            convert.array_to_image(np.zeros((48, 64, 3), np.uint8), 'rgb8', robot.tick()))
    robot.wait_until(
        lambda: all(robot.received[name] for name in ('front', 'left')), 'tracks')
    assert robot.received['left'][0].stream == 'left'
    assert robot.stop() == 0
