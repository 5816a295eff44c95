"""Videos that are written can be read."""

from __future__ import annotations

from pathlib import Path

from masa_ros.cli.video import VideoWriter
from masa_ros.sources import open_source
import numpy as np
import pytest


def gradient(height: int, width: int, level: int) -> np.ndarray:
    image = np.full((height, width, 3), 60, np.uint8)
    image[:, :, 0] = np.linspace(0, 200, width).astype(np.uint8)
    image[:, :, 2] = level
    return image


def test_frames_come_back_in_order_and_rate(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / 'a', 12.0)
    for index in range(10):
        video.write(gradient(90, 160, 20 * index))
    video.close()
    assert video.path == tmp_path / 'a.webm'
    source = open_source(video.path)
    assert source.rate_hz == pytest.approx(12, rel=0.01)
    frames = list(source)
    assert len(frames) == 10
    for index, frame in enumerate(frames):
        assert frame.image.shape == (90, 160, 3)
        assert float(frame.image[..., 2].mean()) == pytest.approx(20 * index, abs=6)


def test_odd_and_large_and_changing_sizes_fit(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / 'a', 10.0)
    video.write(gradient(301, 2001, 50))
    video.write(gradient(90, 160, 50))
    video.close()
    shapes = [frame.image.shape for frame in open_source(video.path)]
    assert shapes == [(144, 960, 3)] * 2


def test_the_width_can_be_chosen(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / 'a', 10.0, 1280)
    video.write(gradient(301, 2001, 50))
    video.close()
    video.close()
    assert [frame.image.shape for frame in open_source(video.path)] == [(192, 1280, 3)]


def test_nothing_is_said_on_the_screen(
    tmp_path: Path, capfd: pytest.CaptureFixture[str],
) -> None:
    video = VideoWriter(tmp_path / 'a', 10.0)
    video.write(gradient(64, 64, 0))
    video.close()
    captured = capfd.readouterr()
    assert captured.err == ''
    assert captured.out == ''


def test_a_video_without_frames_is_no_file(tmp_path: Path) -> None:
    VideoWriter(tmp_path / 'a', 10.0).close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match='can write no video'):
        VideoWriter(tmp_path / 'no' / 'a', 10.0).write(gradient(64, 64, 0))


def test_a_frame_that_cannot_be_encoded_is_an_error_at_the_end(tmp_path: Path) -> None:
    video = VideoWriter(tmp_path / 'a', 10.0)
    video.write(gradient(64, 64, 0))
    for _ in range(30):
        video.write(np.zeros((64, 64, 2), np.uint8))
    with pytest.raises(OSError, match='is not complete'):
        video.close()
