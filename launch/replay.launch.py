"""Play a bag into the tracker: ros2 launch masa_ros replay.launch.py bag:=/path/to/bag."""

from pathlib import Path
import sys

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from masa_ros.ros.bag import BagReader
from masa_ros.ros.transport import environment

ARGUMENTS = (
    ('rate', '1.0', 'Speed; 1 is real time.'),
    ('loop', 'false', 'Whether the bag starts again at its end.'),
    ('image_topic', '', 'Topic of the images; empty takes the only one in the bag.'),
    ('detections_topic', '', 'Topic of the detections; empty takes the only one in the bag.'),
    ('model', '', 'Model to run, such as tiny or sam_vit_b.'),
    ('checkpoint', '', 'Weights file of the model.'),
    ('device', '', 'Device: auto, cpu, cuda or cuda:<index>.'),
    ('params_file', '', 'YAML file of parameters; config/tracker.yaml lists all of them.'),
    ('namespace', '', 'Namespace of the tracker.'),
    ('log_level', 'info', 'debug, info, warn, error or fatal.'),
)
# Of the tracker's arguments, those that go through as they are.
PASSED = ('model', 'checkpoint', 'device', 'params_file', 'namespace', 'log_level')
# For the answers to the last images.
SETTLE_S = 3.0


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments, start the tracker and the player."""
    return LaunchDescription([
        DeclareLaunchArgument('bag', description='Folder of a bag, or its .mcap or .db3 file.'),
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, default, text in ARGUMENTS),
        OpaqueFunction(function=_start),
    ])


def _start(context):
    """Start the tracker on the bag's topics; everything ends with the bag."""
    values = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    path = LaunchConfiguration('bag').perform(context)
    with BagReader(Path(path)) as bag:
        images, detections = bag.image_topics(), bag.detection_topics()
    image = _choose(values['image_topic'], images, 'image_topic')
    boxes = _choose(values['detections_topic'], detections, 'detections_topic')
    types = {topic.name: topic.type_name for topic in images}
    tracker = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(__file__).with_name('tracker.launch.py'))),
        launch_arguments={
            **{name: values[name] for name in PASSED},
            'image_topic': image, 'detections_topic': boxes or 'detections',
            'compressed': str(types.get(image, '').endswith('CompressedImage')).lower(),
            'policy': 'every', 'use_sim_time': 'true'}.items())
    loop = ['--loop'] if values['loop'].lower() in ('true', '1') else []
    player = ExecuteProcess(
        cmd=[sys.executable, '-m', 'masa_ros.ros.player', path, '--rate', values['rate'], *loop],
        name='player', additional_env=environment(), output='screen')
    end = RegisterEventHandler(OnProcessExit(target_action=player, on_exit=[
        TimerAction(period=SETTLE_S, actions=[Shutdown(reason='the bag is over')])]))
    return [tracker, player, end]


def _choose(given, topics, argument):
    """Topic to use: the given one, or the only one of its kind; none there is an empty text."""
    if given or not topics:
        return given
    if len(topics) > 1:
        names = ', '.join(topic.name for topic in topics)
        raise RuntimeError(f'the bag has several topics of that kind, choose one: {argument}:='
                           f'... with {names}')
    return topics[0].name
