"""Parameters come from the dataclasses, and nothing else gets in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import re
from typing import Any

from masa_ros.pipeline import PipelineConfig
from masa_ros.ros import parameters
from masa_ros.ros.parameters import (
    build_settings,
    described,
    NodeConfig,
    NodeParameters,
    ros_value,
    unknown_name_error,
)
from masa_ros.structures.settings import flatten
import pytest
import yaml

TOPICS = {'/camera/image': 'subscription', '/tracker/output/tracks': 'publisher'}


# --- the dataclasses, the file and the document ---------------------------------------------


def flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            values.update(flat(value, f'{prefix}{name}.'))
        else:
            values[f'{prefix}{name}'] = value
    return values


def test_the_file_of_all_parameters_is_what_the_dataclasses_say(root: Path) -> None:
    text = (root / 'config' / 'tracker.yaml').read_text()
    assert text == parameters.parameters_yaml(), 'run: python -m masa_ros.ros.parameters'


def test_the_file_of_all_parameters_holds_every_one_with_its_default(root: Path) -> None:
    tree = yaml.safe_load((root / 'config' / 'tracker.yaml').read_text())
    values = flat(tree['/**']['ros__parameters'])
    defaults = {**flatten(NodeConfig()), **flatten(PipelineConfig())}
    assert values == {name: ros_value(value) for name, value in defaults.items()}
    # A float that YAML reads as a whole number would be refused by ROS.
    assert {name: type(value) for name, value in values.items()} == {
        name: type(ros_value(value)) for name, value in defaults.items()}


def test_the_document_shows_the_table_of_the_dataclasses(root: Path) -> None:
    text = (root / 'docs' / 'node.md').read_text()
    table = text.partition(parameters.TABLE_START)[2].partition(parameters.TABLE_END)[0]
    assert table == parameters.parameters_table(), 'run: python -m masa_ros.ros.parameters'


def test_every_parameter_says_what_it_does() -> None:
    for name, (_, info) in described().items():
        assert re.fullmatch(r'\w.*\.', info.description, re.DOTALL), name


def test_defaults_become_the_default_settings() -> None:
    values = {name: ros_value(default) for name, (default, _) in described().items()}
    assert build_settings(values) == (NodeConfig(), PipelineConfig())


def test_a_float_in_exponent_form_stays_a_float_in_yaml() -> None:
    for value in (1e-05, 1e9, 1e22, 0.5, 3.0):
        assert yaml.safe_load(parameters._yaml_value(value)) == value


@pytest.mark.parametrize(('values', 'text'), [
    ({'policy': 'newest'}, "policy is 'newest', expected one of 'latest', 'every'"),
    ({'queue_size': 0}, 'queue_size is 0'),
    ({'detections.wait_s': float('nan')}, 'finite'),
    ({'diagnostics.latency_warn_s': 2.0}, 'latency_error_s, which is 1.0'),
    ({'model.name': 'nothing'}, 'model'),
    ({'nothing': 1}, "unknown setting 'nothing'"),
])
def test_values_that_are_not_allowed_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        build_settings(values)


def test_empty_texts_are_how_ros_writes_an_empty_list() -> None:
    node, pipeline = build_settings({'detections.class_names': ['person', ''],
                                     'detector.classes': ['']})
    assert node.detections.class_names == ('person',)
    assert pipeline.detector.classes == ()


@pytest.mark.parametrize(('name', 'hint'), [
    ('model.nam', 'model.name'), ('match_threshold', 'tracker.match_threshold'),
    ('compress', 'compressed'), ('detection.tolerance_s', 'detections.tolerance_s')])
def test_an_unknown_name_comes_with_what_was_meant(name: str, hint: str) -> None:
    assert repr(hint) in unknown_name_error(name, described())


def test_a_name_like_nothing_else_points_to_the_list() -> None:
    assert 'config/tracker.yaml' in unknown_name_error('xyzzy', described())


# --- on a real node -------------------------------------------------------------------------


class Host:
    """A node with the tracker's parameters and nothing else."""

    def __init__(self, **overrides: Any) -> None:
        import rclpy
        from rclpy.parameter import Parameter
        self.configured = False
        self.changes: list[tuple[NodeConfig, PipelineConfig]] = []
        given = [Parameter(name.replace('__', '.'), value=value)
                 for name, value in overrides.items()]
        self.node = rclpy.create_node('tracker', parameter_overrides=given,
                                      start_parameter_services=False)
        self.parameters = NodeParameters(
            self.node, TOPICS, lambda: self.configured,
            lambda node, pipeline: self.changes.append((node, pipeline)))

    def set(self, **values: Any) -> tuple[bool, str]:
        from rclpy.parameter import Parameter
        result = self.node.set_parameters_atomically(
            [Parameter(name.replace('__', '.'), value=value) for name, value in values.items()])
        return result.successful, result.reason

    def get(self, name: str) -> Any:
        return self.node.get_parameter(name).value


@pytest.fixture
def ros(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    rclpy = pytest.importorskip('rclpy')
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    rclpy.init(domain_id=98)
    yield
    rclpy.shutdown()


@pytest.mark.ros
@pytest.mark.usefixtures('ros')
class TestOnANode:
    def test_defaults_are_declared(self) -> None:
        host = Host()
        assert (host.parameters.node, host.parameters.pipeline) == (
            NodeConfig(), PipelineConfig())
        assert host.get('policy') == 'latest'
        assert host.get('detector.classes') == ['']

    def test_given_values_are_taken(self) -> None:
        host = Host(policy='every', tracker__match_threshold=0.75, detector__classes=['car'])
        assert host.parameters.node.policy == 'every'
        assert host.parameters.pipeline.tracker.match_threshold == 0.75
        assert host.parameters.pipeline.detector.classes == ('car',)

    def test_a_whole_number_does_for_a_float(self) -> None:
        assert Host(detections__wait_s=2).parameters.node.detections.wait_s == 2.0

    @pytest.mark.parametrize(('overrides', 'text'), [
        ({'polici': 'every'}, "unknown parameter 'polici'; did you mean 'policy'"),
        ({'tracker__match': 0.5}, "'tracker.match"),
        ({'queue_size': 0}, 'queue_size'),
        ({'queue_size': 'many'}, 'a whole number from 1 to 10000'),
        ({'compressed': 'yes'}, 'true or false'),
        ({'policy': 'newest'}, 'expected one of'),
        ({'qos_overrides./camera/imag.subscription.depth': 3}, '/camera/image.subscription.depth'),
        ({'qos_overrides./camera/image.subscription.dept': 3}, '/camera/image.subscription.depth'),
        ({'qos_overrides./camera/image.publisher.depth': 3}, '/camera/image.subscription.depth'),
    ])
    def test_what_is_wrong_at_start_is_an_error(
        self, overrides: dict[str, Any], text: str,
    ) -> None:
        with pytest.raises(ValueError, match=re.escape(text)):
            Host(**overrides)

    def test_all_unknown_names_are_told_at_once(self) -> None:
        with pytest.raises(ValueError, match=r'(?s)polici.*compress'):
            Host(polici='every', compress=True)

    def test_names_of_ros_itself_are_let_through(self) -> None:
        Host(use_sim_time=True, **{'qos_overrides./camera/image.subscription.depth': 3})

    def test_a_dynamic_setting_changes_while_configured(self) -> None:
        host = Host()
        host.configured = True
        assert host.set(tracker__match_threshold=0.7, detections__wait_s=0.1) == (True, '')
        node, pipeline = host.changes[-1]
        assert (pipeline.tracker.match_threshold, node.detections.wait_s) == (0.7, 0.1)
        assert len(host.changes) == 1

    def test_other_settings_change_only_while_unconfigured(self) -> None:
        host = Host()
        host.configured = True
        done, reason = host.set(model__device='cuda')
        assert not done
        assert 'model.device can only change while the node is unconfigured' in reason
        host.configured = False
        assert host.set(model__device='cuda')[0]
        assert host.parameters.pipeline.model.device == 'cuda'

    def test_setting_the_value_in_force_is_no_change(self) -> None:
        host = Host()
        host.configured = True
        assert host.set(model__device='auto')[0]
        assert host.changes == []

    def test_values_are_judged_as_a_set(self) -> None:
        host = Host()
        done, reason = host.set(diagnostics__latency_warn_s=3.0)
        assert not done
        assert 'expected at most' in reason
        assert host.set(diagnostics__latency_warn_s=3.0, diagnostics__latency_error_s=4.0)[0]
        assert host.parameters.node.diagnostics.latency_error_s == 4.0

    def test_a_refused_change_changes_nothing(self) -> None:
        host = Host()
        host.set(policy='newest')
        assert host.changes == []
        assert host.get('policy') == 'latest'
        assert host.parameters.node.policy == 'latest'

    @pytest.mark.parametrize('values', [
        {'queue_size': 0}, {'queue_size': 2.5}, {'tracker__match_threshold': 2.0},
        {'compressed': 1}])
    def test_ranges_and_types_hold_at_run_time(self, values: dict[str, Any]) -> None:
        from rclpy.exceptions import InvalidParameterTypeException
        try:
            done = Host().set(**values)[0]
        except InvalidParameterTypeException:
            done = False
        assert not done

    def test_descriptors_carry_text_and_range(self) -> None:
        host = Host()
        descriptor = host.node.describe_parameter('queue_size')
        assert descriptor.description.startswith('Most images that wait')
        limits = descriptor.integer_range[0]
        assert (limits.from_value, limits.to_value) == (1, 10000)
        limits = host.node.describe_parameter('detections.wait_s').floating_point_range[0]
        assert (limits.from_value, limits.to_value) == (0.0, 60.0)
        constraints = host.node.describe_parameter('policy').additional_constraints
        assert constraints == 'one of latest, every; changes only while unconfigured'
        constraints = host.node.describe_parameter('compressed').additional_constraints
        assert constraints.endswith('changes only while unconfigured')
