"""Services and topics to ask for objects and classes while the node runs; see docs/prompts.md."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future as WorkerFuture
from typing import Any

from geometry_msgs.msg import Point, PointStamped, PolygonStamped
from masa_ros.detectors.prompts import split_text
from masa_ros.msg import TrackedObjectArray
from masa_ros.pipeline import Pipeline
from masa_ros.prompts import Added, Prompt
from masa_ros.ros.camera import Camera, error_text, topic_prefix
from masa_ros.ros.convert import image_to_rgb, stamp_to_ns, TrackInfo, tracks_to_message
from masa_ros.ros.space_points import image_stamp, same_frame, SpacePoints
from masa_ros.ros.worker import InferenceWorker
from masa_ros.srv import AddObject, ListObjects, RemoveObject, SetClasses, SetText
from masa_ros.structures.instances import Flag
import numpy as np
from numpy.typing import NDArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.parameter import Parameter
from rclpy.task import Future
from std_msgs.msg import Header
from unique_identifier_msgs.msg import UUID

Parts = Callable[[], tuple[InferenceWorker[Any] | None, Pipeline | None]]


class Prompting:
    """
    Answers prompts; what takes long is done in the model's thread, between two images.

    Every request gets an answer, also before the first image and while the node is not active:
    then with ``success`` false and the reason.

    Parameters
    ----------
    node : rclpy.lifecycle.LifecycleNode
        Owner of services and topics.
    cameras : sequence of Camera
        Its cameras.
    parts : callable
        Gives the worker and the pipeline, or None for both while no model is loaded.
    inactive : callable
        Says why no images are processed; an empty text while they are.
    on_classes : callable
        Called after the classes of the detector have changed.

    """

    def __init__(
        self, node: Any, cameras: Sequence[Camera], parts: Parts, inactive: Callable[[], str],
        on_classes: Callable[[], None],
    ) -> None:
        self._node = node
        self._cameras = {camera.name: camera for camera in cameras}
        self._parts = parts
        self._inactive = inactive
        self._on_classes = on_classes
        # A callback that waits for the model must not hold up those that receive images.
        self._group = ReentrantCallbackGroup()
        # Wakes the executor when the model's thread has an answer.
        self._wake = node.create_guard_condition(lambda: None, self._group)
        self._space = SpacePoints(node, self._group)
        for kind, name, callback in (
                (AddObject, 'add_object', self._on_add),
                (RemoveObject, 'remove_object', self._on_remove),
                (ListObjects, 'list_objects', self._on_list),
                (SetText, 'set_text', self._on_text), (SetClasses, 'set_classes', self._on_set)):
            node.create_service(kind, f'~/{name}', callback, callback_group=self._group)
        for camera in cameras:
            self._listen(camera)

    def _listen(self, camera: Camera) -> None:
        """Listen to clicks and boxes drawn on a camera's image."""
        prefix = topic_prefix(camera.name)

        async def clicked(message: Any) -> None:
            await self._on_click(camera, message.header, message.point)

        async def pointed(message: Any) -> None:
            await self._on_click(camera, Header(), message)

        async def drawn(message: Any) -> None:
            await self._on_box(camera, message)
        self._node.create_subscription(
            PointStamped, f'{prefix}input/click', clicked, 10, callback_group=self._group)
        self._node.create_subscription(
            Point, f'{prefix}input/pixel', pointed, 10, callback_group=self._group)
        self._node.create_subscription(
            PolygonStamped, f'{prefix}input/box', drawn, 10, callback_group=self._group)

    # --- objects --------------------------------------------------------------------------------

    async def _on_add(self, request: Any, response: Any) -> Any:
        try:
            camera = self._camera(request.camera)
            added = await self._add(camera, _read_prompt(request))
        except Exception as error:
            return self._refuse(response, 'no object is added', error)
        response.success, response.message = True, added.message
        response.id = added.track_id
        response.uuid = UUID(uuid=np.frombuffer(added.uuid, np.uint8).copy())
        response.x0, response.y0, response.x1, response.y1 = added.box.tolist()
        self._node.get_logger().info(added.message)
        return response

    async def _on_remove(self, request: Any, response: Any) -> Any:
        try:
            camera = self._camera(request.camera)
            await self._ask(lambda pipeline: pipeline.remove_object(camera.stream, request.id))
        except Exception as error:
            return self._refuse(response, 'no object is removed', error)
        response.success = True
        response.message = (f'object {request.id} is forgotten; if a detector or the model finds '
                            'it by itself, it comes back with a new id')
        return response

    async def _on_list(self, request: Any, response: Any) -> Any:
        try:
            camera = self._camera(request.camera)
            known = await self._ask(lambda pipeline: pipeline.objects(camera.stream))
        except Exception as error:
            return self._refuse(response, 'no objects are listed', error)
        if request.prompted_only:
            known = known.select(known.flags & np.uint8(Flag.PROMPTED) != 0)
        message: TrackedObjectArray = tracks_to_message(
            known, Header(), TrackInfo(2**31 - 1, 2**31 - 1))
        response.success, response.objects = True, message.objects
        asked = int((known.flags & np.uint8(Flag.PROMPTED) != 0).sum())
        response.message = f'{len(known)} objects, {asked} of them asked for'
        return response

    async def _on_click(self, camera: Camera, header: Any, point: Any) -> None:
        where, stamp_ns = f'click at ({point.x:g}, {point.y:g})', stamp_to_ns(header.stamp)
        try:
            pixel = np.array([point.x, point.y])
            if _is_in_space(camera, header, point):
                where = (f'click on the point ({point.x:g}, {point.y:g}, {point.z:g}) of '
                         f'{header.frame_id or camera.frame_id!r}')
                pixel, stamp_ns, note = await self._project(camera, header, point)
                where += f', which is the pixel ({pixel[0]:.1f}, {pixel[1]:.1f}){note}'
            added = await self._add(camera, Prompt(stamp_ns, points=pixel[None]))
        except Exception as error:
            text = f'{where} starts nothing: {error_text(error)}'
            camera.complain(text, text)
            return
        self._node.get_logger().info(f'{where}: {added.message}')

    async def _project(
        self, camera: Camera, header: Any, point: Any,
    ) -> tuple[NDArray[np.float64], int, str]:
        """Pixel of a point of space, the stamp of the image that it is in, and a note."""
        self._check_active()
        info = await self._space.calibration(f'{topic_prefix(camera.name)}input/camera_info')
        stamp_ns = image_stamp(header, camera.frame_id)
        frame, rectified = await self._ask(lambda pipeline: (
            pipeline.image_for_prompt(camera.stream, stamp_ns),
            pipeline.config.prompts.rectified))
        pixel, note = await self._space.pixel(frame, info, header, point, rectified)
        return pixel, frame.stamp_ns, note

    async def _on_box(self, camera: Camera, message: Any) -> None:
        corners = np.array([[corner.x, corner.y] for corner in message.polygon.points],
                           np.float64).reshape(-1, 2)
        try:
            if len(corners) < 2:
                raise ValueError(f'the polygon has {len(corners)} corners, expected two opposite '
                                 'corners of a box or more')
            _check_pixel(camera, message.header, message.polygon.points[0].z)
            added = await self._add(camera, Prompt(
                stamp_to_ns(message.header.stamp),
                box=np.concatenate([corners.min(axis=0), corners.max(axis=0)])))
        except Exception as error:
            text = f'box starts nothing: {error_text(error)}'
            camera.complain(text, text)
            return
        self._node.get_logger().info(f'box: {added.message}')

    def _check_active(self) -> None:
        reason = self._inactive()
        if reason:
            raise ValueError(reason)

    async def _add(self, camera: Camera, prompt: Prompt) -> Added:
        self._check_active()
        added: Added = await self._ask(
            lambda pipeline: pipeline.add_object(camera.stream, prompt))
        return added

    def _camera(self, name: str) -> Camera:
        if not name and len(self._cameras) == 1:
            return next(iter(self._cameras.values()))
        if name in self._cameras:
            return self._cameras[name]
        known = ', '.join(filter(None, self._cameras)) or 'only one, leave the name empty'
        raise ValueError(f'there is no camera {name!r}; known: {known}')

    # --- classes --------------------------------------------------------------------------------

    async def _on_text(self, request: Any, response: Any) -> Any:
        names = split_text(request.text)
        if not names:
            return self._refuse(response, 'the classes stay', ValueError(
                f'the text {request.text!r} names no class, expected names with dots between '
                'them, such as "car . traffic cone"'))
        return await self._set(names, response)

    async def _on_set(self, request: Any, response: Any) -> Any:
        return await self._set(tuple(request.classes), response)

    async def _set(self, names: tuple[str, ...], response: Any) -> Any:
        """Change the classes; parameters that say the same follow."""
        try:
            found = await self._ask(lambda pipeline: _set_classes(pipeline, names))
            results = self._node.set_parameters_atomically([
                Parameter('detector.classes', value=list(names) or ['']),
                Parameter('detector.text', value='')])
            if not results.successful:
                raise ValueError(results.reason)
        except Exception as error:
            return self._refuse(response, 'the classes stay', error)
        self._on_classes()
        response.success, response.classes = True, list(found)
        response.message = ('from the next image on: ' + ', '.join(found) if found
                            else 'all classes of the detector, from the next image on')
        self._node.get_logger().info(response.message)
        return response

    # --- the model's thread ---------------------------------------------------------------------

    async def _ask(self, function: Callable[[Pipeline], Any]) -> Any:
        """Run a function of the pipeline in the model's thread and wait for its result."""
        worker, pipeline = self._parts()
        if worker is None or pipeline is None:
            raise ValueError('no model is loaded; configure and activate the node first')
        answer: Any = Future()

        def finish(done: WorkerFuture[Any]) -> None:
            answer.set_result(done)
            self._wake.trigger()
        worker.call(lambda: function(pipeline)).add_done_callback(finish)
        done = await answer
        return done.result()

    def _refuse(self, response: Any, what: str, error: Exception) -> Any:
        response.success = False
        response.message = f'{what}: {error_text(error)}'
        self._node.get_logger().warning(response.message)
        return response


def _set_classes(pipeline: Pipeline, names: tuple[str, ...]) -> tuple[str, ...]:
    pipeline.set_classes(names)
    return () if pipeline.detector is None else pipeline.detector.class_names


def _read_prompt(request: Any) -> Prompt:
    """Prompt of an ``AddObject`` request; fields that are empty are not given."""
    points = labels = mask = None
    if len(request.points):
        points = np.array([[point.x, point.y] for point in request.points], np.float64)
    if len(request.point_labels):
        labels = np.array(request.point_labels, np.int64)
        if not np.isin(labels, (0, 1)).all():
            raise ValueError(f'point_labels are {labels.tolist()}, expected 1 (on the object) or '
                             '0 (not on it)')
    if request.mask.height or request.mask.width:
        if request.mask.encoding not in ('mono8', '8UC1'):
            raise ValueError(f'the mask has the encoding {request.mask.encoding!r}, expected '
                             'mono8 or 8UC1')
        mask = image_to_rgb(request.mask)[..., 0] > 0
    return Prompt(
        stamp_to_ns(request.stamp),
        np.array(request.box, np.float64) if len(request.box) else None, points,
        None if labels is None else labels == 1, mask, request.label)


def _is_in_space(camera: Camera, header: Any, point: Any) -> bool:
    """Whether a click is a point of space, as publish-point tools send it, and no pixel."""
    if not header.frame_id:
        _check_pixel(camera, header, point.z)
    return bool(point.z != 0 or not _may_be_pixel(camera, header))


def _may_be_pixel(camera: Camera, header: Any) -> bool:
    """Whether the frame of a message is that of the image, or not said."""
    return not (camera.frame_id and header.frame_id) or same_frame(
        header.frame_id, camera.frame_id)


def _check_pixel(camera: Camera, header: Any, z: float) -> None:
    """Refuse points of space: they look like pixels and are none."""
    if z != 0:
        raise ValueError(f'its z is {z:g}, expected 0 as for a pixel of the image; only clicks '
                         'with the name of their frame may be points of space')
    if not _may_be_pixel(camera, header):
        raise ValueError(
            f'it is in the frame {header.frame_id!r}, expected pixels of the image, whose '
            f'frame is {camera.frame_id!r} (or an empty frame); only clicks with the name of '
            'their frame may be points of space')
