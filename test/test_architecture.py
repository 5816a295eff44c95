"""Which part may import which: the table of docs/development.md, held by a test."""

from __future__ import annotations

import ast
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / 'masa_ros'

ALLOWED: dict[str, set[str]] = {
    'structures': set(),
    'models': {'structures'},
    'tracking': {'structures'},
    'evaluation': {'structures'},
    'rendering': {'structures'},
    'sources': {'structures'},
    'visualization': {'structures'},
    'detectors': {'models', 'structures'},
    'training': {'models', 'structures', 'rendering', 'sources', 'tracking'},
    'regions': {'structures'},
    'prompts': {'models', 'regions', 'structures', 'tracking'},
    'pipeline': {'detectors', 'models', 'prompts', 'tracking', 'structures', 'regions'},
    'ros': {'pipeline', 'prompts', 'regions', 'detectors', 'models', 'tracking', 'visualization',
            'structures'},
}
ROS_PACKAGES = {
    'yolo_msgs', 'autoware_perception_msgs', 'tier4_perception_msgs',
    'rclpy', 'sensor_msgs', 'std_msgs', 'std_srvs', 'vision_msgs', 'diagnostic_msgs',
    'visualization_msgs', 'geometry_msgs', 'builtin_interfaces', 'lifecycle_msgs', 'cv_bridge',
    'message_filters', 'rcl_interfaces', 'unique_identifier_msgs', 'ament_index_python', 'launch',
    'launch_ros', 'rosbags', 'nav_msgs', 'tf2_msgs',
}
NEVER_WITHOUT_MODELS = ('structures', 'tracking', 'ros', 'sources', 'visualization')
MODULES = sorted(path for path in PACKAGE.rglob('*.py') if '__pycache__' not in path.parts)


def part_of(path: Path) -> str:
    """Name of the part a file belongs to: its folder, or its own name at the top."""
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


def imports_of(path: Path) -> set[str]:
    """Full names of all modules a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.update(f'{node.module}.{alias.name}' for alias in node.names)
    return names


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_parts_import_only_what_the_table_allows(path: Path) -> None:
    part = part_of(path)
    if part in {'__init__', '__main__', 'cli'}:
        return
    assert part in ALLOWED, f'{path} belongs to no known part; add {part!r} to the table'
    used = {name.split('.')[1] for name in imports_of(path) if name.startswith('masa_ros.')}
    generated = {'msg', 'srv'} if part == 'ros' else set()
    assert used - {part} - generated <= ALLOWED[part]


@pytest.mark.parametrize('path', MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_ros_part_imports_ros(path: Path) -> None:
    if part_of(path) == 'ros':
        return
    tops = {name.split('.')[0] for name in imports_of(path)}
    assert not tops & ROS_PACKAGES


def test_parts_without_networks_import_no_torch() -> None:
    modules = ['.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
               for path in MODULES
               if part_of(path) in NEVER_WITHOUT_MODELS and part_of(path) != 'ros']
    code = ('import importlib, sys\n'
            f'for name in {modules!r}: importlib.import_module(name)\n'
            'print("torch" in sys.modules)')
    output = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            cwd=ROOT, check=True)
    assert output.stdout.strip() == 'False'
