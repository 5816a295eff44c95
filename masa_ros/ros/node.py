"""The managed node: images in, tracked objects out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
import sys
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from masa_ros.pipeline import Pipeline, PipelineConfig
from masa_ros.regions import RegionsConfig
from masa_ros.ros.camera import Camera, camera_topics, Ready
from masa_ros.ros.camera import error_text as _text
from masa_ros.ros.convert import cv_bridge
from masa_ros.ros.diagnostics import diagnostics_message, ModelState
from masa_ros.ros.intake import Work
from masa_ros.ros.outputs import Detection2DArray, PUBLISH_ERRORS
from masa_ros.ros.parameters import given_cameras, NodeConfig, NodeParameters
from masa_ros.ros.prompting import Prompting
from masa_ros.ros.signals import finish_undisturbed
from masa_ros.ros.transport import prepare_transport
from masa_ros.ros.turning import Turning
from masa_ros.ros.worker import InferenceWorker
import rclpy
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]
from rclpy.exceptions import ParameterException, ROSInterruptException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import SetBool, Trigger

# How often publishers are looked for.
GRAPH_PERIOD_S = 0.5
# A frame at work may take this long before a transition goes on without it.
FRAME_LIMIT_S = 10.0

START_ERRORS = (ValueError, RuntimeError, ParameterException)
STOPPED = (KeyboardInterrupt, ExternalShutdownException, ROSInterruptException)


class TrackerNode(LifecycleNode):
    """
    Tracks the objects of one or several cameras; topics and parameters are in docs/node.md.

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
        self._worker: InferenceWorker[tuple[Camera, Work]] | None = None
        self._pipeline: Pipeline | None = None
        self._model_state = ModelState(False, '')
        self._enabled = True
        self._active_since_s: float | None = None
        names = given_cameras(self) or ('',)
        topics = {topic: role for name in names
                  for topic, role in camera_topics(self, name).items()}
        self._settings = NodeParameters(
            self, topics, lambda: self._pipeline is not None, self._on_parameters)
        config = self._settings.node
        self._turning = Turning(self, config.odometry)
        self._turning.wanted = self._wants_turning(self._settings.pipeline)
        self._cameras = [Camera(self, name, self._settings, self._hand_over, self._turning)
                         for name in config.cameras or ('',)]
        if Detection2DArray is None:
            self.get_logger().warning('vision_msgs is not installed: no ~/output/detections')
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_service(Trigger, '~/reset', self._on_reset)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self._prompting = Prompting(
            self, self._cameras, lambda: (self._worker, self._pipeline), self._why_inactive,
            self._describe_model)
        self._start_timers(config)

    def _start_timers(self, config: NodeConfig) -> None:
        # Not the ROS clock: with simulated time these must run on while a recording is paused.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(config.diagnostics.period_s, self._publish_diagnostics, clock=steady)
        self.create_timer(GRAPH_PERIOD_S, self._look_at_graph, clock=steady)
        if config.autostart:
            self._autostart_timer = self.create_timer(0.0, self._autostart, clock=steady)

    # --- lifecycle ------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and run it once; with an error the node stays unconfigured."""
        name = self._settings.pipeline.model.name
        self._model_state = ModelState(False, name)
        self.get_logger().info(f'loading model {name}')
        config = self._settings.node
        worker = InferenceWorker(self._process, self._on_worker_error, config.policy,
                                 config.queue_size, config.gather_wait_s)
        try:
            self._pipeline = self._wait(worker.call(partial(
                _load, self._settings.pipeline, self._regions())))
        except Exception as error:
            worker.stop(0.0)
            self._model_state = ModelState(False, name, error=_text(error))
            self.get_logger().error(
                f'model {name} cannot be loaded: {_text(error)}. The node stays unconfigured; '
                'when this is mended, run: ros2 lifecycle set '
                f'{self.get_fully_qualified_name()} configure')
            return TransitionCallbackReturn.FAILURE
        self._worker = worker
        for camera in self._cameras:
            camera.intake.finds_objects = self._pipeline.finds_objects
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
        for camera in self._cameras:
            if camera.sequence:
                camera.intake.reset()
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
            topics = ', '.join(camera.image_topic for camera in self._cameras)
            self.get_logger().info(f'active: tracking {topics}')

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
        self._turning.subscribe()
        for camera in self._cameras:
            camera.subscribe()

    def _unsubscribe(self) -> None:
        self._turning.unsubscribe()
        for camera in self._cameras:
            camera.unsubscribe()

    def _stop_input(self) -> None:
        """Stop to receive; when this returns nothing is published any more."""
        self._active_since_s = None
        self._unsubscribe()
        if self._worker is None:
            return
        for camera, _ in self._worker.clear():
            camera.monitor.dropped('stopped')
        done = self._worker.call(lambda: None)
        limit = time.monotonic() + FRAME_LIMIT_S
        while not done.done():
            if time.monotonic() > limit:
                self.get_logger().warning(f'the frame at work takes more than {FRAME_LIMIT_S} s')
                return
            time.sleep(0.002)

    def _hand_over(self, camera: Camera, work: Work) -> None:
        """Give work to the model's thread."""
        if self._worker is None:
            return
        replaced = self._worker.submit((camera, work), camera.name)
        reason = 'queue full' if self._settings.node.policy == 'every' else 'stale'
        camera.monitor.dropped(reason, len(replaced))

    # --- worker thread --------------------------------------------------------------------------

    def _process(self, batch: list[tuple[Camera, Work]]) -> None:
        """Convert, track and publish one image of each of some cameras."""
        pipeline = self._pipeline
        if pipeline is None:
            return
        ready: list[Ready] = []
        for camera, work in batch:
            if work.epoch != camera.tracker_epoch:
                pipeline.reset(camera.stream)
                camera.tracker_epoch = work.epoch
            prepared = camera.prepare(work)
            if prepared is not None:
                ready.append(prepared)
        results = pipeline.process_each(
            [entry.frame for entry in ready], [entry.detections for entry in ready])
        for entry, result in zip(ready, results, strict=True):
            if isinstance(result, Exception):
                entry.camera.failed(result)
            else:
                entry.camera.publish(entry, result, self._model_state.fingerprint)

    def _on_worker_error(self, error: Exception) -> None:
        camera = self._cameras[0]
        camera.monitor.problem('errors')
        camera.complain('worker', f'images are dropped: {_text(error)}')

    # --- parameters, services, timers -----------------------------------------------------------

    def _on_parameters(self, node: NodeConfig, pipeline: PipelineConfig) -> None:
        """Take over changed settings; those of the pipeline between two frames."""
        self._turning.reconfigure(node.odometry, self._wants_turning(pipeline))
        for camera in self._cameras:
            camera.reconfigure(node)
        if self._worker is None or self._pipeline is None:
            return
        self._worker.call(partial(
            self._reconfigure, self._pipeline, pipeline, self._regions()))

    @staticmethod
    def _wants_turning(pipeline: PipelineConfig) -> bool:
        return pipeline.tracker.camera_motion == 'odometry'

    def _regions(self) -> dict[str, RegionsConfig]:
        """Regions of each camera, by its stream."""
        return {camera.stream: self._settings.regions_of(camera.name)
                for camera in self._cameras if camera.name}

    def _reconfigure(
        self, pipeline: Pipeline, config: PipelineConfig, regions: Mapping[str, RegionsConfig],
    ) -> None:
        """Change the running pipeline, in its own thread."""
        before = pipeline.fingerprint()
        try:
            pipeline.reconfigure(config)
            _set_regions(pipeline, regions)
        except Exception as error:
            self.get_logger().error(f'settings cannot be changed: {_text(error)}')
            return
        if pipeline.fingerprint() == before:
            return
        self._describe_model()
        self.get_logger().info(f'settings changed; fingerprint {self._model_state.fingerprint}')

    def _why_inactive(self) -> str:
        """Say why no images are processed; empty while they are."""
        if self._active_since_s is None:
            return 'the node is not active; activate it first (ros2 lifecycle set)'
        return '' if self._enabled else 'the node is paused; enable it first (service ~/enable)'

    def _on_reset(self, _: Any, response: Any) -> Any:
        response.success = self._pipeline is not None
        if response.success:
            resets = [camera.intake.reset() for camera in self._cameras]
            names = ', '.join(camera.stream for camera in self._cameras)
            response.message = (f'tracks of {names} are forgotten with the next image '
                                f'(reset {", ".join(map(str, resets))})')
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

    def _look_at_graph(self) -> None:
        for camera in self._cameras:
            camera.look_at_graph()

    def _publish_diagnostics(self) -> None:
        active_s = (0.0 if self._active_since_s is None
                    else time.monotonic() - self._active_since_s)
        worker = self._worker
        message = diagnostics_message(
            self.get_clock().now().to_msg(), self.get_fully_qualified_name().lstrip('/'),
            [camera.status(self._state_machine.current_state[1], self._enabled, active_s,
                           0 if worker is None else worker.waiting(camera.name))
             for camera in self._cameras],
            self._model_state, self._settings.node.diagnostics)
        try:
            self._diagnostics.publish(message)
        except PUBLISH_ERRORS as error:
            self._cameras[0].complain('publish diagnostics', f'/diagnostics: {error}')


def _load(config: PipelineConfig, regions: Mapping[str, RegionsConfig]) -> Pipeline:
    """Build and warm the pipeline; runs in the thread that will use it."""
    pipeline = Pipeline(config)
    _set_regions(pipeline, regions)
    pipeline.warm_up()
    return pipeline


def _set_regions(pipeline: Pipeline, regions: Mapping[str, RegionsConfig]) -> None:
    for stream, config in regions.items():
        pipeline.set_regions(stream, config)


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
