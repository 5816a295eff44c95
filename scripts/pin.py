#!/usr/bin/env python3
"""
Write constraints.txt: one exact version of every package for each supported Python.

Run as ``python3 scripts/pin.py python3.10 python3.11 python3.12 ...``. Each interpreter resolves
the requirements of pyproject.toml from the package index without installing anything; a version
that differs between interpreters gets an environment marker.
"""

from __future__ import annotations

import json
from pathlib import Path
import subprocess
import sys
import tempfile

from setup_environment import EXTRAS, ROOT, wanted, WHEEL_EXTRAS

# torch's CPU builds carry a local version; torchvision's wheels need the plain build.
EXACT = ('torch',)


def main(interpreters: list[str]) -> int:
    """Resolve with every interpreter and write the file."""
    found: dict[str, dict[str, str]] = {}
    for interpreter in interpreters:
        version, packages = resolve(interpreter)
        print(f'Python {version}: {len(packages)} packages')
        for name, release in packages.items():
            found.setdefault(name, {})[version] = release
    versions = sorted({version for releases in found.values() for version in releases},
                      key=lambda text: tuple(map(int, text.split('.'))))
    lines = ['# Made by scripts/pin.py; do not edit by hand.']
    for name in sorted(found):
        releases = found[name]
        sign = '===' if name in EXACT else '=='
        newest = releases[max(releases, key=lambda text: tuple(map(int, text.split('.'))))]
        if set(releases) == set(versions) and len(set(releases.values())) == 1:
            lines.append(f'{name}{sign}{newest}')
            continue
        lines += [f"{name}{sign}{releases[version]}; python_version == '{version}'"
                  for version in versions if version in releases]
    (ROOT / 'constraints.txt').write_text('\n'.join(lines) + '\n')
    return 0


def resolve(interpreter: str) -> tuple[str, dict[str, str]]:
    """Python version of an interpreter and the versions its pip would install."""
    code = 'import sys; print("%d.%d" % sys.version_info[:2])'
    version = subprocess.run([interpreter, '-c', code], check=True, capture_output=True,
                             text=True).stdout.strip()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([interpreter, '-m', 'venv', f'{folder}/venv'], check=True)
        python = f'{folder}/venv/bin/python'
        subprocess.run([python, '-m', 'pip', 'install', '-q', '-U', 'pip'], check=True)
        requirements = wanted(Path(python), (*EXTRAS, *WHEEL_EXTRAS))
        report = f'{folder}/report.json'
        subprocess.run([python, '-m', 'pip', 'install', '-q', '--dry-run', '--ignore-installed',
                        '--report', report, 'torch===2.13.0', *requirements], check=True)
        installs = json.loads(Path(report).read_text())['install']
    return version, {entry['metadata']['name'].lower().replace('_', '-'):
                     entry['metadata']['version'] for entry in installs}


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
