"""The code in docs/messages.md does what it says."""

from __future__ import annotations

import os
from pathlib import Path
import re
import shutil
import subprocess
from types import SimpleNamespace
from typing import Any

from masa_ros.ros.convert import decode_mask
from masa_ros.structures.masks import encode_crop
import numpy as np
import pytest

RING = [0, 7, 1, 4, 1, 7]


def blocks(root: Path, language: str) -> list[str]:
    text = (root / 'docs' / 'messages.md').read_text()
    return re.findall(rf'```{language}\n(.*?)```', text, re.DOTALL)


def track(counts: list[int], height: int, width: int) -> Any:
    return SimpleNamespace(mask_counts=counts, roi=SimpleNamespace(
        x_offset=0, y_offset=0, height=height, width=width))


def test_the_picture_of_the_runs_is_right(root: Path) -> None:
    text = (root / 'docs' / 'messages.md').read_text()
    rows = re.findall(r'^    ([01]{4})\b', text, re.MULTILINE)
    mask = decode_mask(track(RING, 5, 4))
    assert mask is not None
    assert rows == [''.join(str(int(value)) for value in row) for row in mask]
    assert f'mask_counts: {RING}' in text


def test_the_two_lines_without_masa_ros_decode_a_mask(root: Path) -> None:
    crop = np.random.default_rng(0).random((7, 5)) > 0.5
    mask = encode_crop(crop)
    names: dict[str, Any] = {
        'numpy': np, 'track': track(mask.counts.tolist(), mask.height, mask.width)}
    exec(blocks(root, 'python')[1], names)
    np.testing.assert_array_equal(names['mask'], crop)


@pytest.mark.ros
@pytest.mark.slow
def test_the_decoder_in_cpp_compiles_and_agrees(root: Path, tmp_path: Path) -> None:
    if shutil.which('g++') is None:
        pytest.skip('no C++ compiler')
    (code,) = blocks(root, 'cpp')
    source = tmp_path / 'decode.cpp'
    source.write_text(code + """
#include <cstdio>
int main()
{
  masa_ros::msg::TrackedObject object;
  object.roi.height = 5;
  object.roi.width = 4;
  object.mask_counts = {0, 7, 1, 4, 1, 7};
  for (const auto value : decode_mask(object)) {std::printf("%d", value);}
}
""")
    folders = [path for prefix in os.environ['AMENT_PREFIX_PATH'].split(os.pathsep) if prefix
               for path in (Path(prefix) / 'include').glob('*') if path.is_dir()]
    subprocess.run(['g++', '-std=c++17', '-Wall', '-Wextra', '-Werror',
                    *(f'-isystem{path}' for path in folders), str(source), '-o',
                    str(tmp_path / 'decode')], check=True)
    output = subprocess.run([str(tmp_path / 'decode')], capture_output=True, text=True,
                            check=True).stdout
    mask = decode_mask(track(RING, 5, 4))
    assert mask is not None
    assert output == ''.join(str(int(value)) for value in mask.ravel())
