"""Fixtures and markers for the whole suite."""

from __future__ import annotations

from importlib.util import find_spec
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _ros_missing() -> str:
    """Why ROS tests cannot run here; empty where they can."""
    if find_spec('rclpy') is None:
        return 'rclpy is not installed: source ROS 2 or run make setup'
    if find_spec('masa_ros.msg') is None:
        return 'masa_ros.msg is not built: run through make test, or colcon build and source it'
    return ''


def _gpu_missing() -> str:
    """Why GPU tests cannot run here; empty where they can."""
    import torch
    return '' if torch.cuda.is_available() else 'no CUDA device on this machine'


def _shared_folder() -> Path:
    return Path(os.environ.get('MASA_ROS_SHARED', ROOT.parent / 'shared'))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with its reason, what this machine cannot run."""
    slow = '' if os.environ.get('MASA_ROS_SLOW') else 'slow; set MASA_ROS_SLOW=1 to run it'
    data = '' if _shared_folder().is_dir() else f'no reference data at {_shared_folder()}'
    ros = _ros_missing()
    gpu: str | None = None
    for item in items:
        if item.get_closest_marker('slow') and slow:
            item.add_marker(pytest.mark.skip(reason=slow))
        if item.get_closest_marker('data') and data:
            item.add_marker(pytest.mark.skip(reason=data))
        if item.get_closest_marker('ros') and ros:
            item.add_marker(pytest.mark.skip(reason=ros))
        if item.get_closest_marker('gpu'):
            gpu = _gpu_missing() if gpu is None else gpu
            if gpu:
                item.add_marker(pytest.mark.skip(reason=gpu))


@pytest.fixture(scope='session')
def shared() -> Path:
    """Folder of reference data beside the checkout (or MASA_ROS_SHARED)."""
    folder = _shared_folder()
    if not folder.is_dir():
        pytest.skip(f'no reference data at {folder}')
    return folder


@pytest.fixture(scope='session')
def golden(shared: Path) -> Path:
    """Folder of the reference implementation's outputs."""
    return shared / 'golden'


@pytest.fixture(scope='session')
def root() -> Path:
    """Folder of the checkout."""
    return ROOT
