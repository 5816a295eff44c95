"""Naming models and converting messages needs no torch, which takes seconds to import."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize('module', [
    'masa_ros', 'masa_ros.models', 'masa_ros.models.variants', 'masa_ros.models.weights',
    'masa_ros.cli.main', 'masa_ros.cli.weights', 'masa_ros.tracking', 'masa_ros.pipeline',
    pytest.param('masa_ros.ros.convert', marks=pytest.mark.ros)])
def test_module_imports_no_torch(module: str) -> None:
    output = subprocess.run(
        [sys.executable, '-c', f'import sys, {module}; print("torch" in sys.modules)'],
        capture_output=True, text=True, check=True)
    assert output.stdout.strip() == 'False'
