"""Messages to numpy and back; expected colors are worked by hand or by OpenCV where named."""

from __future__ import annotations

import array
from dataclasses import dataclass, field
from importlib import import_module
import math
from types import SimpleNamespace
from typing import Any, ClassVar

import cv2
from hypothesis import given, settings
from hypothesis import strategies as st
from masa_ros.ros import convert
from masa_ros.structures.instances import Flag, Instances, TrackedInstances, TrackState
from masa_ros.structures.masks import encode_crop, encode_plane, RoiMask
import numpy as np
from numpy.typing import NDArray
import pytest


@dataclass
class PlainImage:
    """Has the fields of sensor_msgs/Image; reading must not need more."""

    height: int
    width: int
    encoding: str
    step: int
    data: Any
    is_bigendian: int = 0
    header: Any = field(default_factory=lambda: SimpleNamespace(frame_id='camera'))


def plain_image(pixels: NDArray[Any], encoding: str, padding: int = 0, big: bool = False,
                rows_of_data: int | None = None) -> PlainImage:
    """Message of packed pixels, with padded rows when asked."""
    stored = pixels.astype(pixels.dtype.newbyteorder('>' if big else '<'))
    rows = stored.reshape(pixels.shape[0], -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    height = pixels.shape[0] if rows_of_data is None else rows_of_data
    return PlainImage(height, pixels.shape[1], encoding, padded.shape[1],
                      array.array('B', padded.tobytes()), int(big))


@pytest.fixture
def rgb() -> NDArray[np.uint8]:
    """Small picture with smooth colors and even sides."""
    y, x = np.mgrid[0:12, 0:16]
    return np.stack([x * 15, y * 20, 255 - x * 7 - y * 9], axis=-1).astype(np.uint8)


# --- raw images ------------------------------------------


def test_rgb8_without_padding_is_a_view_of_the_message(rgb: NDArray[np.uint8]) -> None:
    message = plain_image(rgb, 'rgb8')
    read = convert.image_to_rgb(message)
    np.testing.assert_array_equal(read, rgb)
    assert np.shares_memory(read, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize('padding', [0, 5])
@pytest.mark.parametrize(('encoding', 'order'), [
    ('rgb8', [0, 1, 2]), ('bgr8', [2, 1, 0]), ('8UC3', [2, 1, 0]),
    ('rgba8', [0, 1, 2, 0]), ('bgra8', [2, 1, 0, 0]), ('8UC4', [2, 1, 0, 0])])
def test_packed_colors_come_out_as_rgb(
    rgb: NDArray[np.uint8], encoding: str, order: list[int], padding: int,
) -> None:
    read = convert.image_to_rgb(plain_image(rgb[..., order], encoding, padding))
    np.testing.assert_array_equal(read, rgb)
    assert read.flags.c_contiguous


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize(('encoding', 'order'), [
    ('rgb16', [0, 1, 2]), ('bgr16', [2, 1, 0]), ('16UC3', [2, 1, 0]),
    ('rgba16', [0, 1, 2, 0]), ('bgra16', [2, 1, 0, 0])])
def test_sixteen_bit_colors_of_either_byte_order_are_scaled(
    rgb: NDArray[np.uint8], encoding: str, order: list[int], big: bool,
) -> None:
    # 257 * v is the 16-bit number whose share of 65535 is exactly v / 255.
    wide = rgb[..., order].astype(np.uint16) * 257
    read = convert.image_to_rgb(plain_image(wide, encoding, padding=6, big=big))
    np.testing.assert_array_equal(read, rgb)


@pytest.mark.parametrize('encoding', ['mono8', '8UC1'])
def test_grey_gets_three_equal_channels(encoding: str) -> None:
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    read = convert.image_to_rgb(plain_image(grey, encoding, padding=1))
    np.testing.assert_array_equal(read, np.stack([grey] * 3, axis=-1))


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('padding', [0, 3])
def test_mono16_is_scaled_by_its_bit_depth(big: bool, padding: int) -> None:
    # An odd padding leaves rows at odd addresses.
    pixels = np.array([[0, 2048, 4095], [4095 // 3, 65535, 1]], np.uint16)
    message = plain_image(pixels, 'mono16', padding, big)
    np.testing.assert_array_equal(
        convert.image_to_rgb(message)[..., 0], [[0, 8, 16], [5, 255, 0]])
    np.testing.assert_array_equal(
        convert.image_to_rgb(message, bit_depth=12)[..., 1], [[0, 128, 255], [85, 255, 0]])


@pytest.mark.parametrize('depth', [7, 17])
def test_an_impossible_bit_depth_is_refused(depth: int) -> None:
    with pytest.raises(ValueError, match='expected 8 to 16'):
        convert.image_to_rgb(plain_image(np.zeros((2, 2), np.uint16), 'mono16'), depth)


# Position of red, and of blue, in the 2 x 2 cell: what the names of ROS say (rggb: red first).
MOSAICS = {'bayer_rggb': ((0, 0), (1, 1)), 'bayer_bggr': ((1, 1), (0, 0)),
           'bayer_gbrg': ((1, 0), (0, 1)), 'bayer_grbg': ((0, 1), (1, 0))}


@pytest.mark.parametrize('bits', [8, 16])
@pytest.mark.parametrize('name', MOSAICS)
def test_a_mosaic_of_one_color_gives_that_color(name: str, bits: int) -> None:
    red, blue = MOSAICS[name]
    color = np.array([200, 120, 40])
    mosaic = np.full((10, 14), color[1], np.uint16)
    mosaic[red[0]::2, red[1]::2] = color[0]
    mosaic[blue[0]::2, blue[1]::2] = color[2]
    pixels = mosaic.astype(np.uint8) if bits == 8 else mosaic * 257
    read = convert.image_to_rgb(plain_image(pixels, f'{name}{bits}', padding=2, big=bits == 16))
    np.testing.assert_array_equal(read, np.broadcast_to(color, (10, 14, 3)))


# White, black, and a red of BT.601 with video range: Y 81, U 90, V 240.
YUV_COLORS = [((235, 128, 128), (255, 255, 255)), ((16, 128, 128), (0, 0, 0)),
              ((81, 90, 240), (254, 0, 0))]


@pytest.mark.parametrize(('yuv', 'color'), YUV_COLORS)
@pytest.mark.parametrize('encoding', ['yuv422', 'uyvy', 'yuv422_yuy2', 'yuyv'])
def test_yuv422_becomes_rgb(
    encoding: str, yuv: tuple[int, int, int], color: tuple[int, int, int],
) -> None:
    y, u, v = yuv
    cell = [[y, u], [y, v]] if 'yuy' in encoding and encoding != 'yuv422' else [[u, y], [v, y]]
    pixels = np.tile(np.array(cell, np.uint8), (4, 3, 1))
    read = convert.image_to_rgb(plain_image(pixels, encoding, padding=4))
    assert read.shape == (4, 6, 3)
    assert np.abs(read.astype(int) - color).max() <= 1


@pytest.mark.parametrize(('yuv', 'color'), YUV_COLORS)
@pytest.mark.parametrize(('encoding', 'order'), [
    ('nv12', [1, 2]), ('nv21', [2, 1]), ('nv24', [1, 2])])
def test_semi_planar_yuv_becomes_rgb(
    encoding: str, order: list[int], yuv: tuple[int, int, int], color: tuple[int, int, int],
) -> None:
    height, width, step = 4, 6, 8
    luma = np.pad(np.full((height, width), yuv[0], np.uint8), ((0, 0), (0, step - width)))
    pair = np.array(yuv, np.uint8)[order]
    # A pair for every pixel, or for every 2 x 2; a row of pairs as long as a row of Y, or two.
    rows, pairs, row_step = (
        (height, width, 2 * step) if encoding == 'nv24' else (height // 2, width // 2, step))
    chroma = np.pad(np.tile(pair, (rows, pairs)), ((0, 0), (0, row_step - 2 * pairs)))
    read = convert.image_to_rgb(
        PlainImage(height, width, encoding, step, luma.tobytes() + chroma.tobytes()))
    assert read.shape == (height, width, 3)
    assert np.abs(read.astype(int) - color).max() <= 1


def test_nv24_keeps_the_color_of_every_pixel() -> None:
    luma = np.full((2, 2), 81, np.uint8)
    chroma = np.array([[[90, 240], [128, 128]], [[128, 128], [90, 240]]], np.uint8)
    read = convert.image_to_rgb(
        PlainImage(2, 2, 'nv24', 2, luma.tobytes() + chroma.tobytes()))
    reddish = read[..., 0].astype(int) - read[..., 1] > 100
    np.testing.assert_array_equal(reddish, [[True, False], [False, True]])


@pytest.mark.parametrize('kind', [bytes, bytearray, list, np.array])
def test_every_container_of_bytes_is_read(rgb: NDArray[np.uint8], kind: Any) -> None:
    message = plain_image(rgb, 'rgb8', padding=2)
    message.data = kind(message.data)
    np.testing.assert_array_equal(convert.image_to_rgb(message), rgb)


def test_the_last_row_may_come_without_its_padding(rgb: NDArray[np.uint8]) -> None:
    message = plain_image(rgb, 'rgb8', padding=10)
    message.data = message.data[:-10]
    np.testing.assert_array_equal(convert.image_to_rgb(message), rgb)


@pytest.mark.parametrize(('changes', 'text'), [
    ({'encoding': '32FC1'}, "encoding '32FC1' is not one of rgb8"),
    ({'encoding': ''}, 'not one of'),
    ({'height': 0}, 'empty image'),
    ({'width': 0}, 'empty image'),
    ({'height': -3}, 'empty image'),
    ({'step': 47}, 'step is 47 bytes, but a row of 16 rgb8 pixels has 48'),
    ({'step': 49}, 'holds 576 bytes'),
    ({'step': 0}, 'step is 0'),
    ({'height': 13}, 'holds 576 bytes, but 13 rows'),
    ({'height': 11}, 'holds 576 bytes, but 11 rows'),
    ({'data': b''}, 'holds 0 bytes'),
    ({'data': array.array('B')}, 'holds 0 bytes'),
    ({'width': 2**31, 'step': 2**33}, 'holds 576 bytes'),
    ({'width': 1000}, 'step is 48'),
])
def test_an_image_that_does_not_add_up_is_refused(
    rgb: NDArray[np.uint8], changes: dict[str, Any], text: str,
) -> None:
    message = plain_image(rgb, 'rgb8')
    for name, value in changes.items():
        setattr(message, name, value)
    with pytest.raises(ValueError, match=text):
        convert.image_to_rgb(message)


@pytest.mark.parametrize(('encoding', 'height', 'width'), [
    ('yuv422', 2, 3), ('yuyv', 2, 3), ('nv12', 3, 2), ('nv21', 2, 3)])
def test_odd_sides_are_refused_where_pixels_share_color(
    encoding: str, height: int, width: int,
) -> None:
    message = PlainImage(height, width, encoding, 2 * width, bytes(8 * height * width))
    with pytest.raises(ValueError, match='even'):
        convert.image_to_rgb(message)


@settings(max_examples=300, deadline=None)
@given(
    encoding=st.sampled_from([*convert.ENCODINGS, '', 'rgb', '32FC3']),
    height=st.integers(-1, 9), width=st.integers(-1, 9), step=st.integers(0, 80),
    size=st.integers(0, 900), big=st.integers(0, 1))
def test_any_image_is_either_read_in_its_size_or_refused(
    encoding: str, height: int, width: int, step: int, size: int, big: int,
) -> None:
    message = PlainImage(height, width, encoding, step, bytes(size), big)
    try:
        read = convert.image_to_rgb(message)
    except ValueError:
        return
    assert read.shape == (height, width, 3)
    assert read.dtype == np.uint8
    assert read.flags.c_contiguous


# --- compressed images ------------------------------------------


def compressed(pixels: NDArray[Any], kind: str) -> bytes:
    return cv2.imencode(f'.{kind}', pixels)[1].tobytes()


def read_compressed(data: Any, text: str = 'jpeg', bit_depth: int = 16) -> NDArray[np.uint8]:
    return convert.compressed_to_rgb(SimpleNamespace(data=data, format=text), bit_depth)


def test_png_comes_back_exactly(rgb: NDArray[np.uint8]) -> None:
    data = compressed(rgb[..., ::-1], 'png')
    np.testing.assert_array_equal(read_compressed(data, 'rgb8; png compressed bgr8'), rgb)


def test_jpeg_comes_back_nearly() -> None:
    y, x = np.mgrid[0:64, 0:64]
    smooth = np.stack([x * 3, y * 3, 200 - x], axis=-1).astype(np.uint8)
    read = read_compressed(array.array('B', compressed(smooth[..., ::-1], 'jpg')))
    assert np.abs(read.astype(int) - smooth).mean() < 3


@pytest.mark.parametrize('kind', ['png', 'jpg'])
def test_grey_files_get_three_channels(kind: str) -> None:
    grey = np.full((8, 8), 130, np.uint8)
    np.testing.assert_array_equal(read_compressed(compressed(grey, kind)),
                                  np.full((8, 8, 3), 130))


def test_sixteen_bit_png_is_scaled_like_raw_images() -> None:
    pixels = np.array([[0, 65535], [32768, 257]], np.uint16)
    np.testing.assert_array_equal(
        read_compressed(compressed(pixels, 'png'), '16UC1; png compressed')[..., 0],
        [[0, 255], [128, 1]])
    np.testing.assert_array_equal(
        read_compressed(compressed(pixels // 16, 'png'), bit_depth=12)[..., 0],
        [[0, 255], [128, 1]])


def test_transparency_is_dropped(rgb: NDArray[np.uint8]) -> None:
    bgra = np.dstack([rgb[..., ::-1], np.full(rgb.shape[:2], 9, np.uint8)])
    np.testing.assert_array_equal(read_compressed(compressed(bgra, 'png')), rgb)


@pytest.mark.parametrize('kind', ['png', 'jpg'])
@pytest.mark.parametrize('part', [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_file_that_is_cut_off_is_refused_and_not_half_grey(kind: str, part: float) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    data = compressed(noise, kind)
    with pytest.raises(ValueError, match=r'cut off|neither JPEG nor PNG'):
        read_compressed(data[:int(len(data) * part)])


def test_a_thumbnail_inside_does_not_hide_that_a_jpeg_is_cut_off() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (90, 120, 3)).astype(np.uint8)
    data = compressed(noise, 'jpg')
    thumbnail = b'Exif\0\0' + compressed(noise[:8, :8], 'jpg')
    segment = b'\xff\xe1' + (len(thumbnail) + 2).to_bytes(2, 'big') + thumbnail
    whole = data[:2] + segment + data[2:]
    assert read_compressed(whole).shape == (90, 120, 3)
    with pytest.raises(ValueError, match='cut off'):
        read_compressed(whole[:len(whole) // 2])


def test_bytes_after_the_end_of_a_jpeg_are_ignored() -> None:
    data = compressed(np.full((8, 8, 3), 60, np.uint8), 'jpg')
    np.testing.assert_array_equal(read_compressed(data + bytes(500)), read_compressed(data))


def test_a_rotation_in_the_metadata_is_ignored() -> None:
    picture = np.zeros((8, 24, 3), np.uint8)
    data = compressed(picture, 'jpg')
    # A big-endian EXIF block with one entry: orientation 6, a quarter turn.
    exif = (b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0')
    segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
    assert read_compressed(data[:2] + segment + data[2:]).shape == (8, 24, 3)


@pytest.mark.parametrize(('data', 'text', 'error'), [
    (b'', 'jpeg', 'of 0 bytes'), (b'GIF89a' + bytes(50), 'jpeg', 'neither JPEG nor PNG'),
    (bytes(100), '', 'neither'), (b'\xff\xd8\xff', 'jpeg', 'cut off'),
    (b'\xff\xd8\xff\xda\xff\xd9', 'jpeg', 'damaged'),
    (b'\x89PNG\r\n\x1a\n' + bytes(40) + b'IEND\xaeB`\x82', 'png', 'damaged'),
    (b'anything', '16UC1; compressedDepth png', 'depth image')])
def test_what_is_no_picture_is_refused(data: bytes, text: str, error: str) -> None:
    with pytest.raises(ValueError, match=error):
        read_compressed(data, text)


# --- detections ------------------------------------------


def detection(x: float, y: float, width: float, height: float, theta: float = 0.0,
              results: tuple[tuple[str, float], ...] = (('car', 0.9),)) -> Any:
    return SimpleNamespace(
        id='', bbox=SimpleNamespace(
            center=SimpleNamespace(position=SimpleNamespace(x=x, y=y), theta=theta),
            size_x=width, size_y=height),
        results=[SimpleNamespace(hypothesis=SimpleNamespace(class_id=name, score=score))
                 for name, score in results])


def detections(*entries: Any) -> Any:
    return SimpleNamespace(detections=list(entries))


def test_a_detection_box_is_given_by_its_center() -> None:
    read = convert.detections_to_instances(detections(detection(50, 20, 40, 10)))
    np.testing.assert_array_equal(read.boxes, [[30, 15, 70, 25]])
    assert read.labels == ('car',)
    assert read.scores.tolist() == pytest.approx([0.9])
    assert read.flags.tolist() == [Flag.FROM_DETECTION]


@pytest.mark.parametrize(('theta', 'box'), [
    (math.pi / 2, [45, 0, 55, 40]), (math.pi, [30, 15, 70, 25]),
    # A square of side 10 turned by 45 degrees is 10 * sqrt(2) wide.
    (math.pi / 4, [50 - 50 / math.sqrt(8), 20 - 50 / math.sqrt(8),
                   50 + 50 / math.sqrt(8), 20 + 50 / math.sqrt(8)])])
def test_a_turned_box_becomes_the_upright_box_around_it(theta: float, box: list[float]) -> None:
    read = convert.detections_to_instances(detections(detection(50, 20, 40, 10, theta)))
    np.testing.assert_allclose(read.boxes[0], box, atol=1e-4)


def test_no_detections_are_no_instances() -> None:
    read = convert.detections_to_instances(detections())
    assert read.boxes.shape == (0, 4)
    assert len(read) == 0


def test_boxes_that_are_no_numbers_pass_for_the_pipeline_to_count() -> None:
    read = convert.detections_to_instances(detections(
        detection(math.nan, 1, 2, 3), detection(1, 1, math.inf, 3), detection(1, 1, 1e300, 3),
        detection(5, 5, 2, 2)))
    assert np.isfinite(read.boxes).all(axis=1).tolist() == [False, False, False, True]


def test_the_hypothesis_with_the_highest_score_counts() -> None:
    read = convert.detections_to_instances(detections(
        detection(5, 5, 2, 2, results=(('cat', 0.2), ('dog', 0.7), ('cow', math.nan))),
        detection(5, 5, 2, 2, results=())))
    assert read.labels == ('dog', '')
    assert read.scores.tolist() == pytest.approx([0.7, 1.0])
    assert read.class_ids.tolist()[1] == -1


def test_class_texts_may_be_names_or_numbers() -> None:
    table = convert.LabelTable(['person', 'car'])
    assert table.read('car') == (1, 'car')
    assert table.read('1') == (1, 'car')
    assert table.read('7') == (7, '')
    assert table.read('') == (-1, '')
    assert table.read('-3') == (-1, '-3')
    assert table.read('99999999999') == (-1, '99999999999')


def test_unknown_class_names_get_the_next_numbers_and_keep_them() -> None:
    table = convert.LabelTable(['person', 'car'])
    assert [table.read(name)[0] for name in ('dog', 'cat', 'dog', 'car')] == [2, 3, 2, 1]


def test_the_ids_of_detections_are_texts() -> None:
    message = detections(detection(1, 1, 1, 1), detection(1, 1, 1, 1))
    message.detections[1].id = 'a-7'
    assert convert.detection_ids(message) == ('', 'a-7')


# --- tracks ------------------------------------------


def tracked() -> TrackedInstances:
    """Three objects: with a mask that has a hole, without one, and one not seen."""
    ring = np.ones((5, 4), bool)
    ring[2, 1:3] = False
    return TrackedInstances(
        boxes=np.array([[10, 20, 14, 25], [-3.5, 2.25, 6.5, 60], [30, 30, 40, 40]], np.float32),
        scores=np.array([0.5, 0.75, 0.25], np.float32),
        class_ids=np.array([2, -1, 0]), labels=('car', '', 'person'),
        flags=np.array([1, 2 | 4 | 8, 16], np.uint8),
        masks=(encode_crop(ring, 10, 20), None, None),
        mask_qualities=np.array([0.9, np.nan, np.nan], np.float32),
        embeddings=np.arange(9, dtype=np.float32).reshape(3, 3),
        track_ids=np.array([7, 8, 65536]), uuids=(bytes(range(16)), bytes(16), b'\xff' * 16),
        states=np.array([TrackState.TRACKED, TrackState.TENTATIVE, TrackState.LOST], np.uint8),
        first_seen_ns=np.array([1_500_000_000, 3, -1]), last_seen_ns=np.array([2**40, 3, -1]),
        ages=np.array([4, 0, 9]), similarities=np.array([0.8, np.nan, np.nan], np.float32),
        margins=np.array([0.1, np.nan, np.nan], np.float32))


def assert_same_tracks(one: TrackedInstances, other: TrackedInstances) -> None:
    for name in ('boxes', 'scores', 'class_ids', 'flags', 'mask_qualities', 'track_ids',
                 'states', 'first_seen_ns', 'last_seen_ns', 'ages', 'similarities', 'margins'):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
        assert getattr(one, name).dtype == getattr(other, name).dtype
    assert one.labels == other.labels
    assert one.uuids == other.uuids
    for first, second in zip(one.masks, other.masks, strict=True):
        assert (first is None) == (second is None)
        if first is not None and second is not None:
            np.testing.assert_array_equal(first.paste(64, 48), second.paste(64, 48))


INFO = convert.TrackInfo(64, 48, 'front', 12, 3, 1, 'classical@0', {'decode': 0.5, 'track': 2.0})


@pytest.mark.ros
def test_tracks_survive_the_way_through_a_message() -> None:
    tracks = tracked()
    header = convert.make_header(1_234_567_890, 'camera')
    message = convert.tracks_to_message(tracks, header, INFO, embeddings=True)
    read = convert.message_to_tracks(message)
    assert_same_tracks(read, tracks)
    assert read.embeddings is not None
    np.testing.assert_array_equal(read.embeddings, np.arange(9).reshape(3, 3))
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (1, 234_567_890)
    assert (message.height, message.width, message.stream) == (64, 48, 'front')
    assert (message.sequence, message.dropped, message.resets) == (12, 3, 1)
    assert message.stage_names == ['decode', 'track']
    assert list(message.stage_times_ms) == [0.5, 2.0]


@pytest.mark.ros
def test_tracks_survive_serialization() -> None:
    rclpy_serialization = pytest.importorskip('rclpy.serialization')
    message = convert.tracks_to_message(tracked(), convert.make_header(5, 'camera'), INFO)
    data = rclpy_serialization.serialize_message(message)
    read = rclpy_serialization.deserialize_message(data, type(message))
    assert_same_tracks(convert.message_to_tracks(read), tracked())


@pytest.mark.ros
def test_embeddings_stay_home_unless_asked_for() -> None:
    message = convert.tracks_to_message(tracked(), convert.make_header(5, 'camera'), INFO)
    assert [len(entry.embedding) for entry in message.objects] == [0, 0, 0]
    assert convert.message_to_tracks(message).embeddings is None


@pytest.mark.ros
def test_the_region_of_an_object_without_mask_is_its_box_inside_the_image() -> None:
    message = convert.tracks_to_message(tracked(), convert.make_header(5, 'camera'), INFO)
    roi = message.objects[1].roi
    assert (roi.x_offset, roi.y_offset, roi.width, roi.height) == (0, 2, 7, 58)
    assert len(message.objects[1].mask_counts) == 0
    assert convert.decode_mask(message.objects[1]) is None


@pytest.mark.ros
def test_the_runs_are_coco_runs_of_the_region() -> None:
    entry = convert.tracks_to_message(
        tracked(), convert.make_header(5, 'camera'), INFO).objects[0]
    # Columns of the 5 x 4 ring: 5 full, then 2 full 1 hole 2 full twice, then 5 full.
    assert list(entry.mask_counts) == [0, 7, 1, 4, 1, 7]
    roi = entry.roi
    assert (roi.x_offset, roi.y_offset, roi.width, roi.height) == (10, 20, 4, 5)
    mask = convert.decode_mask(entry)
    assert mask is not None
    assert np.argwhere(~mask).tolist() == [[2, 1], [2, 2]]


@pytest.mark.ros
def test_a_mask_that_leaves_the_image_is_cut() -> None:
    mask = encode_crop(np.ones((4, 6), bool), -2, 62)
    tracks = tracked().select([0]).with_fields(masks=(mask,))
    entry = convert.tracks_to_message(tracks, convert.make_header(5, ''), INFO).objects[0]
    assert (entry.roi.x_offset, entry.roi.y_offset) == (0, 62)
    assert (entry.roi.width, entry.roi.height) == (4, 2)
    assert sum(entry.mask_counts) == 8


@pytest.mark.ros
@pytest.mark.parametrize('mask', [
    encode_plane(np.zeros((64, 48), bool)), encode_crop(np.ones((3, 3), bool), 48, 10)])
def test_a_mask_without_pixels_is_no_mask(mask: RoiMask) -> None:
    tracks = tracked().select([0]).with_fields(masks=(mask,))
    entry = convert.tracks_to_message(tracks, convert.make_header(5, ''), INFO).objects[0]
    assert len(entry.mask_counts) == 0
    assert (entry.roi.x_offset, entry.roi.width) == (10, 4)


@pytest.mark.ros
def test_a_box_that_is_no_number_has_no_region() -> None:
    tracks = tracked().select([0]).with_fields(
        boxes=np.full((1, 4), np.nan, np.float32), masks=(None,))
    roi = convert.tracks_to_message(tracks, convert.make_header(5, ''), INFO).objects[0].roi
    assert (roi.width, roi.height) == (0, 0)


@pytest.mark.ros
def test_no_tracks_are_an_empty_message() -> None:
    message = convert.tracks_to_message(
        TrackedInstances(), convert.make_header(5, ''), INFO, embeddings=True)
    assert message.objects == []
    assert len(convert.message_to_tracks(message)) == 0


@pytest.mark.ros
def test_damaged_runs_are_refused() -> None:
    entry = convert.tracks_to_message(
        tracked(), convert.make_header(5, ''), INFO).objects[0]
    entry.mask_counts = array.array('I', [1, 2, 3])
    with pytest.raises(ValueError, match='runs sum to 6'):
        convert.decode_mask(entry)


@pytest.mark.ros
def test_tracks_are_detections_with_their_id_as_text() -> None:
    pytest.importorskip('vision_msgs.msg')
    message = convert.instances_to_detections(tracked(), convert.make_header(9, 'camera'))
    assert convert.detection_ids(message) == ('7', '8')  # the lost one is no observation
    assert message.header.frame_id == message.detections[0].header.frame_id == 'camera'
    assert message.detections[0].results[0].hypothesis.class_id == 'car'
    read = convert.detections_to_instances(message)
    np.testing.assert_allclose(read.boxes, tracked().boxes[:2])
    assert read.scores.tolist() == [0.5, 0.75]


@pytest.mark.ros
def test_detections_survive_the_way_through_a_message() -> None:
    pytest.importorskip('vision_msgs.msg')
    boxes = np.array([[1, 2, 3.5, 9], [0, 0, 1, 1]])
    instances = Instances.from_boxes(boxes, [0.5, 1], [4, -1])
    message = convert.instances_to_detections(instances, convert.make_header(9, 'camera'))
    read = convert.detections_to_instances(message)
    np.testing.assert_array_equal(read.boxes, instances.boxes)
    assert read.class_ids.tolist() == [4, -1]


@pytest.mark.ros
def test_the_label_image_shows_ids_and_the_better_object_on_top() -> None:
    full = encode_crop(np.ones((4, 4), bool), 0, 0)
    part = encode_crop(np.ones((2, 2), bool), 1, 1)
    tracks = tracked().select([1, 0, 2]).with_fields(
        masks=(part, full, full), scores=np.array([0.9, 0.5, 1], np.float32))
    message = convert.tracks_to_label_image(tracks, convert.make_header(9, 'camera'), 6, 5)
    assert (message.encoding, message.height, message.width, message.step) == ('mono16', 6, 5, 10)
    pixels = np.frombuffer(message.data, np.uint16).reshape(6, 5)
    np.testing.assert_array_equal(np.unique(pixels), [0, 7, 8])
    assert (pixels == 8).sum() == 4
    assert pixels[0, 0] == 7


@pytest.mark.parametrize(('track_id', 'value'), [(1, 1), (65535, 65535), (65536, 1)])
def test_ids_wrap_in_the_label_image_without_becoming_background(
    track_id: int, value: int,
) -> None:
    assert convert.label_value(track_id) == value


# --- writing images, time ------------------------------------------


@pytest.mark.ros
@pytest.mark.parametrize('encoding', ['rgb8', 'bgr8', 'rgba8', 'mono8', 'mono16', 'bayer_rggb8'])
def test_a_written_image_reads_back(encoding: str) -> None:
    channels = {'rgb8': 3, 'bgr8': 3, 'rgba8': 4}.get(encoding, 1)
    kind = np.uint16 if encoding == 'mono16' else np.uint8
    shape = (6, 8) if channels == 1 else (6, 8, channels)
    pixels = np.random.default_rng(0).integers(0, 255, shape).astype(kind)
    message = convert.array_to_image(pixels, encoding, convert.make_header(1, 'camera'))
    np.testing.assert_array_equal(
        convert.image_to_rgb(message), convert.image_to_rgb(plain_image(pixels, encoding)))


@pytest.mark.parametrize(('pixels', 'encoding', 'text'), [
    (np.zeros((4, 4), np.uint8), 'rgb8', 'rgb8 needs'),
    (np.zeros((4, 4, 3), np.uint8), 'mono8', 'mono8 needs'),
    (np.zeros((4, 4), np.uint8), 'mono16', 'uint16'),
    (np.zeros((4, 4), np.float32), 'mono8', 'float32'),
    (np.zeros((4, 4), np.uint8), 'nv12', 'cannot write'),
    (np.zeros((4, 4), np.uint8), 'jpeg', 'cannot write')])
def test_pixels_that_do_not_fit_the_encoding_are_not_written(
    pixels: NDArray[Any], encoding: str, text: str,
) -> None:
    with pytest.raises(ValueError, match=text):
        convert.array_to_image(pixels, encoding, None)


@pytest.mark.ros
@pytest.mark.parametrize('kind', ['jpeg', 'png'])
def test_a_written_compressed_image_reads_back(kind: str) -> None:
    pixels = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    message = convert.rgb_to_compressed(pixels, convert.make_header(1, 'camera'), kind)
    assert np.abs(convert.compressed_to_rgb(message).astype(int) - pixels).max() <= 2


def test_an_unknown_compression_is_refused() -> None:
    with pytest.raises(ValueError, match='expected jpeg or png'):
        convert.rgb_to_compressed(np.zeros((2, 2, 3), np.uint8), None, 'gif')


@pytest.mark.ros
@pytest.mark.parametrize('stamp_ns', [0, 1, 999_999_999, 1_700_000_000_123_456_789, -1,
                                      -1_500_000_000])
def test_stamps_survive(stamp_ns: int) -> None:
    stamp = convert.ns_to_stamp(stamp_ns)
    assert 0 <= stamp.nanosec < 1_000_000_000
    assert convert.stamp_to_ns(stamp) == stamp_ns


def test_a_stamp_beyond_32_bit_seconds_is_refused() -> None:
    with pytest.raises(ValueError, match='32 bits'):
        convert.ns_to_stamp(2**31 * 1_000_000_000)


# --- cv_bridge ------------------------------------------


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let a module take the place of cv_bridge."""
    def install(module: Any) -> None:
        monkeypatch.setattr(
            'masa_ros.ros.convert.import_module',
            lambda name: module() if name == 'cv_bridge' else import_module(name))
        convert.cv_bridge.cache_clear()
    yield install
    convert.cv_bridge.cache_clear()


@pytest.mark.ros
def test_a_broken_cv_bridge_is_told_once_and_passed_over(bridge: Any) -> None:
    def broken() -> Any:
        raise AttributeError('_ARRAY_API not found')
    bridge(broken)
    assert convert.cv_bridge() == (
        None, 'cv_bridge does not work here (AttributeError: _ARRAY_API not found)')
    grey = np.array([[0, 65535]], np.uint16)
    assert convert.image_to_rgb(plain_image(grey, 'mono16'))[..., 0].tolist() == [[0, 255]]


class GoodBridge:
    """Converts bgr8 only, and remembers what it was asked."""

    asked: ClassVar[list[int]] = []

    def imgmsg_to_cv2(self, message: Any, encoding: str) -> NDArray[np.uint8]:
        self.asked.append(message.step)
        pixels = np.frombuffer(message.data, np.uint8)
        return pixels.reshape(message.height, message.width, 3)[..., ::-1]


@pytest.mark.ros
def test_a_working_cv_bridge_is_used_where_it_can_be_trusted(
    bridge: Any, rgb: NDArray[np.uint8],
) -> None:
    GoodBridge.asked.clear()
    bridge(lambda: SimpleNamespace(CvBridge=GoodBridge))
    for padding in (0, 4):  # rows with padding are ours
        read = convert.image_to_rgb(plain_image(rgb[..., ::-1], 'bgr8', padding))
        np.testing.assert_array_equal(read, rgb)
        assert read.flags.c_contiguous
    wide = np.full((2, 2), 257, np.uint16)
    assert convert.image_to_rgb(plain_image(wide, 'mono16', big=True)).max() == 1
    assert GoodBridge.asked == [6, 48]  # the probe, and the picture without padding
    # It cannot do this one: ours takes over.
    assert convert.image_to_rgb(plain_image(wide, 'mono16')).max() == 1


@pytest.mark.ros
def test_a_cv_bridge_that_converts_wrongly_is_passed_over(bridge: Any) -> None:
    class WrongBridge:
        def imgmsg_to_cv2(self, message: Any, encoding: str) -> NDArray[np.uint8]:
            return np.zeros((1, 2, 3), np.uint8)
    bridge(lambda: SimpleNamespace(CvBridge=WrongBridge))
    assert convert.cv_bridge() == (None, 'cv_bridge converts colors wrongly')
