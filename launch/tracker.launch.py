"""Start the tracker on an image topic: ros2 launch masa_ros tracker.launch.py --show-args."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from masa_ros.ros.transport import environment

# Arguments that are parameters of the node: name, parameter, type, description. An empty value
# leaves the parameter to params_file, or to the default of the node.
PARAMETERS = (
    ('model', 'model.name', str, 'Model to run, such as tiny or sam_vit_b.'),
    ('checkpoint', 'model.checkpoint', str, 'Weights file of the model.'),
    ('device', 'model.device', str, 'Device: auto, cpu, cuda or cuda:<index>.'),
    ('text', 'detector.text', str,
     'What to look for, in words: text:="car . pedestrian . traffic cone".'),
    ('autostart', 'autostart', bool, 'Whether the node configures and activates itself.'),
    ('compressed', 'compressed', bool,
     'Whether image_topic carries sensor_msgs/CompressedImage; give its full name then, such as '
     '/camera/image_raw/compressed.'),
    ('policy', 'policy', str, 'Images faster than the model: latest (cameras) or every (bags).'),
    ('use_sim_time', 'use_sim_time', bool, 'Whether time comes from /clock.'),
)
ARGUMENTS = (
    ('cameras', '', 'Names of several cameras, with commas: cameras:=front,left,right.'),
    ('image_topic', '', 'Topic of the images; image when empty. With cameras a name in which '
     '{camera} stands for each of theirs, {camera}/image_raw when empty.'),
    ('detections_topic', '', 'Topic of the detections, if there are any; detections when empty, '
     'with cameras {camera}/detections.'),
    ('camera_info_topic', '', 'Topic of the calibration, if there is any; camera_info when '
     'empty, with cameras {camera}/camera_info.'),
    ('click_topic', '', 'Topic of clicks on objects, such as /clicked_point of RViz and Foxglove; '
     '~/input/click when empty, with cameras ~/<camera>/input/click.'),
    ('params_file', '', 'YAML file of parameters; config/tracker.yaml lists all of them.'),
    ('namespace', '', 'Namespace of the node; its outputs are <namespace>/tracker/output/...'),
    ('log_level', 'info', 'debug, info, warn, error or fatal.'),
    ('respawn', 'false', 'Whether a node that died is started again.'),
)


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the node."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=text)
          for name, default, text in ARGUMENTS),
        *(DeclareLaunchArgument(name, default_value='', description=text)
          for name, _, _, text in PARAMETERS),
        OpaqueFunction(function=_start_tracker),
    ])


def _start_tracker(context):
    """Start the node with the parameters that were given."""
    given = {parameter: ParameterValue(LaunchConfiguration(name), value_type=kind)
             for name, parameter, kind, _ in PARAMETERS
             if LaunchConfiguration(name).perform(context)}
    cameras = [name.strip() for name in
               LaunchConfiguration('cameras').perform(context).split(',') if name.strip()]
    if cameras:
        given['cameras'] = cameras
    params_file = LaunchConfiguration('params_file').perform(context)
    return [Node(
        package='masa_ros',
        executable='tracker_node',
        name='tracker',
        namespace=LaunchConfiguration('namespace'),
        parameters=[*([params_file] if params_file else []), *([given] if given else [])],
        remappings=_remappings(context, cameras),
        arguments=['--ros-args', '--log-level', LaunchConfiguration('log_level')],
        additional_env=environment(),
        output='screen',
        respawn=IfCondition(LaunchConfiguration('respawn')).evaluate(context),
        respawn_delay=2.0,
    )]


def _remappings(context, cameras):
    """Remap the inputs of the only camera, or of each, to the given topics."""
    remappings = []
    clicks = LaunchConfiguration('click_topic').perform(context)
    if clicks:
        # A point of space may be in the view of any camera, so they may share a topic.
        prefixes = [(name, f'~/{name}/') for name in cameras] or [('', '~/')]
        remappings += [(f'{prefix}input/click', clicks.replace('{camera}', name))
                       for name, prefix in prefixes]
    for topic in ('image', 'detections', 'camera_info'):
        given = LaunchConfiguration(f'{topic}_topic').perform(context)
        if not cameras:
            remappings.append((f'~/input/{topic}', given or topic))
            continue
        own = given or ('{camera}/image_raw' if topic == 'image' else '{camera}/' + topic)
        if '{camera}' not in own and len(cameras) > 1:
            raise RuntimeError(f'{topic}_topic is {own!r}: with several cameras {{camera}} must '
                               'stand in it for their names')
        remappings += [(f'~/{name}/input/{topic}', own.replace('{camera}', name))
                       for name in cameras]
    return remappings
