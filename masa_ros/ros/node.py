"""The managed node: images in, tracked objects out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from masa_ros.pipeline import FrameResult, Pipeline, PipelineConfig
from masa_ros.ros.convert import (
    compressed_to_rgb,
    cv_bridge,
    detections_to_instances,
    image_to_rgb,
    LabelTable,
    TrackInfo,
)
from masa_ros.ros.diagnostics import diagnostics_message, ModelState, StreamState
from masa_ros.ros.intake import Intake, Work
from masa_ros.ros.monitor import Monitor
from masa_ros.ros.outputs import Detection2DArray, NAMES, Outputs, PUBLISH_ERRORS
from masa_ros.ros.parameters import NodeConfig, NodeParameters
from masa_ros.ros.signals import finish_undisturbed
from masa_ros.ros.subscription import MatchedSubscription
from masa_ros.ros.transport import prepare_transport
from masa_ros.ros.worker import InferenceWorker
from masa_ros.structures.frame import Frame
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray
import rclpy
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.exceptions import ParameterException, ROSInterruptException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import SetBool, Trigger

# How often publishers are looked for.
GRAPH_PERIOD_S = 0.5
# A frame at work may take this long before a transition goes on without it.
FRAME_LIMIT_S = 10.0

START_ERRORS = (ValueError, RuntimeError, ParameterException)
STOPPED = (KeyboardInterrupt, ExternalShutdownException, ROSInterruptException)


class TrackerNode(LifecycleNode):
    """
    Tracks the objects of one image topic; topics, services and parameters are in docs/node.md.

    The executor's thread receives, judges stamps and joins; a worker thread owns the pipeline,
    converts, runs it and publishes. Frames that cannot be used are logged now and then, counted
    and survived.

    Raises
    ------
    ValueError
        If a given parameter is not known or not allowed.

    """

    def __init__(self, node_name: str = 'tracker', **kwargs: Any) -> None:
        super().__init__(node_name, **kwargs)
        self._monitor = Monitor()
        self._worker: InferenceWorker[Work] | None = None
        self._pipeline: Pipeline | None = None
        self._model_state = ModelState(False, '')
        self._inputs: dict[str, MatchedSubscription] = {}
        self._enabled = True
        self._active_since_s: float | None = None
        self._tracker_epoch = 0
        self._sequence = 0
        self._num_tracks = 0
        self._image_topic = self.resolve_topic_name('~/input/image')
        self._detections_topic = self.resolve_topic_name('~/input/detections')
        topics = {self._image_topic: 'subscription', self._detections_topic: 'subscription',
                  **{self.resolve_topic_name(f'~/output/{name}'): 'publisher' for name in NAMES}}
        self._settings = NodeParameters(
            self, topics, lambda: self._pipeline is not None, self._on_parameters)
        config = self._settings.node
        self._labels = LabelTable(config.detections.class_names)
        self._intake = Intake(config, self._monitor, self._hand_over, self._complain)
        self._results = Outputs(self, self._monitor, self._complain, self._report)
        if Detection2DArray is None:
            self.get_logger().warning('vision_msgs is not installed: no ~/input/detections and '
                                      'no ~/output/detections')
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._snapshot = self._monitor.snapshot(time.monotonic())
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self._start_timers(config)

    def _start_timers(self, config: NodeConfig) -> None:
        # Not the ROS clock: with simulated time these must run on while a recording is paused.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(config.diagnostics.period_s, self._publish_diagnostics, clock=steady)
        self.create_timer(GRAPH_PERIOD_S, self._match_publishers, clock=steady)
        # Runs only while images wait for detections: every wake-up of the executor costs 1 ms.
        self._join_timer = self.create_timer(1.0, self._release, clock=steady)
        self._join_timer.cancel()
        if config.autostart:
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)

    # --- lifecycle ------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and run it once; with an error the node stays unconfigured."""
        name = self._settings.pipeline.model.name
        self._model_state = ModelState(False, name)
        self.get_logger().info(f'loading model {name}')
        worker = InferenceWorker(self._process, self._on_worker_error,
                                 self._settings.node.policy, self._settings.node.queue_size)
        try:
            self._pipeline = self._wait(worker.call(partial(_load, self._settings.pipeline)))
        except Exception as error:
            worker.stop(0.0)
            self._model_state = ModelState(False, name, error=_text(error))
            self.get_logger().error(
                f'model {name} cannot be loaded: {_text(error)}. The node stays unconfigured; '
                'when this is mended, run: ros2 lifecycle set '
                f'{self.get_fully_qualified_name()} configure')
            return TransitionCallbackReturn.FAILURE
        self._worker = worker
        self._intake.finds_objects = self._pipeline.finds_objects
        self._describe_model()
        loaded = self._model_state
        self.get_logger().info(
            f'model {loaded.name} on {loaded.device}: {loaded.weights}; fingerprint '
            f'{loaded.fingerprint} of {loaded.description}')
        if loaded.note:
            self.get_logger().info(f'images are converted without cv_bridge: {loaded.note}')
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start to receive images; ids start anew."""
        if self._sequence:
            self._intake.reset()
        try:
            if self._enabled:
                self._subscribe()
        except Exception as error:
            # rclpy would pass over it in silence.
            self._unsubscribe()
            self.get_logger().error(f'cannot subscribe: {_text(error)}')
            return TransitionCallbackReturn.FAILURE
        self._active_since_s = time.monotonic()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop to receive images and keep the model."""
        self._stop_input()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model's memory."""
        self._free()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop to receive images and free the model's memory."""
        self._stop_input()
        self._free()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Fall back to unconfigured after an unexpected error in a transition."""
        self._stop_input()
        self._free()
        return super().on_error(state)

    def close(self) -> None:
        """Stop the worker; for the end of the process."""
        if self._worker is not None and not self._worker.stop():
            self.get_logger().warning('the frame at work did not end in time')

    def _autostart(self) -> None:
        """Bring the node to active, once."""
        self.destroy_timer(self._autostart_timer)
        if (self.trigger_configure() == TransitionCallbackReturn.SUCCESS
                and self.trigger_activate() == TransitionCallbackReturn.SUCCESS):
            self.get_logger().info(f'active: tracking {self._image_topic}')

    def _wait(self, loading: Future[Pipeline]) -> Pipeline:
        """Wait for the model, but not longer than ROS lives."""
        while not loading.done():
            if not self.context.ok():
                raise CancelledError('told to stop while loading')
            time.sleep(0.02)
        return loading.result()

    def _free(self) -> None:
        if self._worker is not None and self._pipeline is not None:
            self._worker.call(self._pipeline.close)
            self._worker.stop(FRAME_LIMIT_S)
        self._worker = self._pipeline = None
        self._model_state = ModelState(False, self._settings.pipeline.model.name)

    def _describe_model(self) -> None:
        """Keep for the messages what is loaded."""
        pipeline = self._pipeline
        if pipeline is None:
            return
        model = pipeline.model
        self._model_state = ModelState(
            True, model.name, model.weights.summary(), model.device, pipeline.fingerprint(),
            pipeline.description(), model.weights.trained, note=cv_bridge()[1])

    # --- input ----------------------------------------------------------------------------------

    def _subscribe(self) -> None:
        config = self._settings.node
        every = config.policy == 'every'
        receive = partial(MatchedSubscription, self, reliability=config.reliability,
                          depth=max(config.qos_depth, config.queue_size if every else 0),
                          report=self._report,
                          lost=partial(self._monitor.problem, 'lost by the middleware'))
        if Detection2DArray is not None and config.detections.source != 'none':
            self._inputs['detections'] = receive(
                kind=Detection2DArray, topic=self._detections_topic,
                callback=self._on_detections)
        self._inputs['image'] = receive(
            kind=CompressedImage if config.compressed else Image, topic=self._image_topic,
            callback=self._on_image)

    def _unsubscribe(self) -> None:
        for subscription in self._inputs.values():
            subscription.close()
        self._inputs.clear()
        self._intake.stop()
        self._set_join_timer()

    def _stop_input(self) -> None:
        """Stop to receive; when this returns nothing is published any more."""
        self._active_since_s = None
        self._unsubscribe()
        if self._worker is None:
            return
        self._monitor.dropped('stopped', len(self._worker.clear()))
        done = self._worker.call(lambda: None)
        limit = time.monotonic() + FRAME_LIMIT_S
        while not done.done():
            if time.monotonic() > limit:
                self.get_logger().warning(f'the frame at work takes more than {FRAME_LIMIT_S} s')
                return
            time.sleep(0.002)

    def _on_image(self, message: Any) -> None:
        try:
            self._intake.add_image(message, time.monotonic(), self._wants_detections())
        except Exception as error:
            self._monitor.dropped('processing failed')
            self._complain('image callback', f'image is dropped: {_text(error)}')
        self._set_join_timer()

    def _on_detections(self, message: Any) -> None:
        try:
            self._intake.add_detections(message, time.monotonic())
        except Exception as error:
            self._monitor.problem('bad detections')
            self._complain('detections callback', f'detections are dropped: {_text(error)}')
        self._set_join_timer()

    def _release(self) -> None:
        self._intake.release(time.monotonic())
        self._set_join_timer()

    def _set_join_timer(self) -> None:
        """Wake up when the oldest waiting image has waited long enough."""
        deadline_s = self._intake.deadline_s
        if deadline_s is None:
            self._join_timer.cancel()
            return
        left_s = max(0.001, deadline_s - time.monotonic())
        self._join_timer.timer_period_ns = round(left_s * 1e9)
        self._join_timer.reset()

    def _wants_detections(self) -> bool:
        """Whether images wait for detections from the topic."""
        subscription = self._inputs.get('detections')
        source = self._settings.node.detections.source
        if subscription is None or source == 'none':
            return False
        return source == 'topic' or subscription.offered or not self._intake.finds_objects

    def _hand_over(self, work: Work) -> None:
        """Give work to the model's thread."""
        if self._worker is None:
            return
        replaced = self._worker.submit(work)
        reason = 'queue full' if self._settings.node.policy == 'every' else 'stale'
        self._monitor.dropped(reason, len(replaced))

    # --- worker thread --------------------------------------------------------------------------

    def _process(self, work: Work) -> None:
        """Convert, track and publish one image."""
        pipeline = self._pipeline
        if pipeline is None:
            return
        started = time.monotonic()
        stages = {'wait': 1e3 * (started - work.received_s)}
        if work.epoch != self._tracker_epoch:
            pipeline.reset()
            self._tracker_epoch = work.epoch
        try:
            image = self._decode(work.message)
            stages['decode'] = 1e3 * (time.monotonic() - started)
        except Exception as error:
            self._monitor.dropped('bad image')
            self._complain('bad image', f'image is dropped: {_text(error)}')
            return
        try:
            result = self._track(pipeline, work, image)
        except Exception as error:
            self._monitor.dropped('processing failed')
            self._complain('processing failed', f'image is dropped: {_text(error)}')
            return
        self._publish(work, image, result, {**stages, **result.stage_times_ms})

    def _decode(self, message: Any) -> NDArray[np.uint8]:
        depth = self._settings.node.bit_depth
        if isinstance(message, CompressedImage):
            return compressed_to_rgb(message, depth)
        return image_to_rgb(message, depth)

    def _track(self, pipeline: Pipeline, work: Work, image: NDArray[np.uint8]) -> FrameResult:
        detections = Instances() if work.empty else None
        if work.detections is not None:
            detections = detections_to_instances(work.detections, self._labels)
        result = pipeline.process(
            Frame(image, work.stamp_ns, self._sequence, self._stream(),
                  work.message.header.frame_id), detections)
        if result.rejected_detections:
            self._monitor.problem('rejected boxes', result.rejected_detections)
            self._complain('rejected boxes', f'{result.rejected_detections} boxes are left out: '
                           'not finite, without area, outside the image, or without a score')
        return result

    def _publish(
        self, work: Work, image: NDArray[np.uint8], result: FrameResult,
        stages: dict[str, float],
    ) -> None:
        header = work.message.header
        before = time.monotonic()
        self._results.publish_tracks(
            result.tracks, header,
            TrackInfo(image.shape[0], image.shape[1], self._stream(), self._sequence,
                      self._monitor.take_drops(), work.epoch, self._model_state.fingerprint,
                      stages),
            self._settings.node.publish_embeddings)
        done = time.monotonic()
        latency_s = (self.get_clock().now().nanoseconds - work.stamp_ns) / 1e9
        self._sequence += 1
        self._num_tracks = len(result.tracks)
        self._results.publish_mirrors(result.tracks, header, image)
        self._monitor.processed(done, latency_s, {
            **stages, 'publish': 1e3 * (done - before),
            'mirrors': 1e3 * (time.monotonic() - done)})

    def _on_worker_error(self, error: Exception) -> None:
        self._monitor.dropped('processing failed')
        self._complain('worker', f'image is dropped: {_text(error)}')

    def _stream(self) -> str:
        return self._settings.node.stream or self._image_topic

    # --- parameters, services, timers -----------------------------------------------------------

    def _on_parameters(self, node: NodeConfig, pipeline: PipelineConfig) -> None:
        """Take over changed settings; those of the pipeline between two frames."""
        self._intake.reconfigure(node)
        if tuple(self._labels.names) != node.detections.class_names:
            self._labels = LabelTable(node.detections.class_names)
        if self._worker is None or self._pipeline is None:
            return
        if pipeline != self._pipeline.config:
            self._worker.call(partial(self._reconfigure, self._pipeline, pipeline))

    def _reconfigure(self, pipeline: Pipeline, config: PipelineConfig) -> None:
        """Change the running pipeline, in its own thread."""
        try:
            pipeline.reconfigure(config)
        except Exception as error:
            self.get_logger().error(f'settings cannot be changed: {_text(error)}')
            return
        self._describe_model()
        self.get_logger().info(f'settings changed; fingerprint {self._model_state.fingerprint}')

    def _on_reset(self, _: Any, response: Any) -> Any:
        response.success = self._pipeline is not None
        if response.success:
            response.message = (f'tracks of {self._stream()} are forgotten with the next image '
                                f'(reset {self._intake.reset()})')
        else:
            response.message = 'no model is loaded, so there are no tracks; configure first'
        self.get_logger().info(response.message)
        return response

    def _on_enable(self, request: Any, response: Any) -> Any:
        response.success = True
        response.message = 'tracking' if request.data else 'paused'
        if request.data == self._enabled:
            return response
        self._enabled = bool(request.data)
        if self._active_since_s is not None:
            self._active_since_s = time.monotonic()
            if self._enabled:
                self._subscribe()
            else:
                self._unsubscribe()
        self.get_logger().info(response.message)
        return response

    def _match_publishers(self) -> None:
        for subscription in self._inputs.values():
            subscription.match()

    def _publish_diagnostics(self) -> None:
        now = time.monotonic()
        snapshot = self._monitor.snapshot(now)
        subscription = self._inputs.get('image')
        worker = self._worker
        stream = StreamState(
            lifecycle=self._state_machine.current_state[1], enabled=self._enabled,
            active_s=0.0 if self._active_since_s is None else now - self._active_since_s,
            topic=self._image_topic, stream=self._stream(),
            publishers=self.count_publishers(self._image_topic),
            reliability='' if subscription is None else subscription.reliability,
            resets=self._intake.epoch,
            waiting=len(self._intake) + (0 if worker is None else worker.waiting()),
            tracks=self._num_tracks, finds_objects=self._intake.finds_objects,
            detections_topic=self._detections_topic)
        message = diagnostics_message(
            self.get_clock().now().to_msg(), self.get_fully_qualified_name().lstrip('/'),
            snapshot, self._snapshot, stream, self._model_state,
            self._settings.node.diagnostics)
        self._snapshot = snapshot
        try:
            self._diagnostics.publish(message)
        except PUBLISH_ERRORS as error:
            self._complain('publish diagnostics', f'/diagnostics: {error}')

    def _report(self, text: str) -> None:
        """Log a mismatch with another node, once in a while."""
        self._monitor.problem('mismatches')
        self._complain(text, text)

    def _complain(self, what: str, text: str) -> None:
        """Log a repeated problem once in a while."""
        # While ROS shuts down everything fails, and nobody needs to know.
        if self.context.ok() and self._monitor.should_log(what, time.monotonic()):
            self.get_logger().warning(text)


def _load(config: PipelineConfig) -> Pipeline:
    """Build and warm the pipeline; runs in the thread that will use it."""
    pipeline = Pipeline(config)
    pipeline.warm_up()
    return pipeline


def _text(error: BaseException) -> str:
    """Text of an error; our own ones speak for themselves."""
    own = isinstance(error, ValueError | FileNotFoundError)
    return str(error) if own else f'{type(error).__name__}: {error}'


def main(args: Sequence[str] | None = None) -> int:
    """
    Run the node until it is told to stop.

    Returns
    -------
    int
        0 after SIGINT or SIGTERM, 1 when the node cannot start (parameters).

    """
    transport = prepare_transport()
    try:
        rclpy.init(args=None if args is None else list(args))
        node = TrackerNode()
    except START_ERRORS as error:
        print(f'the tracker cannot start: {error}', file=sys.stderr)
        rclpy.try_shutdown()
        return 1
    node.get_logger().info(transport)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        _spin(executor, node)
    except STOPPED:
        pass
    finally:
        finish_undisturbed()
        node.close()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


def _spin(executor: SingleThreadedExecutor, node: TrackerNode) -> None:
    """Run callbacks; a message that cannot even be read must not end the node."""
    while rclpy.ok():
        try:
            executor.spin()
        except STOPPED:  # noqa: PERF203
            return
        except Exception as error:
            if rclpy.ok():
                node.get_logger().error(f'callback failed: {_text(error)}',
                                        throttle_duration_sec=5.0)


if __name__ == '__main__':
    sys.exit(main())
