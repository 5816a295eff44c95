from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from masa_ros.structures.instances import Instances
from masa_ros.structures.masks import encode_plane
from masa_ros.training.proposals import (
    clean_mask,
    filter_proposals,
    NamedImage,
    ProposalConfig,
    read_proposals,
    ShardReport,
    write_proposals,
)
import numpy as np
from numpy.typing import NDArray
import pytest

CONFIG = ProposalConfig(shard_images=2, least_region_px=4)


def images() -> Iterator[NamedImage]:
    for number in range(5):
        picture = np.full((40, 60, 3), 40 * number, np.uint8)
        broken = number == 3
        yield NamedImage(f'{number}.jpg', None if broken else picture, 'damaged' if broken else '')


class Teacher:
    """Marks the same square everywhere and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, image: NDArray[np.uint8], full_size: tuple[int, int]) -> Instances:
        self.calls += 1
        mask = np.zeros(image.shape[:2], bool)
        mask[5:20, 10:30] = True
        found = Instances.from_boxes([[0, 0, 60, 40], [2, 2, 9, 9]], [0.9, 0.5])
        return found.with_fields(masks=(encode_plane(mask), None))


def make(
    folder: Path, teacher: Teacher, rank: int = 0, world: int = 1, seen: list[int] | None = None,
) -> list[ShardReport]:
    progress = None if seen is None else seen.append
    return list(write_proposals(folder, images(), teacher, CONFIG, rank, world, progress))


def test_what_is_proposed_is_read_back(tmp_path: Path) -> None:
    reports = make(tmp_path, Teacher())
    assert [report.images for report in reports] == [2, 1, 1]
    assert reports[1].skipped == {'3.jpg': 'damaged'}
    items = list(read_proposals(tmp_path, 'mine'))
    assert [item.name for item in items] == [f'mine/{i}.jpg' for i in (0, 1, 2, 4)]
    # The box follows the mask.
    np.testing.assert_array_equal(items[0].boxes, [[10, 5, 30, 20], [2, 2, 9, 9]])
    assert items[0].masks[0] is not None
    assert items[0].masks[0].area == 15 * 20
    assert items[0].masks[1] is None
    assert abs(int(items[2].image[0, 0, 0]) - 80) <= 1


def test_finished_shards_are_kept_and_damaged_ones_made_again(tmp_path: Path) -> None:
    make(tmp_path, Teacher())
    shard = tmp_path / 'shard-00001.tar'
    good = shard.read_bytes()
    shard.write_bytes(good[:-50] + b'\0' * 50 + b'x')
    again = Teacher()
    reports = make(tmp_path, again)
    assert [report.reused for report in reports] == [True, False, True]
    assert again.calls == 1
    assert shard.read_bytes() == good


def test_processes_share_the_shards(tmp_path: Path) -> None:
    first, second = Teacher(), Teacher()
    assert [r.number for r in make(tmp_path, first, rank=0, world=2)] == [0, 2]
    assert [r.number for r in make(tmp_path, second, rank=1, world=2)] == [1]
    assert (first.calls, second.calls) == (3, 1)
    assert len(list(read_proposals(tmp_path))) == 4


def test_progress_counts_every_image_also_those_that_were_done(tmp_path: Path) -> None:
    first: list[int] = []
    again: list[int] = []
    make(tmp_path, Teacher(), seen=first)
    make(tmp_path, Teacher(), seen=again)
    assert first == [1] * 5
    assert again == [2, 2, 1]


def test_images_are_read_when_their_turn_comes_and_not_again(tmp_path: Path) -> None:
    read: list[str] = []

    def reader(name: str) -> Callable[[], NDArray[np.uint8]]:
        def load() -> NDArray[np.uint8]:
            read.append(name)
            if name == 'b':
                raise ValueError('is damaged')
            return np.zeros((40, 60, 3), np.uint8)
        return load

    items = [NamedImage(name, None, read=reader(name)) for name in 'abc']
    reports = list(write_proposals(tmp_path, items, Teacher(), CONFIG))
    assert reports[0].skipped == {'b': 'is damaged'}
    assert next(iter(write_proposals(tmp_path, items, Teacher(), CONFIG))).reused
    assert read == ['a', 'b', 'c']


def test_labels_go_before_the_teacher_and_stay_as_they_are(tmp_path: Path) -> None:
    twice = Instances.from_boxes([[0, 0, 10, 10], [0, 0, 10, 10]])
    item = NamedImage('a', np.zeros((40, 60, 3), np.uint8), labels=lambda *_: twice)
    teacher = Teacher()
    list(write_proposals(tmp_path, [item], teacher, CONFIG))
    assert teacher.calls == 0
    assert len(next(read_proposals(tmp_path)).boxes) == 2


def test_a_damaged_shard_is_not_read(tmp_path: Path) -> None:
    make(tmp_path, Teacher())
    with (tmp_path / 'shard-00000.tar').open('ab') as shard:
        shard.write(b'more')
    with pytest.raises(ValueError, match='does not match its checksum'):
        list(read_proposals(tmp_path))


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='masa_ros propose'):
        list(read_proposals(tmp_path))


def test_specks_and_pinholes_are_removed() -> None:
    mask = np.zeros((20, 20), bool)
    mask[2:12, 2:12] = True
    mask[5, 5] = False
    mask[16:18, 16] = True
    clean = clean_mask(mask, 4)
    expected = np.zeros((20, 20), bool)
    expected[2:12, 2:12] = True
    np.testing.assert_array_equal(clean, expected)
    lone = np.zeros((5, 5), bool)
    lone[2, 2] = True
    np.testing.assert_array_equal(clean_mask(lone, 4), lone)
    assert not clean_mask(np.zeros((5, 5), bool), 4).any()


def test_poor_and_double_proposals_are_dropped() -> None:
    found = Instances.from_boxes(
        [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.5], [20.0, 20.0, 30.0, 30.0],
         [40.0, 0.0, 50.0, 10.0]],
        [0.9, 0.8, 0.7, 0.6])
    found = found.with_fields(mask_qualities=np.array([0.9, 0.9, 0.5, np.nan], np.float32))
    kept = filter_proposals(found, 50, 50, ProposalConfig(least_quality=0.88))
    np.testing.assert_allclose(kept.scores, [0.9, 0.6])
    assert len(filter_proposals(Instances(), 50, 50, CONFIG)) == 0
