"""
Build of a wheel for machines without a ROS 2 installation: ``pip install .``.

The interfaces of msg/ are generated and compiled by the same CMakeLists.txt that colcon uses,
against the ROS 2 wheels of the build environment, and travel in the wheel's data folders (lib,
share, include), where the ROS 2 wheels put theirs. colcon never runs this file.
"""

import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile

from setuptools import Command, Distribution, setup
from setuptools.command.build import build

ROOT = Path(__file__).resolve().parent
INTERFACE_SOURCES = ('CMakeLists.txt', 'package.xml', 'cmake', 'msg', 'srv', 'launch', 'config',
                     'scripts', 'masa_ros')
PACKAGES = sorted(
    '.'.join(path.parent.relative_to(ROOT).parts)
    for path in (ROOT / 'masa_ros').rglob('__init__.py'))


class BuildInterfaces(Command):
    """Run CMake, then sort what it installed into the wheel."""

    description = 'generate and compile the ROS 2 interfaces'
    user_options = []
    editable_mode = False

    def initialize_options(self):
        """Declare the folders that finalize_options fills."""
        self.build_lib = None
        self.build_temp = None

    def finalize_options(self):
        """Take the folders of the build command."""
        self.set_undefined_options('build', ('build_lib', 'build_lib'),
                                   ('build_temp', 'build_temp'))

    def run(self):
        """Build, then hand the results to the package and to data_files."""
        stage = self._compile()
        generated = stage / 'python' / 'masa_ros'
        data_files = {}
        if self.editable_mode:
            # The checkout stands in for the code; only what was generated is installed.
            library = f'lib/python{sys.version_info.major}.{sys.version_info.minor}'
            target = f'{library}/site-packages/masa_ros'
            for path in self._generated_files(generated):
                folder = Path(target) / path.parent.relative_to(generated)
                data_files.setdefault(str(folder), []).append(str(path))
        else:
            for path in self._generated_files(generated):
                copy = Path(self.build_lib) / 'masa_ros' / path.relative_to(generated)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copy)
        for top in ('lib', 'share', 'include'):
            for path in sorted((stage / top).rglob('*')):
                if path.is_file() and path.suffix != '.pyc':
                    folder = str(path.parent.relative_to(stage))
                    data_files.setdefault(folder, []).append(str(path))
        self.distribution.data_files = [
            (folder, [os.path.relpath(name, ROOT) for name in names])
            for folder, names in sorted(data_files.items())]

    def get_source_files(self):
        """Return the files whose change calls for a new build."""
        return [str(path.relative_to(ROOT)) for folder in ('msg', 'srv')
                for path in sorted((ROOT / folder).glob(f'*.{folder}'))]

    def get_outputs(self):
        """Return nothing: the outputs are data files."""
        return []

    def get_output_mapping(self):
        """Return nothing: no output mirrors one source file."""
        return {}

    @staticmethod
    def _generated_files(generated):
        """Files that rosidl made, without its C sources and without our own code."""
        for path in sorted(generated.rglob('*')):
            in_checkout = (ROOT / 'masa_ros' / path.relative_to(generated)).exists()
            if path.is_file() and path.suffix not in ('.c', '.pyc') and not in_checkout:
                yield path

    def _compile(self):
        """Configure, build and install into a staging folder; returns the folder."""
        try:
            import ament_package
        except ImportError:
            raise SystemExit(
                'masa_ros: the ROS 2 wheels are not in this build environment; run pip without '
                '--no-build-isolation, or build with colcon where ROS 2 is installed') from None
        prefix = Path(ament_package.__file__).resolve().parents[4]
        stage = (ROOT / self.build_temp / 'stage').resolve()
        shutil.rmtree(stage, ignore_errors=True)
        environment = dict(os.environ, AMENT_PREFIX_PATH=str(prefix))
        # rosidl cannot build below a path with a space or a letter outside ASCII in it, so the
        # build runs on a copy; a new one each time also leaves no cache with old paths.
        with tempfile.TemporaryDirectory(prefix='masa_ros-') as folder:
            source = Path(folder) / 'source'
            source.mkdir()
            for name in INTERFACE_SOURCES:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
                copy(ROOT / name, source / name)
            work = str(Path(folder) / 'build')
            for command in (
                ['cmake', '-S', str(source), '-B', work,
                 f'-DCMAKE_INSTALL_PREFIX={folder}/stage', f'-DCMAKE_PREFIX_PATH={prefix}',
                 f'-DPython3_EXECUTABLE={sys.executable}', '-DPYTHON_INSTALL_DIR=python',
                 '-DBUILD_TESTING=OFF', '-DCMAKE_BUILD_TYPE=Release'],
                ['cmake', '--build', work, '--parallel', str(os.cpu_count() or 1)],
                ['cmake', '--install', work],
            ):
                subprocess.run(command, check=True, env=environment)
            shutil.copytree(f'{folder}/stage', stage)
        return stage


class PlatformDistribution(Distribution):
    """A wheel for one platform, because of the compiled interfaces."""

    def has_ext_modules(self):
        """Return True, so that the wheel gets a platform tag."""
        return True

    def has_data(self):
        """Tell setuptools' editable wheel whether there are data files."""
        return bool(self.data_files)


build.sub_commands = [*build.sub_commands, ('build_interfaces', None)]

setup(
    packages=PACKAGES,
    package_data={'masa_ros': ['**/*.html', '**/*.yaml', '**/*.json', '**/*.pt', '**/py.typed']},
    cmdclass={'build_interfaces': BuildInterfaces},
    distclass=PlatformDistribution,
)
