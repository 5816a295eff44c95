"""One camera of the node: its topics, its counters, and its images on their way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
import time
from typing import Any

from masa_ros.pipeline import FrameResult
from masa_ros.ros.camera_info import CameraInfoRelay
from masa_ros.ros.convert import (
    compressed_to_rgb,
    image_to_rgb,
    TrackInfo,
)
from masa_ros.ros.diagnostics import StreamState
from masa_ros.ros.intake import Intake, Origin, Work
from masa_ros.ros.monitor import Monitor, Snapshot
from masa_ros.ros.outputs import NAMES, Outputs
from masa_ros.ros.parameters import NodeConfig, NodeParameters
from masa_ros.ros.rotations import UnknownRotationError
from masa_ros.ros.subscription import MatchedSubscription
from masa_ros.ros.turning import Turning
from masa_ros.ros.upstream.reading import DetectionReader
from masa_ros.ros.upstream.topics import DetectionTopics, given_topics, topic_names
from masa_ros.structures.frame import CameraView, Frame
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from sensor_msgs.msg import CompressedImage, Image


def topic_prefix(name: str) -> str:
    """Start of the names of a camera's topics; the only camera has no name."""
    return f'~/{name}/' if name else '~/'


def camera_topics(node: Any, name: str) -> dict[str, str]:
    """Return the resolved names of a camera's topics, each with its role."""
    resolve, prefix = node.resolve_topic_name, topic_prefix(name)
    return {
        **{resolve(f'{prefix}input/{topic}'): 'subscription'
           for topic in ('image', 'camera_info')},
        **dict.fromkeys(topic_names(node, name, given_topics(node)), 'subscription'),
        **{resolve(f'{prefix}output/{topic}'): 'publisher' for topic in (*NAMES, 'camera_info')}}


@dataclass(frozen=True)
class Ready:
    """An image that the model can take, with what came along."""

    camera: Camera
    work: Work
    frame: Frame
    detections: Instances | None
    stages_ms: dict[str, float]


class Camera:
    """
    One camera: receives in the executor's thread, decodes and publishes in the model's thread.

    Parameters
    ----------
    node : rclpy.lifecycle.LifecycleNode
        Owner of the topics.
    name : str
        Name of the camera, first part of its topics; empty for the only one.
    settings : NodeParameters
        Settings in force.
    hand_over : callable
        Gets the camera and each piece of work, in the order of the stamps.
    turning : Turning
        Tells which way the cameras look.

    """

    def __init__(
        self, node: Any, name: str, settings: NodeParameters,
        hand_over: Callable[[Camera, Work], None], turning: Turning,
    ) -> None:
        self.name = name
        self.monitor = Monitor()
        self.tracker_epoch = 0
        """Number of resets that its tracker has seen; belongs to the model's thread."""
        self.sequence = 0
        self.frame_id = ''
        """Coordinate frame of its newest image that was processed."""
        self._node = node
        self._settings = settings
        self._num_tracks = 0
        self._inputs: dict[str, MatchedSubscription] = {}
        prefix = topic_prefix(name)
        self.image_topic = node.resolve_topic_name(f'{prefix}input/image')
        names = topic_names(node, name, settings.node.detections.topics)
        self.intake = Intake(
            settings.node, self.monitor, partial(hand_over, self), self.complain, len(names))
        self._upstream = DetectionTopics(
            node, names, settings.node, self.intake, self.monitor, self.complain, self._report)
        self._reader = DetectionReader(
            len(names), settings.node.detections, settings.pipeline.classes)
        self._results = Outputs(node, self.monitor, self.complain, self._report, prefix)
        self._camera_info = CameraInfoRelay(node, prefix)
        self._turning = turning
        self._snapshot = self.monitor.snapshot(time.monotonic())
        # Runs only while images wait for detections: every wake-up of the executor costs 1 ms.
        self._join_timer = node.create_timer(
            1.0, self._release, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._join_timer.cancel()

    @property
    def stream(self) -> str:
        """Name of the stream in the messages."""
        given = self._settings.node.stream
        if self.name:
            return f'{given}/{self.name}' if given else self.name
        return given or self.image_topic

    def reconfigure(self, config: NodeConfig) -> None:
        """Take over changed settings."""
        self.intake.reconfigure(config)
        self._upstream.reconfigure(config)
        self._reader.reconfigure(config.detections, self._settings.pipeline.classes)

    # --- input ----------------------------------------------------------------------------------

    def subscribe(self) -> None:
        """Start to receive."""
        config = self._settings.node
        every = config.policy == 'every'
        receive = partial(MatchedSubscription, self._node, reliability=config.reliability,
                          depth=max(config.qos_depth, config.queue_size if every else 0),
                          report=self._report,
                          lost=partial(self.monitor.problem, 'lost by the middleware'))
        if config.detections.source != 'none':
            self._upstream.start(self._set_join_timer)
        self._inputs['image'] = receive(
            kind=CompressedImage if config.compressed else Image, topic=self.image_topic,
            callback=self._on_image)
        self._camera_info.needed = self._turning.wanted
        self._camera_info.look_at_graph()

    def unsubscribe(self) -> None:
        """Stop to receive and forget what waits for detections."""
        for subscription in self._inputs.values():
            subscription.close()
        self._inputs.clear()
        self._upstream.close()
        self._camera_info.close()
        self.intake.stop()
        self._set_join_timer()

    def look_at_graph(self) -> None:
        """Follow publishers and subscribers that have come or gone."""
        for subscription in self._inputs.values():
            subscription.match()
        if self._inputs:
            self._upstream.match()
            self._camera_info.needed = self._turning.wanted
            self._camera_info.look_at_graph()

    def _on_image(self, message: Any) -> None:
        try:
            self.intake.add_image(message, time.monotonic(), self._wants_detections())
        except Exception as error:
            self.monitor.dropped('processing failed')
            self.complain('image callback', f'image is dropped: {error_text(error)}')
        self._set_join_timer()

    def _release(self) -> None:
        self.intake.release(time.monotonic())
        self._set_join_timer()

    def _set_join_timer(self) -> None:
        """Wake up when the oldest waiting image has waited long enough."""
        deadline_s = self.intake.deadline_s
        if deadline_s is None:
            self._join_timer.cancel()
            return
        left_s = max(0.001, deadline_s - time.monotonic())
        self._join_timer.timer_period_ns = round(left_s * 1e9)
        self._join_timer.reset()

    def _wants_detections(self) -> bool:
        """Whether images wait for detections from upstream topics."""
        source = self._settings.node.detections.source
        if source == 'none':
            return False
        return source == 'topic' or self._upstream.offered or not self.intake.finds_objects

    # --- the model's thread ---------------------------------------------------------------------

    def prepare(self, work: Work) -> Ready | None:
        """Decode an image and its detections; None for one that cannot be used."""
        started = time.monotonic()
        stages = {'wait': 1e3 * (started - work.received_s)}
        try:
            image = self._decode(work.message)
            stages['decode'] = 1e3 * (time.monotonic() - started)
        except Exception as error:
            self.monitor.dropped('bad image')
            self.complain('bad image', f'image is dropped: {error_text(error)}')
            return None
        try:
            detections = Instances() if work.origin == Origin.EMPTY else None
            if work.detections:
                before = time.monotonic()
                detections = self._read(work, image.shape[0], image.shape[1])
                stages['convert'] = 1e3 * (time.monotonic() - before)
            frame = Frame(image, work.stamp_ns, self.sequence, self.stream,
                          work.message.header.frame_id, self._view(work, image))
        except Exception as error:
            self.failed(error)
            return None
        return Ready(self, work, frame, detections, stages)

    def _view(self, work: Work, image: NDArray[np.uint8]) -> CameraView | None:
        """Which way the camera looked; None where nobody asks or that is not known."""
        if not self._turning.wanted:
            return None
        try:
            return self._turning.views.view(
                self._camera_info.find(work.stamp_ns), work.message.header.frame_id,
                work.stamp_ns, image.shape[0], image.shape[1])
        except (UnknownRotationError, ValueError) as error:
            self.monitor.problem('images without the turning of the camera')
            text = f'the turning of the camera is not taken out of its images: {error}'
            self.complain(text, text)
            return None

    def _read(self, work: Work, height_px: int, width_px: int) -> Instances:
        """Read the detections of the upstream topics; what is wrong with them is counted."""
        found = self._reader.read(work.detections, height_px, width_px)
        for reason, count in found.problems.items():
            self.monitor.problem(reason, count)
            self.complain(reason, f'{reason}: {count} in the detections of one image')
        return found.instances

    def failed(self, error: Exception) -> None:
        """Count an image that could not be processed."""
        self.monitor.dropped('processing failed')
        self.complain('processing failed', f'image is dropped: {error_text(error)}')

    def publish(self, ready: Ready, result: FrameResult, fingerprint: str) -> None:
        """Publish the objects of an image."""
        if result.rejected_detections:
            self.monitor.problem('rejected boxes', result.rejected_detections)
            self.complain('rejected boxes', f'{result.rejected_detections} boxes are left out: '
                          'not finite, without area, outside the image, or without a score')
        work, image = ready.work, ready.frame.image
        header = work.message.header
        stages = {**ready.stages_ms, **result.stage_times_ms}
        before = time.monotonic()
        self._results.publish_tracks(
            result.tracks, header,
            TrackInfo(image.shape[0], image.shape[1], ready.frame.stream, self.sequence,
                      self.monitor.take_drops(), work.epoch, fingerprint, stages,
                      work.origin, self._upstream.names if work.detections else ()),
            self._settings.node.publish_embeddings)
        done = time.monotonic()
        latency_s = (self._node.get_clock().now().nanoseconds - work.stamp_ns) / 1e9
        self.sequence += 1
        self.frame_id = header.frame_id
        self._num_tracks = len(result.tracks)
        self._camera_info.publish(header)
        self._results.publish_mirrors(result.tracks, header, image)
        self.monitor.processed(done, latency_s, {
            **stages, 'publish': 1e3 * (done - before),
            'mirrors': 1e3 * (time.monotonic() - done)})

    def _decode(self, message: Any) -> NDArray[np.uint8]:
        depth = self._settings.node.bit_depth
        if isinstance(message, CompressedImage):
            return compressed_to_rgb(message, depth)
        return image_to_rgb(message, depth)

    # --- what is known of it --------------------------------------------------------------------

    def status(
        self, lifecycle: str, enabled: bool, active_s: float, waiting: int,
    ) -> tuple[Snapshot, Snapshot, StreamState]:
        """State for the diagnostics: counters now and at the previous call, and the rest."""
        before, self._snapshot = self._snapshot, self.monitor.snapshot(time.monotonic())
        subscription = self._inputs.get('image')
        return self._snapshot, before, StreamState(
            lifecycle=lifecycle, enabled=enabled, active_s=active_s, camera=self.name,
            topic=self.image_topic, stream=self.stream,
            publishers=self._node.count_publishers(self.image_topic),
            reliability='' if subscription is None else subscription.reliability,
            resets=self.intake.epoch, waiting=len(self.intake) + waiting,
            tracks=self._num_tracks, finds_objects=self.intake.finds_objects,
            upstream=tuple(self._upstream.states()))

    def _report(self, text: str) -> None:
        """Log a mismatch with another node, once in a while."""
        self.monitor.problem('mismatches')
        self.complain(text, text)

    def complain(self, what: str, text: str) -> None:
        """Log a repeated problem once in a while."""
        # While ROS shuts down everything fails, and nobody needs to know.
        if self._node.context.ok() and self.monitor.should_log(what, time.monotonic()):
            self._node.get_logger().warning(f'{self.name}: {text}' if self.name else text)


def error_text(error: BaseException) -> str:
    """Text of an error; our own ones speak for themselves."""
    own = isinstance(error, ValueError | FileNotFoundError)
    return str(error) if own else f'{type(error).__name__}: {error}'
