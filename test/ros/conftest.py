"""A real node in a process of its own, and the other side of its topics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import time
from typing import Any

from masa_ros.ros import convert
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import ArrayLike, NDArray
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # For turning_messages.

FAKE_TRACKER = Path(__file__).with_name('fake_tracker.py')
TIMEOUT_S = 60.0


def free_domain() -> int:
    """
    DDS domain that nobody on this machine uses.

    A domain has 250 UDP ports from 7400 on; the list of open ones tells who is there. Above
    domain 101 they meet the ports that Linux gives out.
    """
    ports: set[int] = set()
    for path in (Path('/proc/net/udp'), Path('/proc/net/udp6')):
        if path.exists():
            ports |= {int(line.split()[1].rpartition(':')[2], 16)
                      for line in path.read_text().splitlines()[1:]}
    used = {(port - 7400) // 250 for port in ports}
    return random.choice([domain for domain in range(1, 102) if domain not in used])


class Robot:
    """
    The tracker node as a user runs it, with a camera, a detector and a listener beside it.

    Parameters
    ----------
    log : Path
        Where the node's output goes.

    """

    def __init__(self, log: Path) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        self.log = log
        self.domain = free_domain()
        self.process: subprocess.Popen[bytes] | None = None
        self.received: dict[str, list[Any]] = {}
        self.other_context: Any = None
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = rclpy.create_node('robot', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.publishers: dict[str, Any] = {}
        self.clients: dict[str, Any] = {}
        self.clock_ns = 100_000_000_000

    # --- the node ---------------------------------------------------------------------------

    def start(self, *arguments: str, wait: bool = True, model: str = 'fake',
              **environment: str) -> None:
        """Start the node; parameters as ``name:=value``, other arguments as they are."""
        given: list[str] = []
        for argument in arguments:
            given += ['-p', argument] if ':=' in argument and argument[0] not in '/~' else (
                ['-r', argument] if ':=' in argument else [argument])
        script = [str(FAKE_TRACKER)] if model == 'fake' else ['-m', 'masa_ros.ros.node']
        self._run([*script, '--ros-args', *given], environment)
        if wait:
            self.wait_until(lambda: 'active: tracking' in self.output, 'the node to be active')

    def run(self, module: str, *arguments: str) -> None:
        """Start another program of ours instead of the node."""
        self._run(['-m', module, *arguments], {})

    def execute(self, *arguments: str) -> None:
        """Start Python with some arguments instead of the node."""
        self._run(list(arguments), {})

    def _run(self, command: list[str], environment: dict[str, str]) -> None:
        with self.log.open('wb') as output:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, 'ROS_DOMAIN_ID': str(self.domain), **environment},
                stdout=output, stderr=subprocess.STDOUT)

    def wait(self) -> int:
        """Wait until the program ends by itself and return its exit code."""
        assert self.process is not None
        return self.process.wait(TIMEOUT_S)

    @property
    def output(self) -> str:
        """What the node has printed."""
        return self.log.read_text(errors='replace')

    def stop(self, number: int = signal.SIGINT) -> int:
        """Stop the node and return its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(TIMEOUT_S)

    def begin(self) -> None:
        """Start a new test on a node that goes on running: no tracks, no messages, later."""
        from std_srvs.srv import Trigger
        assert self.call(Trigger, '/tracker/reset', Trigger.Request()).success
        for messages in self.received.values():
            messages.clear()
        self.clock_ns += 1_000_000_000_000

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            # A node that is killed leaves 32 MiB of shared memory behind.
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.shutdown()
        if self.other_context is not None:
            self.other_context.shutdown()

    # --- topics -----------------------------------------------------------------------------

    def listen(self, name: str, kind: Any, topic: str, qos: Any = 10) -> None:
        """Collect the messages of a topic in ``received[name]``."""
        messages = self.received.setdefault(name, [])
        self.node.create_subscription(kind, topic, messages.append, qos)

    def listen_tracks(self) -> None:
        from masa_ros.msg import TrackedObjectArray
        self.listen('tracks', TrackedObjectArray, '/tracker/output/tracks', 100)
        self.wait_until(lambda: self.node.count_publishers('/tracker/output/tracks') == 1,
                        'the tracks to be offered')

    def listen_diagnostics(self) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        self.listen('diagnostics', DiagnosticArray, '/diagnostics')

    def other_node(self) -> Any:
        """Another participant: one alone cannot use a topic with two types."""
        import rclpy
        self.other_context = rclpy.Context()
        rclpy.init(context=self.other_context, domain_id=self.domain)
        self.other = rclpy.create_node('other', context=self.other_context)
        return self.other

    @property
    def tracks(self) -> list[Any]:
        return self.received['tracks']

    def publisher(self, name: str, kind: Any, topic: str, qos: Any = 100) -> Any:
        """Publisher of that name, matched with the node's subscription."""
        if name not in self.publishers:
            made = self.node.create_publisher(kind, topic, qos)
            self.publishers[name] = made
            self.wait_until(lambda: made.get_subscription_count() > 0, f'a reader of {topic}')
        return self.publishers[name]

    def image_publisher(self, qos: Any = 100, topic: str = '/tracker/input/image') -> Any:
        from sensor_msgs.msg import Image
        return self.publisher('image', Image, topic, qos)

    def wait_until_read(self) -> None:
        """Wait until the node has subscribed to the images again."""
        self.wait_until(lambda: all(made.get_subscription_count() > 0
                                    for made in self.publishers.values()), 'the node to read')

    def detections_publisher(self) -> Any:
        from vision_msgs.msg import Detection2DArray
        return self.publisher('detections', Detection2DArray, '/tracker/input/detections')

    def tick(self, seconds: float = 0.1) -> Any:
        """Header of the next camera image."""
        self.clock_ns += round(seconds * 1e9)
        return self.header()

    def header(self) -> Any:
        return convert.make_header(self.clock_ns, 'camera_optical')

    def counters(self) -> Counter[str]:
        """What the diagnostics count, now."""
        self.received['diagnostics'].clear()
        _, values = self.diagnostics('stream', lambda _, values: True)
        return Counter({name: int(value) for name, value in values.items() if value.isdigit()})

    def send_image(self, pixels: NDArray[Any] | None = None, kind: str = 'rgb8',
                   header: Any = None, **changes: Any) -> Any:
        """Send an image; fields may be changed to wrong values. Returns its header."""
        header = header or self.tick()
        message = convert.array_to_image(
            np.full((48, 64, 3), 100, np.uint8) if pixels is None else pixels, kind, header)
        for name, value in changes.items():
            setattr(message, name, value)
        self.image_publisher().publish(message)
        return header

    def send_boxes(self, boxes: ArrayLike, header: Any, scores: ArrayLike | None = None,
                   labels: list[str] | None = None) -> None:
        instances = Instances.from_boxes(boxes, scores, None, labels)
        self.detections_publisher().publish(
            convert.instances_to_detections(instances, header))

    def track(self, boxes: ArrayLike, pixels: NDArray[Any] | None = None) -> Any:
        """Send an image with its boxes and return the node's answer to it."""
        self.detections_publisher()
        header = self.send_image(pixels)
        self.send_boxes(boxes, header)
        return self.answer(header)

    def answer(self, header: Any) -> Any:
        """Tracks with the stamp of a header."""
        self.wait_until(lambda: any(message.header.stamp == header.stamp
                                    for message in self.tracks), 'the tracks of an image')
        return next(message for message in self.tracks if message.header.stamp == header.stamp)

    def diagnostics(self, status: str, wanted: Callable[[Any, dict[str, str]], bool]) -> Any:
        """Wait for a status (``stream`` or ``model``) that is as wanted, and return it."""
        found: list[Any] = []

        def look() -> bool:
            for message in self.received['diagnostics']:
                for entry in message.status:
                    values = {item.key: item.value for item in entry.values}
                    if entry.name == f'tracker: {status}' and wanted(entry, values):
                        found.append((entry, values))
            self.received['diagnostics'].clear()
            return bool(found)
        self.wait_until(look, f'diagnostics of the {status}')
        return found[0]

    # --- services ---------------------------------------------------------------------------

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service of the node and return its answer."""
        if name not in self.clients:
            self.clients[name] = self.node.create_client(kind, name)
        client = self.clients[name]
        self.wait_until(client.service_is_ready, f'service {name}')
        future = client.call_async(request)
        self.wait_until(future.done, f'an answer of {name}')
        return future.result()

    def lifecycle(self, transition: str) -> bool:
        """Ask for a transition by its name; returns whether it was made."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState
        request = ChangeState.Request(transition=Transition(
            id=getattr(Transition, f'TRANSITION_{transition.upper()}')))
        return bool(self.call(ChangeState, '/tracker/change_state', request).success)

    def state(self) -> str:
        from lifecycle_msgs.srv import GetState
        answer = self.call(GetState, '/tracker/get_state', GetState.Request())
        return str(answer.current_state.label)

    def set_parameter(self, name: str, value: Any) -> tuple[bool, str]:
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()])
        result = self.call(SetParameters, '/tracker/set_parameters', request).results[0]
        return bool(result.successful), str(result.reason)

    # --- waiting ----------------------------------------------------------------------------

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Run callbacks until something is so; no test depends on how long that takes."""
        end = time.monotonic() + TIMEOUT_S
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f'waited {TIMEOUT_S} s for {what}; the node said:\n{self.output}')
            if self.process is not None and self.process.poll() is not None:
                if condition():
                    return
                pytest.fail(f'the node ended while waiting for {what}:\n{self.output}')
            self.executor.spin_once(timeout_sec=0.05)

    def spin(self, seconds: float) -> None:
        """Run callbacks for a while, to see that something does not happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.02)


def make_robot(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Robot]:
    pytest.importorskip('rclpy')
    patch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    patch.setenv('ROS_LOG_DIR', str(folder))
    made = Robot(folder / 'node.log')
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Robot]:
    """Robot whose node the test starts itself."""
    yield from make_robot(tmp_path, monkeypatch)


@pytest.fixture(scope='module')
def running_robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """Robot whose node runs for all tests of a module."""
    with pytest.MonkeyPatch.context() as patch:
        for made in make_robot(tmp_path_factory.mktemp('running'), patch):
            made.start('stream:=front', 'policy:=every', 'detections.wait_s:=0.3')
            made.listen_tracks()
            made.listen_diagnostics()
            yield made


@pytest.fixture
def front(running_robot: Robot) -> Robot:
    """Robot whose node runs and knows no tracks; its images need detections."""
    running_robot.begin()
    return running_robot
