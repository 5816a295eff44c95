"""Videos and image folders as frames, with everything that can be wrong with them."""

from __future__ import annotations

from pathlib import Path
import struct
from typing import Any

import cv2
from masa_ros import sources
from masa_ros.sources import ImageFolder, open_source, read_image
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
import pytest

RED, GREEN = (200, 30, 20), (20, 190, 40)


def picture(color: tuple[int, int, int] = RED, size: tuple[int, int] = (16, 24)) -> Image.Image:
    """Return a flat image of (height, width) with a black top-left quarter."""
    array = np.zeros((*size, 3), np.uint8)
    array[:] = color
    array[:size[0] // 2, :size[1] // 2] = 0
    return Image.fromarray(array)


def make_folder(folder: Path, names: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        picture().save(folder / name)
    return folder


def make_video(path: Path, num_frames: int = 12, code: str = 'mp4v', rate: float = 20) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*code), rate, (64, 48))
    for i in range(num_frames):
        frame = np.full((48, 64, 3), (30, 60, 90), np.uint8)  # BGR
        frame[:, 4 * i:4 * i + 8] = 255
        writer.write(frame)
    writer.release()
    return path


def stamps_ms(source: sources.Source) -> list[float]:
    return [frame.stamp_ns / 1e6 for frame in source]


# --- image folders ------------------------------------------------------------------------------


def test_images_come_in_natural_order_with_stamps_of_the_rate(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / 'walk', ['img10.png', 'img2.png', 'img1.JPG', 'notes.png.bmp'])
    (folder / 'readme.txt').write_text('no image')
    (folder / '._img1.jpg').write_text('left by another system')
    source = open_source(folder, fps=4)
    assert isinstance(source, ImageFolder)
    assert [file.name for file in source.files] == [
        'img1.JPG', 'img2.png', 'img10.png', 'notes.png.bmp']
    assert source.length == 4
    assert source.stream == 'walk'
    assert stamps_ms(source) == [0, 250, 500, 750]
    assert [frame.frame_index for frame in source] == [0, 1, 2, 3]


def test_a_folder_without_a_rate_takes_the_default_and_the_given_name(tmp_path: Path) -> None:
    source = open_source(make_folder(tmp_path, ['a.png', 'b.png']), stream='left')
    assert stamps_ms(source) == [0, 40]
    assert [frame.stream for frame in source] == ['left', 'left']


def test_a_single_image_is_a_recording_of_one_frame(tmp_path: Path) -> None:
    make_folder(tmp_path, ['one.png', 'other.png'])
    source = open_source(tmp_path / 'one.png')
    assert source.length == 1
    assert source.stream == 'one'
    assert len(list(source)) == 1


def test_motchallenge_layout_gives_rate_images_detections_and_truth(tmp_path: Path) -> None:
    root = tmp_path / 'MOT-01'
    make_folder(root / 'frames', ['000001.jpg', '000002.jpg', '000004.jpg'])
    (root / 'seqinfo.ini').write_text(
        '[Sequence]\nname=anything\nimDir=frames\nframeRate=10\nseqLength=4\n')
    for name in ('det/det.txt', 'gt/gt.txt'):
        (root / name).parent.mkdir()
        (root / name).touch()
    for path in (root, root / 'frames'):
        source = open_source(path)
        assert source.stream == 'MOT-01'
        assert source.rate_hz == 10
        assert source.detections_file == root / 'det/det.txt'
        assert source.truth_file == root / 'gt/gt.txt'
        # Image 3 is missing: the number in the name still fits detections and truth.
        assert [frame.frame_index for frame in source] == [0, 1, 3]
        assert stamps_ms(source) == [0, 100, 300]
    assert open_source(root, fps=20).rate_hz == 20


def test_numbers_in_names_mean_nothing_outside_motchallenge_folders(tmp_path: Path) -> None:
    source = open_source(make_folder(tmp_path, ['00000.png', '00007.png']))
    assert [frame.frame_index for frame in source] == [0, 1]


def test_a_sequence_folder_without_its_info_file_is_understood(tmp_path: Path) -> None:
    make_folder(tmp_path / 'clip/img1', ['00000.png', '00001.png'])
    make_folder(tmp_path / 'clip/mask', ['00000.png'])
    source = open_source(tmp_path / 'clip')
    assert source.length == 2
    assert source.stream == 'clip'


def test_damaged_images_are_skipped_and_listed_and_later_frames_keep_their_place(
    tmp_path: Path,
) -> None:
    make_folder(tmp_path, [f'{i}.jpg' for i in range(5)])
    whole = (tmp_path / '1.jpg').read_bytes()
    (tmp_path / '1.jpg').write_bytes(whole[:len(whole) * 2 // 3])
    (tmp_path / '2.jpg').write_bytes(b'')
    (tmp_path / '3.jpg').write_text('no image at all')
    source = open_source(tmp_path, fps=10)
    assert [frame.frame_index for frame in source] == [0, 4]
    assert [item.name for item in source.skipped] == ['1.jpg', '2.jpg', '3.jpg']
    assert 'truncated' in source.skipped[0].reason.lower()
    assert stamps_ms(source) == [0, 400]
    assert len(source.skipped) == 3  # Of this iteration, not of both


def test_a_folder_in_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    for name in ('a.png', 'b.png'):
        (tmp_path / name).write_text('no image')
    with pytest.raises(ValueError, match=r'none of the 2 images'):
        list(open_source(tmp_path))


def test_an_empty_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'holds no images .*\.png'):
        open_source(tmp_path)


def test_a_folder_above_the_images_names_the_ones_below(tmp_path: Path) -> None:
    make_folder(tmp_path / 'left', ['a.png'])
    make_folder(tmp_path / 'right', ['a.png'])
    with pytest.raises(ValueError, match='left, right'):
        open_source(tmp_path)


def test_a_bag_folder_is_recognized(tmp_path: Path) -> None:
    (tmp_path / 'metadata.yaml').touch()
    with pytest.raises(ValueError, match='looks like a bag'):
        open_source(tmp_path)


@pytest.mark.parametrize(('text', 'message'), [
    ('[Sequence]\nframeRate=fast\n', "'fast'"),
    ('[Sequence]\nframeRate=0\n', "'0'"),
    ('no section', 'cannot be read'),
    ('[Sequence]\nimDir=gone\nframeRate=10\n', 'is not there'),
])
def test_a_wrong_info_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / 'img1').mkdir()
    (tmp_path / 'seqinfo.ini').write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        open_source(tmp_path)
    assert 'seqinfo.ini' in str(caught.value)


@pytest.mark.parametrize('rate', [0.0, -1.0, float('nan'), float('inf')])
def test_a_rate_that_is_not_positive_is_refused(tmp_path: Path, rate: float) -> None:
    with pytest.raises(ValueError, match='frame rate'):
        open_source(tmp_path, fps=rate)


def test_a_path_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'nowhere.mp4'):
        open_source(tmp_path / 'nowhere.mp4')


# --- kinds of images ----------------------------------------------------------------------------


def corner_and_rest(image: NDArray[np.uint8]) -> tuple[list[int], list[int]]:
    return image[2, 2].tolist(), image[-3, -3].tolist()


@pytest.mark.parametrize(('mode', 'name'), [
    ('RGB', 'a.png'), ('RGBA', 'a.png'), ('P', 'a.png'), ('RGB', 'a.bmp'), ('RGB', 'a.tiff'),
    ('RGB', 'a.ppm'), ('RGBA', 'a.webp'),
])
def test_color_images_of_every_kind_give_the_same_pixels(
    tmp_path: Path, mode: str, name: str,
) -> None:
    colored = picture().quantize(2) if mode == 'P' else picture().convert(mode)
    colored.save(tmp_path / name, lossless=True)  # Means something to WebP only
    image = read_image(tmp_path / name)
    assert image.dtype == np.uint8
    assert image.shape == (16, 24, 3)
    assert corner_and_rest(image) == ([0, 0, 0], list(RED))


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    array = np.full((4, 4, 4), (10, 20, 30, 0), np.uint8)
    Image.fromarray(array).save(tmp_path / 'a.png')
    assert read_image(tmp_path / 'a.png')[0, 0].tolist() == [10, 20, 30]


def test_cmyk_jpegs_get_their_colors(tmp_path: Path) -> None:
    picture(GREEN, (32, 32)).convert('CMYK').save(tmp_path / 'a.jpg', quality=95)
    corner, rest = corner_and_rest(read_image(tmp_path / 'a.jpg'))
    np.testing.assert_allclose(corner, 0, atol=12)
    np.testing.assert_allclose(rest, GREEN, atol=12)


@pytest.mark.parametrize('name', ['a.png', 'a.tif'])
def test_grey_images_of_16_bits_keep_their_upper_byte(tmp_path: Path, name: str) -> None:
    values = np.array([[0, 255, 256, 0x7FFF, 0xFFFF]], np.uint16).repeat(3, axis=0)
    assert cv2.imwrite(str(tmp_path / name), values)
    image = read_image(tmp_path / name)
    assert image[1, :, 0].tolist() == [0, 0, 1, 127, 255]
    assert (image == image[..., :1]).all()


def test_color_images_of_16_bits_keep_their_upper_byte(tmp_path: Path) -> None:
    bgr = np.full((3, 3, 3), (0x0102, 0x8000, 0xFFFF), np.uint16)
    assert cv2.imwrite(str(tmp_path / 'a.png'), bgr)
    assert read_image(tmp_path / 'a.png')[0, 0].tolist() == [255, 128, 1]


def test_grey_images_of_8_bits_get_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(np.array([[7, 200]], np.uint8)).save(tmp_path / 'a.png')
    assert read_image(tmp_path / 'a.png').tolist() == [[[7] * 3, [200] * 3]]


@pytest.mark.parametrize('orientation', range(1, 9))
def test_every_orientation_in_the_metadata_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    array = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    Image.fromarray(array).save(tmp_path / 'a.png', exif=exif)
    with Image.open(tmp_path / 'a.png') as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    image = read_image(tmp_path / 'a.png')
    assert image.shape == ((4, 6, 3) if orientation < 5 else (6, 4, 3))
    np.testing.assert_array_equal(image, expected)


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / 'a.tif')
    with pytest.raises(ValueError, match='floating point'):
        read_image(tmp_path / 'a.tif')


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'a.bmp', 'a.tif', 'a.webp', 'a.ppm'])
def test_damaged_files_of_every_kind_raise_nothing_but_value_error(
    tmp_path: Path, name: str,
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), 6):
            data[place] = rng.integers(0, 256)
        (tmp_path / name).write_bytes(bytes(data[:rng.integers(1, len(data) + 1)]))
        try:
            assert read_image(tmp_path / name).shape[2] == 3
        except ValueError:
            refused += 1
    assert refused > 10


# --- videos -------------------------------------------------------------------------------------


@pytest.mark.parametrize(('name', 'code'), [('a.mp4', 'mp4v'), ('a.avi', 'MJPG')])
def test_every_frame_of_a_video_comes_once_with_its_time(
    tmp_path: Path, name: str, code: str,
) -> None:
    source = open_source(make_video(tmp_path / name, 12, code))
    frames = list(source)
    assert source.length == 12
    assert source.stream == 'a'
    assert [frame.frame_index for frame in frames] == list(range(12))
    np.testing.assert_allclose([frame.stamp_ns for frame in frames],
                               np.arange(12) * 50_000_000, atol=1000)
    assert source.skipped == []
    np.testing.assert_allclose(frames[0].image[20, 60], [90, 60, 30], atol=12)  # RGB
    # The white bar tells which frame this is.
    assert [int(frame.image[24, :, 0].argmax()) // 4 for frame in frames[1:9:7]] == [1, 8]


def test_a_given_rate_replaces_the_times_of_a_video(tmp_path: Path) -> None:
    source = open_source(make_video(tmp_path / 'a.mp4', 3), fps=100)
    assert stamps_ms(source) == [0, 10, 20]


def test_a_video_can_be_read_again_and_left_early(tmp_path: Path) -> None:
    source = open_source(make_video(tmp_path / 'a.mp4'))
    assert next(iter(source)).frame_index == 0
    assert len(list(source)) == len(list(source)) == 12


def test_a_video_that_asks_to_be_turned_is_turned(tmp_path: Path) -> None:
    path = make_video(tmp_path / 'a.mp4', 3)
    data = bytearray(path.read_bytes())
    # ISO 14496-12, track header version 0: the matrix lies 40 bytes behind the box's type.
    place = data.index(b'tkhd') + 4 + 40
    data[place:place + 36] = struct.pack(
        '>9i', 0, 0x10000, 0, -0x10000, 0, 0, 48 << 16, 0, 0x40000000)
    path.write_bytes(data)
    assert next(iter(open_source(path))).image.shape == (64, 48, 3)


def test_a_video_that_is_cut_off_gives_its_frames_and_says_so(tmp_path: Path) -> None:
    path = make_video(tmp_path / 'a.avi', 60, 'MJPG')
    data = path.read_bytes()
    path.write_bytes(data[:len(data) // 2])
    source = open_source(path)
    frames = list(source)
    assert 10 < len(frames) < 40
    assert len(source.skipped) == 1
    assert 'cut off' in source.skipped[0].reason


@pytest.mark.parametrize('content', [b'', b'hello', bytes(5000)])
def test_a_file_that_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / 'a.mp4').write_bytes(content)
    with pytest.raises(ValueError, match='cannot be read as a video'):
        open_source(tmp_path / 'a.mp4')


class FakeCapture:
    """A video with the given times in milliseconds."""

    def __init__(self, times_ms: list[float], rate: float) -> None:
        self.times_ms = times_ms
        self.rate = rate
        self.next = 0

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def get(self, what: int) -> float:
        known = {cv2.CAP_PROP_FPS: self.rate, cv2.CAP_PROP_FRAME_COUNT: len(self.times_ms)}
        return known.get(what, self.times_ms[self.next - 1])

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        self.next += 1
        more = self.next <= len(self.times_ms)
        return more, np.zeros((4, 4, 3), np.uint8) if more else None

    def release(self) -> None:
        pass


@pytest.mark.parametrize(('times_ms', 'rate', 'expected_ms'), [
    ([0, 33, 150, 217], 30, [0, 33, 150, 217]),  # Variable rate, as phones record
    ([0, 0, 0, 0], 20, [0, 50, 100, 150]),  # A raw stream without times
    ([0, 100, 60, 300], 20, [0, 100, 150, 300]),  # Times that go back
    ([-40, 0, 40], 25, [0, 40, 80]),
    ([0, 0, 0], float('nan'), [0, 40, 80]),
])
def test_stamps_are_the_containers_and_always_increase(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, times_ms: list[float], rate: float,
    expected_ms: list[float],
) -> None:
    def fake(*_: Any) -> FakeCapture:
        return FakeCapture(times_ms, rate)
    monkeypatch.setattr(cv2, 'VideoCapture', fake)
    (tmp_path / 'a.mp4').touch()
    found = stamps_ms(open_source(tmp_path / 'a.mp4'))
    np.testing.assert_allclose(found, expected_ms, atol=1e-6)


@pytest.mark.data
def test_a_published_sequence_opens_as_it_is(shared: Path) -> None:
    source = open_source(shared / 'data/sequences/TUD-Campus')
    frame = next(iter(source))
    assert (source.length, source.rate_hz) == (71, 25)
    assert frame.image.shape == (480, 640, 3)
    assert source.detections_file is not None
    assert source.truth_file is not None
