"""Shared memory and allocator: set unless the user has chosen."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys
import xml.etree.ElementTree

from masa_ros.ros import transport
import pytest

NAMES = ('FASTDDS_DEFAULT_PROFILES_FILE', 'FASTRTPS_DEFAULT_PROFILES_FILE',
         'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_', 'ROS_DISTRO')


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, '')
        monkeypatch.delenv(name)


def test_the_profile_is_found_in_a_checkout(
    monkeypatch: pytest.MonkeyPatch, root: Path,
) -> None:
    monkeypatch.setenv('AMENT_PREFIX_PATH', '')
    monkeypatch.setattr(sys, 'prefix', '/nowhere')
    assert transport.profile_path() == root / 'config' / 'fastdds.xml'


def test_an_installed_profile_goes_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:
    installed = tmp_path / 'share' / 'masa_ros' / 'config' / 'fastdds.xml'
    installed.parent.mkdir(parents=True)
    installed.write_text('<profiles/>')
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    assert transport.profile_path() == installed


def test_the_segment_holds_the_largest_message(root: Path) -> None:
    tree = xml.etree.ElementTree.parse(root / 'config' / 'fastdds.xml')
    values = {element.tag.rpartition('}')[2]: element.text for element in tree.iter()}
    segment, message = int(values['segment_size'] or 0), int(values['maxMessageSize'] or 0)
    # Fast DDS refuses a smaller segment; a 1080p image has to fit several times.
    assert segment >= message >= 1920 * 1080 * 4
    assert segment >= 16 * 2**20


def test_variables_for_other_processes_leave_alone_what_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert set(transport.environment()) == {
        'FASTDDS_DEFAULT_PROFILES_FILE', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_'}
    monkeypatch.setenv('FASTDDS_DEFAULT_PROFILES_FILE', '/mine.xml')
    monkeypatch.setenv('MALLOC_MMAP_THRESHOLD_', '1')
    assert set(transport.environment()) == {'MALLOC_TRIM_THRESHOLD_'}
    assert transport.prepare_transport() == 'Fast DDS profile given: /mine.xml'


def test_humble_gets_the_name_that_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    assert 'FASTRTPS_DEFAULT_PROFILES_FILE' in transport.environment()


def test_freed_image_buffers_stay_in_the_process() -> None:
    # In a process of its own, as the setting lasts. Four buffers of 6 MB have 5900 pages; freed
    # and taken again they must not be faulted in anew (58,000 faults without the setting).
    code = """
import resource, sys
from masa_ros.ros.transport import keep_freed_memory
if not keep_freed_memory():
    print('unsupported'); sys.exit()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    [bytearray(6_000_000) for _ in range(4)]
before = faults()
for _ in range(10):
    [bytearray(6_000_000) for _ in range(4)]
print(faults() - before)
"""
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            check=True).stdout.strip()
    if output == 'unsupported':
        pytest.skip('not the GNU C library')
    assert int(output) < 1500
