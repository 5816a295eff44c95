"""
ROS parameters, declared from the settings dataclasses.

The dataclasses are the only source of names, defaults, limits and descriptions. After a change of
theirs ``python -m masa_ros.ros.parameters`` in a checkout brings ``config/tracker.yaml`` and the
table in ``docs/node.md`` up to date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
import json
from pathlib import Path
import re
import sys
import textwrap
from typing import Any

from masa_ros.pipeline import PipelineConfig
from masa_ros.regions import RegionsConfig
from masa_ros.ros.upstream import TYPES
from masa_ros.ros.upstream.placement import DetectorSize, read_size, SAME
from masa_ros.structures.settings import (
    describe,
    flatten,
    from_mapping,
    group,
    setting,
    SettingInfo,
)

AUTO = 'auto'
MAX_TOPICS = 32


_CAMERA_NAME = re.compile(r'[A-Za-z](_?[A-Za-z0-9])*')
_TAKEN_NAMES = ('input', 'output')

# Read before anything is declared; a change later would need other topics.
START_ONLY = ('cameras',)


@dataclass(frozen=True)
class DetectionsConfig:
    """Where boxes come from, and how they find their image."""

    source: str = setting(
        'auto', 'Whether boxes come from topics: topic waits for them for every image, none never '
        'listens, auto waits while a topic has a publisher or when there is no other way to find '
        'objects.', choices=('auto', 'topic', 'none'), dynamic=True)
    topics: tuple[str, ...] = setting(
        (), 'Topics of upstream detections, of any of the types in docs/upstream.md; boxes of '
        'several are merged. Empty takes ~/input/detections.')
    types: tuple[str, ...] = setting(
        (), 'Message type of each topic, or one for all, where a topic carries several; auto or '
        'empty takes the one that its publishers have.')
    sizes: tuple[str, ...] = setting(
        (), 'Size of the image that the boxes of each topic are in, or one for all: image (or '
        'empty) for that of the camera, or width x height such as 640x480, with stretched, '
        'padded (at the right and bottom) or centered behind it for how the image got there.',
        dynamic=True)
    tolerance_s: float = setting(
        0.005, 'Largest difference in seconds between the stamps of an image and of its '
        'detections; equal stamps always win.', minimum=0.0, maximum=10.0, dynamic=True)
    wait_s: float = setting(
        0.5, 'Longest time in seconds that an image waits for its detections.',
        minimum=0.0, maximum=60.0, dynamic=True)
    missing: str = setting(
        'skip', 'What happens to an image whose detections do not come: skip leaves it out '
        '(counted), empty takes it for an image without objects, propose finds objects with the '
        'in-process detector or the model itself.', choices=('skip', 'empty', 'propose'),
        dynamic=True)
    gather_s: float = setting(
        0.05, "Time in seconds without a further message after which an image's objects are "
        'complete, for topics with one message per object.', minimum=0.0, maximum=10.0,
        dynamic=True)
    merge_iou: float = setting(
        0.6, 'Boxes of one class from several topics that overlap more than this IoU are one '
        'object.', minimum=0.0, maximum=1.0, dynamic=True)
    use_masks: bool = setting(
        True, 'Whether masks that come with detections go before those of the model.',
        dynamic=True)
    other_frames: str = setting(
        'drop', 'What happens to detections whose header names another coordinate frame than '
        "the image's: drop leaves them out (counted), use takes them. An empty name fits always.",
        choices=('drop', 'use'), dynamic=True)
    max_objects: int = setting(
        10000, 'A detection message with more objects is refused (counted).', minimum=1,
        maximum=1000000, dynamic=True)
    class_names: tuple[str, ...] = setting(
        (), 'Names of the upstream classes in order of their numbers, for detectors that send '
        'numbers.', dynamic=True)

    def __post_init__(self) -> None:
        if len(self.topics) > MAX_TOPICS:
            raise ValueError(f'detections.topics has {len(self.topics)} topics, expected at most '
                             f'{MAX_TOPICS}')
        for name, values in (('types', self.types), ('sizes', self.sizes)):
            if len(values) not in (0, 1, max(1, len(self.topics))):
                raise ValueError(f'detections.{name} has {len(values)} entries, expected none, '
                                 f'one, or one for each of the {len(self.topics)} topics')
        for kind in self.types:
            if kind != AUTO and kind not in TYPES:
                raise ValueError(f'detections.types has {kind!r}, expected {AUTO} or one of '
                                 + ', '.join(TYPES))
        for size in self.sizes:
            read_size(size)

    def type_of(self, topic: int) -> str:
        """Message type of a topic, or ``auto``."""
        return _entry(self.types, topic, AUTO)

    def size_of(self, topic: int) -> DetectorSize | None:
        """Size of the image that a topic's boxes are in; None for that of the camera."""
        return read_size(_entry(self.sizes, topic, SAME))


def _entry(values: tuple[str, ...], topic: int, default: str) -> str:
    """Return the entry of a list with none, one for all, or one for each topic."""
    if not values:
        return default
    return values[topic] if len(values) > 1 else values[0]


@dataclass(frozen=True)
class OdometryConfig:
    """Where ``tracker.camera_motion: odometry`` learns how the cameras turn."""

    topic: str = setting(
        '', 'Topic of nav_msgs/Odometry; what lies between its child frame and the cameras comes '
        'from /tf_static. Empty takes the rotations of the cameras from /tf.')
    fixed_frame: str = setting(
        'odom', 'Without a topic: coordinate frame of /tf that does not turn with the cameras.',
        dynamic=True)
    tolerance_s: float = setting(
        0.1, 'Largest time in seconds between an image and the nearest known rotation; farther '
        'away its camera counts as standing still (counted).', minimum=0.0, maximum=10.0,
        dynamic=True)


@dataclass(frozen=True)
class ClockConfig:
    """What counts as a jump of the image stamps; the tracker is reset then."""

    jump_back_s: float = setting(
        1.0, 'An image older than the newest one by this many seconds means that time was set '
        'back or a recording started again; a younger one is late and dropped.',
        minimum=0.0, maximum=86400.0, dynamic=True)
    jump_forward_s: float = setting(
        60.0, 'An image newer than the newest one by this many seconds resets the tracker; 0 '
        'allows any gap.', minimum=0.0, maximum=1e9, dynamic=True)


@dataclass(frozen=True)
class DiagnosticsConfig:
    """When /diagnostics warns."""

    period_s: float = setting(
        1.0, 'Time in seconds between two messages.', minimum=0.1, maximum=60.0)
    latency_warn_s: float = setting(
        0.5, 'Age in seconds of the image at publication that is a warning.',
        minimum=0.0, maximum=3600.0, dynamic=True)
    latency_error_s: float = setting(
        1.0, 'Age in seconds of the image at publication that is an error.',
        minimum=0.0, maximum=3600.0, dynamic=True)

    def __post_init__(self) -> None:
        if self.latency_warn_s > self.latency_error_s:
            raise ValueError(
                f'diagnostics.latency_warn_s is {self.latency_warn_s}, expected at most '
                f'diagnostics.latency_error_s, which is {self.latency_error_s}')


@dataclass(frozen=True)
class NodeConfig:
    """Settings of the node itself; those of model, detector and tracker are PipelineConfig."""

    stream: str = setting(
        '', 'Name of the stream in the messages; empty takes the name of the image topic. With '
        'cameras it goes before the name of each.')
    cameras: tuple[str, ...] = setting(
        (), 'Names of several cameras in one node: the topics of each are ~/<name>/input/... and '
        '~/<name>/output/...; read at the start only. Empty is one camera on ~/input/image.')
    gather_wait_s: float = setting(
        0.05, 'Longest time in seconds that the image of a camera waits for those of other '
        'cameras, to be processed together; a camera that has stalled is not waited for.',
        minimum=0.0, maximum=1.0)
    autostart: bool = setting(
        True, 'Whether the node configures and activates itself; otherwise it waits for a '
        'lifecycle manager.')
    policy: str = setting(
        'latest', 'Images that come faster than they can be processed: latest keeps only the '
        'newest one, every keeps up to queue_size (for recordings).',
        choices=('latest', 'every'))
    queue_size: int = setting(
        20, 'Most images that wait, for their detections or (with policy every) for the model.',
        minimum=1, maximum=10000)
    compressed: bool = setting(
        False, 'Whether ~/input/image is a sensor_msgs/CompressedImage (JPEG or PNG).')
    bit_depth: int = setting(
        16, 'Used bits of 16-bit images; 12 for a camera that leaves the upper four bits 0.',
        minimum=8, maximum=16, dynamic=True)
    reliability: str = setting(
        'auto', 'Reliability of the subscriptions: auto takes what the publisher offers.',
        choices=('auto', 'best_effort', 'reliable'))
    qos_depth: int = setting(
        5, 'Messages that the subscriptions hold for the node; at least queue_size with policy '
        'every. Below 5 large images are lost.', minimum=1, maximum=1000)
    publish_embeddings: bool = setting(
        False, 'Whether the objects carry their appearance embedding (1 kB each and more).',
        dynamic=True)
    detections: DetectionsConfig = group(DetectionsConfig)
    odometry: OdometryConfig = group(OdometryConfig)
    clock: ClockConfig = group(ClockConfig)
    diagnostics: DiagnosticsConfig = group(DiagnosticsConfig)

    def __post_init__(self) -> None:
        for name in self.cameras:
            if not _CAMERA_NAME.fullmatch(str(name)) or name in _TAKEN_NAMES:
                raise ValueError(f'cameras has {name!r}, expected names of letters, digits and '
                                 f'_, beginning with a letter, other than {_TAKEN_NAMES}')
        if len(set(self.cameras)) != len(self.cameras):
            raise ValueError(f'cameras has a name twice: {list(self.cameras)}')


def described() -> dict[str, tuple[Any, SettingInfo]]:
    """Every parameter: ``{name: (default, info)}``, the node's own first."""
    return {**describe(NodeConfig), **describe(PipelineConfig)}


def camera_described(cameras: Sequence[str]) -> dict[str, tuple[Any, SettingInfo]]:
    """Parameters of single cameras: each may have regions of its own."""
    return {f'camera.{name}.regions.{key}': entry for name in cameras
            for key, entry in describe(RegionsConfig).items()}


def build_settings(values: Mapping[str, Any]) -> tuple[NodeConfig, PipelineConfig]:
    """
    Both settings objects from flat parameter values, checked one by one and as a set.

    Empty texts in a list are dropped: ``['']`` is how ROS writes an empty list of texts, since
    ``[]`` has no type in a parameters file.

    Raises
    ------
    ValueError
        If a value is not allowed, or values do not fit each other; the message names them.

    """
    cleaned = _cleaned(values)
    own = {name: value for name, value in cleaned.items() if name in describe(NodeConfig)}
    rest = {name: value for name, value in cleaned.items() if name not in own}
    return (from_mapping(NodeConfig, own, 'parameters'),
            from_mapping(PipelineConfig, rest, 'parameters'))


def _cleaned(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: [entry for entry in value if entry != '']
            if isinstance(value, list | tuple) else value for name, value in values.items()}


def given_cameras(node: Any) -> tuple[str, ...]:
    """Names of the cameras that a node was started with; wrong ones are refused later."""
    given = getattr(node, '_parameter_overrides', {}).get('cameras')
    names = given.value if given is not None else ()
    if not isinstance(names, list | tuple):
        return ()
    return tuple(name for name in dict.fromkeys(names) if _CAMERA_NAME.fullmatch(str(name)))


def unknown_name_error(name: str, known: Iterable[str]) -> str:
    """Text for a name that is no parameter, with the names that it may have been meant as."""
    names = sorted(known)
    close = get_close_matches(name, names, n=3, cutoff=0.6)
    tail = name.rpartition('.')[2]
    close += [entry for entry in names
              if entry.rpartition('.')[2] == tail and entry not in close]
    if close:
        return f'unknown parameter {name!r}; did you mean {" or ".join(map(repr, close))}?'
    return (f'unknown parameter {name!r}; config/tracker.yaml lists all of them, and '
            'ros2 param list shows those of a running node')


class NodeParameters:
    """
    The parameters of a node and the settings objects that they make.

    Parameters
    ----------
    node : rclpy.node.Node
        Node to declare them on.
    topics : mapping
        Resolved names of the node's topics, which may have ``qos_overrides``, to their role,
        ``publisher`` or ``subscription``.
    is_configured : callable
        Whether the model is loaded: settings that are not dynamic are fixed then.
    on_change : callable
        Called with the new settings objects after a change was accepted.

    Raises
    ------
    ValueError
        If a given parameter is not known, or values are not allowed.

    """

    def __init__(
        self,
        node: Any,
        topics: Mapping[str, str],
        is_configured: Callable[[], bool],
        on_change: Callable[[NodeConfig, PipelineConfig], None],
    ) -> None:
        self._cameras = given_cameras(node)
        self._described = {**described(), **camera_described(self._cameras)}
        self._is_configured = is_configured
        self._on_change = on_change
        overrides: dict[str, Any] = getattr(node, '_parameter_overrides', {})
        self._check_names(node, overrides, topics)
        self._values: dict[str, Any] = {}
        for name, (default, info) in self._described.items():
            _float_from_whole_number(overrides, name, default)
            declared = _declare(node, name, default, info)
            self._values[name] = declared
        self.node, self.pipeline, self._regions = self._build(self._values)
        node.add_on_set_parameters_callback(self._on_set)

    def regions_of(self, camera: str) -> RegionsConfig:
        """Return the regions of a camera: its own where it has any, else those for all."""
        own = self._regions.get(camera, RegionsConfig())
        return self.pipeline.regions if own == RegionsConfig() else own

    def _build(
        self, values: Mapping[str, Any],
    ) -> tuple[NodeConfig, PipelineConfig, dict[str, RegionsConfig]]:
        """Make the settings objects of the node, of the pipeline and of single cameras."""
        shared = {name: value for name, value in values.items()
                  if not name.startswith('camera.')}
        cleaned = _cleaned(values)
        regions = {
            camera: from_mapping(RegionsConfig, {
                key: cleaned[f'camera.{camera}.regions.{key}'] for key in describe(RegionsConfig)},
                f'parameters: camera.{camera}.regions')
            for camera in self._cameras}
        return (*build_settings(shared), regions)

    def _check_names(
        self, node: Any, overrides: Mapping[str, Any], topics: Mapping[str, str],
    ) -> None:
        """Refuse given names that nothing reads; rclpy itself ignores them silently."""
        qos = {f'qos_overrides.{topic}.{role}.{policy}'
               for topic, role in topics.items() for policy in _QOS_POLICIES}
        problems = [
            unknown_name_error(name, qos if name.startswith('qos_overrides.') else self._described)
            for name in overrides
            if name not in self._described and name not in qos and name not in _RCLPY_NAMES
            and not node.has_parameter(name)]
        if problems:
            raise ValueError('; '.join(problems))

    def _on_set(self, parameters: Sequence[Any]) -> Any:
        """Accept or refuse a change; all of its values are judged together."""
        from rcl_interfaces.msg import SetParametersResult
        changed = {entry.name: entry.value for entry in parameters
                   if entry.name in self._described and entry.value != self._values[entry.name]}
        at_start = [name for name in changed if name in START_ONLY]
        if at_start:
            return SetParametersResult(
                successful=False, reason=f'{", ".join(at_start)} can only be given when the node '
                'is started')
        fixed = [name for name in changed if not self._described[name][1].dynamic]
        if fixed and self._is_configured():
            return SetParametersResult(
                successful=False, reason=f'{", ".join(fixed)} can only change while the node is '
                'unconfigured (ros2 lifecycle set <node> deactivate, then cleanup)')
        values = {**self._values, **changed}
        try:
            node_config, pipeline_config, regions = self._build(values)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        if changed:
            self._values = values
            self.node, self.pipeline, self._regions = node_config, pipeline_config, regions
            self._on_change(node_config, pipeline_config)
        return SetParametersResult(successful=True)


TABLE_START = '<!-- parameters -->\n'
TABLE_END = '<!-- end -->'

_QOS_POLICIES = ('history', 'depth', 'reliability', 'durability', 'lifespan', 'deadline',
                 'liveliness', 'liveliness_lease_duration', 'avoid_ros_namespace_conventions')

# Parameters that rclpy declares by itself in some distributions, later than ours or not at all.
_RCLPY_NAMES = {'use_sim_time', 'start_type_description_service'}


def _float_from_whole_number(overrides: dict[str, Any], name: str, default: Any) -> None:
    """Let a YAML file say ``1`` where ``1.0`` is meant; ROS itself refuses that."""
    given = overrides.get(name)
    if isinstance(default, float) and given is not None and type(given.value) is int:
        overrides[name] = type(given)(name, value=float(given.value))


def _declare(node: Any, name: str, default: Any, info: SettingInfo) -> Any:
    """Declare one parameter and return its value."""
    from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
    try:
        return node.declare_parameter(
            name, ros_value(default), _descriptor(name, default, info)).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        raise ValueError(
            f'parameter {name!r}: {error}; expected {_constraints(default, info)}') from error


def ros_value(value: Any) -> Any:
    """Value as ROS takes it: a list for a tuple, ``['']`` for an empty one."""
    if isinstance(value, tuple):
        return list(value) or ['']
    return value


def _descriptor(name: str, default: Any, info: SettingInfo) -> Any:
    """``rcl_interfaces/ParameterDescriptor`` with text and range."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    descriptor = ParameterDescriptor(
        name=name, description=info.description,
        additional_constraints=_constraints(default, info))
    limits = info.minimum is not None or info.maximum is not None
    if limits and isinstance(default, float):
        descriptor.floating_point_range = [FloatingPointRange(
            from_value=-sys.float_info.max if info.minimum is None else float(info.minimum),
            to_value=sys.float_info.max if info.maximum is None else float(info.maximum))]
    elif limits and isinstance(default, int):
        descriptor.integer_range = [IntegerRange(
            from_value=-2**63 if info.minimum is None else int(info.minimum),
            to_value=2**63 - 1 if info.maximum is None else int(info.maximum), step=1)]
    return descriptor


def _constraints(default: Any, info: SettingInfo) -> str:
    """Say in words what is allowed and when it may change."""
    kind = {bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text',
            tuple: 'a list of texts'}[type(default)]
    if info.choices:
        kind = 'one of ' + ', '.join(map(str, info.choices))
    elif info.minimum is not None and info.maximum is not None:
        kind += f' from {info.minimum} to {info.maximum}'
    elif info.minimum is not None:
        kind += f' of at least {info.minimum}'
    elif info.maximum is not None:
        kind += f' of at most {info.maximum}'
    return kind + ('' if info.dynamic else '; changes only while unconfigured')


def parameters_yaml(node_name: str = '/**') -> str:
    """Text of ``config/tracker.yaml``: every parameter with its default and description."""
    lines = [
        '# Every parameter of the tracker node with its default, written by',
        '#   python -m masa_ros.ros.parameters',
        '# Copy it, change what you need, delete the rest. A name that is not in this file is an',
        "# error at start. [''] is an empty list of texts. Settings marked 'at run time' take",
        '# effect at once with ros2 param set; the others need the node unconfigured.',
        f'{node_name}:', '  ros__parameters:']
    open_groups: list[str] = []
    for name, (default, info) in described().items():
        *groups, leaf = name.split('.')
        if groups != open_groups:
            lines += ['', *(f'{"  " * (depth + 2)}{entry}:' for depth, entry in enumerate(groups)
                            if depth >= len(open_groups) or open_groups[depth] != entry)]
            open_groups = groups
        indent = '  ' * (len(groups) + 2)
        note = _constraints(default, info).replace('; changes only while unconfigured', '')
        note = f'{info.description} ({note}{", at run time" if info.dynamic else ""})'
        lines += [f'{indent}# {line}' for line in textwrap.wrap(note, 97 - len(indent))]
        lines.append(f'{indent}{leaf}: {_yaml_value(ros_value(default))}')
    return '\n'.join(lines) + '\n'


def parameters_table() -> str:
    """Markdown table of every parameter, for ``docs/node.md``."""
    lines = ['| parameter | default | allowed | at run time | what it does |',
             '|---|---|---|---|---|']
    for name, (default, info) in described().items():
        allowed = _constraints(default, info).replace('; changes only while unconfigured', '')
        lines.append(f'| `{name}` | `{_yaml_value(ros_value(default))}` | {allowed} | '
                     f'{"yes" if info.dynamic else "no"} | {info.description} |')
    return '\n'.join(lines) + '\n'


def _yaml_value(value: Any) -> str:
    """Value as YAML in one line; JSON is a part of YAML."""
    if isinstance(value, float):
        text = repr(value)
        # YAML takes 1e-05 for text, the dot makes it a number.
        return text if '.' in text or 'e' not in text else text.replace('e', '.0e')
    return json.dumps(value, ensure_ascii=False).replace('"', "'")


def default_values() -> dict[str, Any]:
    """Flat defaults as ROS takes them."""
    return {name: ros_value(value) for name, value in
            {**flatten(NodeConfig()), **flatten(PipelineConfig())}.items()}


def main() -> int:
    """Bring the file and the document in a checkout up to date."""
    root = Path(__file__).resolve().parents[2]
    document = root / 'docs' / 'node.md'
    if not document.is_file():
        print(f'{root} is no checkout of masa_ros', file=sys.stderr)
        return 1
    (root / 'config' / 'tracker.yaml').write_text(parameters_yaml())
    before, _, rest = document.read_text().partition(TABLE_START)
    _, _, after = rest.partition(TABLE_END)
    document.write_text(f'{before}{TABLE_START}{parameters_table()}{TABLE_END}{after}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
