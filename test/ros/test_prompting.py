"""Prompts to the real node over DDS; its model is the one of fake_tracker.py."""

from __future__ import annotations

from typing import Any, TypeAlias

from masa_ros.ros import convert
import numpy as np
import pytest

pytestmark = pytest.mark.ros

# The class in conftest.py, which pytest does not let a test module import.
Robot: TypeAlias = Any

BOX = [10.0, 8.0, 30.0, 40.0]


def picture(x: int = 10, y: int = 8) -> Any:
    """Image with a speckled object of 20 x 32 pixels at a place."""
    pixels = np.full((96, 128, 3), 100, np.uint8)
    pixels[::7, ::5] = 80
    pixels[y:y + 32, x:x + 20] = np.random.default_rng(3).integers(
        0, 255, (32, 20, 3)).astype(np.uint8)
    return pixels


def add(robot: Robot, node: str = '/tracker', **fields: Any) -> Any:
    from masa_ros.srv import AddObject
    return robot.call(AddObject, f'{node}/add_object', AddObject.Request(**fields))


def remove(robot: Robot, track_id: int, camera: str = '') -> Any:
    from masa_ros.srv import RemoveObject
    return robot.call(RemoveObject, '/tracker/remove_object',
                      RemoveObject.Request(id=track_id, camera=camera))


def objects(robot: Robot, **fields: Any) -> Any:
    from masa_ros.srv import ListObjects
    return robot.call(ListObjects, '/tracker/list_objects', ListObjects.Request(**fields))


def seen(message: Any) -> list[int]:
    return [entry.id for entry in message.objects if entry.state <= entry.STATE_TRACKED]


@pytest.fixture
def empty(robot: Robot) -> Robot:
    """Robot whose node finds nothing by itself: images without detections are empty."""
    robot.start('policy:=every', 'detections.missing:=empty', 'detections.wait_s:=0.0',
                'stream:=front')
    robot.listen_tracks()
    return robot


def show(robot: Robot, x: int = 10, y: int = 8) -> Any:
    return robot.answer(robot.send_image(picture(x, y)))


def test_an_object_is_added_tracked_listed_and_removed(empty: Robot) -> None:
    assert seen(show(empty)) == []
    answer = add(empty, box=BOX, label='crate')
    assert (answer.success, answer.id) == (True, 1)
    assert answer.message == 'object 1 is tracked from now on'
    assert [answer.x0, answer.y0, answer.x1, answer.y1] == BOX
    for step in range(1, 5):
        message = show(empty, 10 + 2 * step)
        assert seen(message) == [1]
    entry = message.objects[0]
    assert (entry.label, bytes(entry.uuid.uuid)) == ('crate', bytes(answer.uuid.uuid))
    assert entry.flags & entry.FLAG_PROMPTED
    assert abs(entry.x0 - 18) < 3
    listed = objects(empty)
    assert (listed.success, [known.id for known in listed.objects]) == (True, [1])
    assert listed.message == '1 objects, 1 of them asked for'
    assert remove(empty, 1).success
    again = remove(empty, 1)
    assert not again.success
    assert 'there is no object 1' in again.message
    gone = show(empty, 18)
    assert [known.state for known in gone.objects] == [gone.objects[0].STATE_REMOVED]
    assert objects(empty, prompted_only=True).objects == []


def test_points_and_masks_start_tracks_too(empty: Robot) -> None:
    from geometry_msgs.msg import Point
    empty.detections_publisher()

    def detected() -> bool:
        header = empty.tick()
        empty.send_boxes([BOX], header)
        empty.send_image(picture(), header=header)
        return 1 in seen(empty.answer(header))
    # This node does not wait for detections, so they come first; even then they may be too late.
    empty.wait_until(detected, 'a detected object')
    answer = add(empty, points=[Point(x=20.0, y=20.0), Point(x=50.0, y=50.0)],
                 point_labels=[1, 0])
    assert (answer.success, answer.id) == (True, 1)
    assert 'tracked already' in answer.message
    refused = add(empty, points=[Point(x=100.0, y=10.0)])
    assert not refused.success
    assert 'give a box' in refused.message
    mask = np.zeros((96, 128), np.uint8)
    mask[50:80, 60:90] = 255
    answer = add(empty, mask=convert.array_to_image(mask, 'mono8', empty.header()))
    assert (answer.success, answer.id, answer.x0, answer.y1) == (True, 2, 60, 80)
    assert [entry.id for entry in objects(empty, prompted_only=True).objects] == [1, 2]


def test_clicks_and_drawn_boxes_are_prompts(empty: Robot) -> None:
    from geometry_msgs.msg import Point, Point32, PointStamped, Polygon, PolygonStamped
    clicks = empty.publisher('clicks', PointStamped, '/tracker/input/click')
    boxes = empty.publisher('drawn', PolygonStamped, '/tracker/input/box')
    header = empty.send_image(picture())
    empty.send_boxes([BOX], header)
    empty.answer(header)
    message = PolygonStamped(header=header, polygon=Polygon(
        points=[Point32(x=10.0, y=8.0), Point32(x=30.0, y=40.0)]))
    boxes.publish(message)
    empty.wait_until(lambda: 'box: object 1 ' in empty.output, 'an object')
    show(empty)
    clicks.publish(PointStamped(header=empty.header(), point=Point(x=20.0, y=20.0, z=0.0)))
    empty.wait_until(lambda: 'click at (20, 20): object 1 is tracked already' in empty.output,
                     'an answer to the click')
    clicks.publish(PointStamped(point=Point(x=1.0, y=2.0, z=3.0)))
    empty.wait_until(lambda: 'its z is 3, expected 0' in empty.output, 'another warning')
    pixels = empty.publisher('pixels', Point, '/tracker/input/pixel')
    pixels.publish(Point(x=21.0, y=20.0))
    empty.wait_until(lambda: 'click at (21, 20): object 1 is tracked already' in empty.output,
                     'an answer to the pixel')
    boxes.publish(PolygonStamped(header=header))
    empty.wait_until(lambda: 'the polygon has 0 corners' in empty.output, 'a warning')
    boxes.publish(PolygonStamped(
        header=convert.make_header(1, 'map'), polygon=message.polygon))
    empty.wait_until(lambda: "it is in the frame 'map', expected pixels" in empty.output,
                     'a warning')
    assert seen(show(empty)) == [1]


def calibration(frame_id: str = 'camera_optical') -> Any:
    """Camera of 128 x 96 pixels whose lens bends towards the middle."""
    from sensor_msgs.msg import CameraInfo
    return CameraInfo(
        header=convert.make_header(1, frame_id), height=96, width=128,
        distortion_model='plumb_bob', d=[-0.2, 0.0, 0.0, 0.0, 0.0],
        k=[100.0, 0.0, 64.0, 0.0, 100.0, 48.0, 0.0, 0.0, 1.0],
        p=[90.0, 0.0, 64.0, 0.0, 0.0, 90.0, 48.0, 0.0, 0.0, 0.0, 1.0, 0.0])


def test_a_published_point_of_space_is_the_pixel_that_shows_it(empty: Robot) -> None:
    from geometry_msgs.msg import Point, PointStamped
    from sensor_msgs.msg import CameraInfo
    header = empty.send_image(picture())
    empty.answer(header)
    add(empty, box=BOX)
    show(empty)
    clicks = empty.publisher('clicks', PointStamped, '/tracker/input/click')
    # Worked by hand: (-0.5, -0.3) on the plane z = 1, of which the lens leaves 1 - 0.2 * 0.34.
    point = PointStamped(header=convert.make_header(5, 'camera_optical'),
                         point=Point(x=-1.0, y=-0.6, z=2.0))
    clicks.publish(point)
    empty.wait_until(lambda: 'no CameraInfo came on /tracker/input/camera_info' in empty.output,
                     'a warning')
    calibrations = empty.node.create_publisher(CameraInfo, '/tracker/input/camera_info', 10)
    empty.node.create_timer(0.05, lambda: calibrations.publish(calibration()))
    clicks.publish(point)
    empty.wait_until(lambda: 'which is the pixel (17.9, 20.5): object 1 is tracked already'
                     in empty.output, 'an answer to the click')
    assert empty.set_parameter('prompts.rectified', value=True)[0]
    # Without the lens and with the other matrix: 64 - 0.5 * 90, 48 - 0.3 * 90.
    clicks.publish(point)
    empty.wait_until(lambda: 'which is the pixel (19.5, 21.5): object 1 is tracked already'
                     in empty.output, 'an answer to the click')
    for wrong, text in (((0.0, 0.0, -1.0), 'it is behind the camera'),
                        ((9.0, 0.0, 1.0), 'is outside the image'),
                        ((float('nan'), 0.0, 1.0), 'it is not finite')):
        x, y, z = wrong
        clicks.publish(PointStamped(header=point.header, point=Point(x=x, y=y, z=z)))
        empty.wait_until(lambda text=text: text in empty.output, 'a warning')
    assert seen(show(empty)) == [1]


def test_a_flood_of_points_without_a_calibration_is_survived(empty: Robot) -> None:
    from geometry_msgs.msg import Point, PointStamped
    clicks = empty.publisher('clicks', PointStamped, '/tracker/input/click')
    show(empty)
    for index in range(200):
        clicks.publish(PointStamped(header=convert.make_header(1, 'camera_optical'),
                                    point=Point(x=float(index), y=1e300, z=1e-300)))
        empty.spin(0.002)
    empty.wait_until(lambda: '8 points of space wait for the calibration already'
                     in empty.output, 'a warning')
    assert seen(show(empty)) == []
    empty.wait_until(lambda: 'no CameraInfo came' in empty.output, 'the end of the wait')
    assert seen(show(empty)) == []
    assert 'Traceback' not in empty.output


def test_a_point_in_another_frame_without_tf2_says_what_to_install(empty: Robot) -> None:
    import importlib.util

    from geometry_msgs.msg import Point, PointStamped
    from sensor_msgs.msg import CameraInfo
    if importlib.util.find_spec('tf2_ros') is not None:
        pytest.skip('tf2_ros is installed')
    clicks = empty.publisher('clicks', PointStamped, '/tracker/input/click')
    calibrations = empty.node.create_publisher(CameraInfo, '/tracker/input/camera_info', 10)
    empty.node.create_timer(0.05, lambda: calibrations.publish(calibration()))
    show(empty)
    clicks.publish(PointStamped(
        header=convert.make_header(1, 'map'), point=Point(x=1.0, y=2.0, z=3.0)))
    empty.wait_until(lambda: 'points of another frame need tf2_ros' in empty.output, 'a warning')
    assert 'Traceback' not in empty.output
    assert seen(show(empty)) == []


def test_a_point_in_another_frame_goes_through_tf(empty: Robot) -> None:
    tf2_ros: Any = pytest.importorskip('tf2_ros', reason='tf2_ros is not installed')
    from geometry_msgs.msg import Point, PointStamped, Transform, TransformStamped, Vector3
    from sensor_msgs.msg import CameraInfo
    clicks = empty.publisher('clicks', PointStamped, '/tracker/input/click')
    calibrations = empty.node.create_publisher(CameraInfo, '/tracker/input/camera_info', 10)
    empty.node.create_timer(0.05, lambda: calibrations.publish(calibration()))
    show(empty)
    add(empty, box=BOX)
    show(empty)
    lost = PointStamped(header=convert.make_header(1, 'mars'), point=Point(z=3.0))
    clicks.publish(lost)
    empty.wait_until(lambda: "no transform from the frame 'mars' to 'camera_optical'"
                     in empty.output, 'a warning')
    # The camera stands 1 m ahead of the map's origin, half a turn about its own axis.
    turned = Transform(translation=Vector3(x=1.0))
    turned.rotation.z, turned.rotation.w = 1.0, 0.0
    tf2_ros.StaticTransformBroadcaster(empty.node).sendTransform(TransformStamped(
        header=convert.make_header(1, 'map'), child_frame_id='camera_optical',
        transform=turned))
    clicks.publish(PointStamped(header=convert.make_header(1, 'map'),
                                point=Point(x=2.0, y=0.6, z=2.0)))
    empty.wait_until(lambda: 'which is the pixel (17.9, 20.5): object 1 is tracked already'
                     in empty.output, 'an answer to the click')


def test_a_prompt_goes_to_the_image_with_its_stamp(empty: Robot) -> None:
    first = empty.send_image(picture(10))
    empty.answer(first)
    for step in range(1, 4):
        show(empty, 10 + 12 * step)
    answer = add(empty, box=BOX, stamp=first.stamp)
    assert (answer.success, answer.message) == (True, 'object 1 is tracked from now on')
    other = add(empty, box=[60.0, 50.0, 100.0, 90.0],
                stamp=convert.ns_to_stamp(convert.stamp_to_ns(first.stamp) - 5))
    assert other.success
    assert 'the newest one was taken' in other.message


@pytest.mark.parametrize(('fields', 'text'), [
    ({}, 'nothing was given'),
    ({'box': [1.0, 2.0]}, 'has 2 numbers'),
    ({'box': [float('nan')] * 4}, 'finite'),
    ({'box': [-9.0, -9.0, -1.0, -1.0]}, 'inside the image'),
    ({'box': [1e30, 1e30, 2e30, 2e30]}, 'inside the image'),
    ({'box': BOX, 'camera': 'rear'}, "there is no camera 'rear'"),
    ({'box': BOX, 'point_labels': [7]}, 'expected 1'),
])
def test_absurd_prompts_are_refused_with_a_reason(
    prompted: Robot, fields: dict[str, Any], text: str,
) -> None:
    answer = add(prompted, **fields)
    assert not answer.success
    assert text in answer.message
    assert 'Traceback' not in prompted.output


@pytest.fixture(scope='module')
def prompted(running_robot: Robot) -> Robot:
    """Robot whose node has processed an image and has been asked for nothing."""
    running_robot.track([[40.0, 20.0, 60.0, 30.0]])
    return running_robot


def test_absurd_points_and_masks_are_refused_with_a_reason(prompted: Robot) -> None:
    from geometry_msgs.msg import Point
    from sensor_msgs.msg import Image
    wrong: list[tuple[dict[str, Any], str]] = [
        ({'points': [Point(x=-1.0, y=5.0)]}, 'outside the image'),
        ({'points': [Point(x=float('inf'), y=5.0)]}, 'not finite'),
        ({'points': [Point(x=5.0, y=5.0)], 'point_labels': [0]}, 'expected one on it'),
        ({'points': [Point(x=5.0, y=5.0)], 'box': BOX}, 'box and points was given'),
        ({'mask': Image(height=48, width=64, encoding='rgb8')}, 'expected mono8'),
        ({'mask': Image(height=48, width=64, encoding='mono8', step=64)}, ''),
        ({'mask': convert.array_to_image(
            np.ones((9, 9), np.uint8), 'mono8', prompted.header())}, 'mask is 9 x 9'),
        ({'mask': convert.array_to_image(
            np.zeros((48, 64), np.uint8), 'mono8', prompted.header())}, 'mask is empty')]
    for fields, text in wrong:
        answer = add(prompted, **fields)
        assert not answer.success
        assert text in answer.message
    assert 'Traceback' not in prompted.output


def test_prompts_before_the_first_image_and_on_a_closed_node_are_answered(robot: Robot) -> None:
    robot.start('autostart:=false', wait=False)
    for state, reason in (('', 'the node is not active'), ('configure', 'the node is not active'),
                          ('activate', 'no image has been processed yet'),
                          ('deactivate', 'the node is not active'),
                          ('cleanup', 'the node is not active')):
        assert not state or robot.lifecycle(state)
        answer = add(robot, box=BOX)
        assert not answer.success
        assert reason in answer.message
    for answer in (remove(robot, 1), objects(robot)):
        assert not answer.success
        assert 'no model is loaded' in answer.message


def test_images_go_on_while_the_model_is_busy_with_a_prompt(robot: Robot) -> None:
    from masa_ros.srv import ListObjects
    robot.start('policy:=latest', PROPOSES='1', SLOW_S='0.5')
    robot.listen_tracks()
    robot.listen_diagnostics()
    robot.answer(robot.send_image(picture()))
    robot.send_image(picture())
    client = robot.node.create_client(ListObjects, '/tracker/list_objects')
    robot.wait_until(client.service_is_ready, 'the service')
    future = client.call_async(ListObjects.Request())
    robot.wait_until(future.done, 'an answer')
    assert future.result().success
    robot.answer(robot.send_image(picture()))


def test_classes_cannot_be_set_without_a_detector(prompted: Robot) -> None:
    from masa_ros.srv import SetClasses, SetText
    answer = prompted.call(SetText, '/tracker/set_text', SetText.Request(text='car . bus'))
    assert not answer.success
    assert 'no detector runs in this process' in answer.message
    answer = prompted.call(SetText, '/tracker/set_text', SetText.Request(text=' . '))
    assert not answer.success
    assert 'names no class' in answer.message
    answer = prompted.call(
        SetClasses, '/tracker/set_classes', SetClasses.Request(classes=['car']))
    assert not answer.success


def test_a_text_changes_what_is_found_in_the_very_next_image(robot: Robot) -> None:
    from masa_ros.srv import SetClasses, SetText
    robot.start('policy:=every', 'tracker.label_memory:=0.0', DETECTS='1')
    robot.listen_tracks()

    def found() -> list[str]:
        message = robot.answer(robot.send_image(picture()))
        return [entry.label for entry in message.objects
                if entry.state <= entry.STATE_TRACKED]
    assert found() == []
    answer = robot.call(SetText, '/tracker/set_text', SetText.Request(text='car . traffic cone'))
    assert answer.success
    assert list(answer.classes) == ['car', 'traffic cone']
    assert found() == ['car', 'traffic cone']
    answer = robot.call(SetClasses, '/tracker/set_classes', SetClasses.Request(classes=['dog']))
    assert (answer.success, list(answer.classes)) == (True, ['dog'])
    assert found() == ['dog']
    # Another setting must not bring the classes of the start back.
    assert robot.set_parameter('tracker.match_threshold', 0.55)[0]
    assert found() == ['dog']
    refused = robot.call(SetText, '/tracker/set_text', SetText.Request(text='nonsense'))
    assert not refused.success
    assert 'the classes stay: expected classes that are no nonsense' in refused.message
    assert found() == ['dog']
    many = [f'class {number}' for number in range(200)]
    answer = robot.call(SetClasses, '/tracker/set_classes', SetClasses.Request(classes=many))
    assert list(answer.classes) == many
    assert found() == many[:4]


def test_prompts_of_several_cameras_name_theirs(robot: Robot) -> None:
    from masa_ros.msg import TrackedObjectArray
    from sensor_msgs.msg import Image
    robot.start("cameras:=['front','left']", 'policy:=every', 'detections.missing:=empty',
                'detections.wait_s:=0.0')
    robot.listen('left', TrackedObjectArray, '/tracker/left/output/tracks', 100)
    images = robot.publisher('left', Image, '/tracker/left/input/image')

    def send() -> None:
        images.publish(convert.array_to_image(picture(), 'rgb8', robot.tick()))
        count = len(robot.received['left'])
        robot.wait_until(lambda: len(robot.received['left']) > count, 'tracks')
    robot.wait_until(
        lambda: robot.node.count_publishers('/tracker/left/output/tracks') == 1, 'the node')
    send()
    nobody = add(robot, box=BOX)
    assert not nobody.success
    assert 'known: front, left' in nobody.message
    assert 'no image' in add(robot, box=BOX, camera='front').message
    assert add(robot, box=BOX, camera='left').success
    send()
    assert seen(robot.received['left'][-1]) == [1]
    assert len(objects(robot, camera='left').objects) == 1
    assert len(objects(robot, camera='front').objects) == 0
