"""
Time our deformable convolution against torchvision's on the CPU, in the same run.

Every round runs both one after the other, and the reported speed-up is the median of the rounds'
ratios, so that other programs on the machine weigh on both alike. CPU time is given besides wall
time because of them too.

    ./scripts/with_env python benchmarks/deform_conv.py --out benchmarks/deform_conv.json

"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager
import json
from pathlib import Path
import platform
import statistics
import subprocess
import sys
import time
from typing import Any
from unittest import mock

from masa_ros.models.adapter.deform_conv import gather_convolution
from masa_ros.models.adapter.fusion import Fusion
import torch
from torch import Tensor
from torchvision.ops import deform_conv2d

# Output sizes: the finest levels of a 720p frame (R50) and of SAM's square, and a coarse level.
CASES = {
    'level 0, 144 x 256': (144, 256, 1), 'level 0, 256 x 256': (256, 256, 1),
    'level 1 from level 0, 144 x 256': (144, 256, 2), 'level 2, 36 x 64': (36, 64, 1),
}
FUSION = {'fusion, R50 pyramid of 720p': (False, 144, 256)}


def by_torchvision(
    x: Tensor, offset: Tensor, mask: Tensor, weight: Tensor, stride: int = 1,
) -> Tensor:
    """Run the plain operator."""
    result: Tensor = deform_conv2d(
        x, offset, weight, None, (stride, stride), (1, 1), (1, 1), mask)
    return result


def operator_case(height: int, width: int, stride: int) -> tuple[Callable[[], Tensor], ...]:
    """Both implementations on the same random input, 256 channels."""
    random = torch.Generator().manual_seed(0)
    out = (-(-height // stride), -(-width // stride))
    x = torch.randn(1, 256, height, width, generator=random)
    offset = 2 * torch.randn(1, 18, *out, generator=random)
    mask = torch.rand(1, 9, *out, generator=random)
    weight = torch.randn(256, 256, 3, 3, generator=random) / 48
    arguments = (x, offset, mask, weight, stride)
    return lambda: by_torchvision(*arguments), lambda: gather_convolution(*arguments)


def fusion_case(attention: bool, height: int, width: int) -> tuple[Callable[[], Tensor], ...]:
    """Three fusion blocks on a pyramid, with either implementation inside."""
    torch.manual_seed(0)
    fusion = Fusion(attention=attention).eval()
    for name, weight in fusion.named_parameters():
        if 'spatial_conv_offset.weight' in name:
            torch.nn.init.normal_(weight, std=0.02)
    levels = [torch.randn(1, 256, height >> i, width >> i) for i in range(5)]

    def run(patch: AbstractContextManager[Any] | None) -> Tensor:
        if patch is None:
            result: Tensor = fusion(levels)[0]
            return result
        with patch:
            result = fusion(levels)[0]
        return result
    place = 'masa_ros.models.adapter.deform_conv.gather_convolution'
    return (lambda: run(mock.patch(place, by_torchvision)), lambda: run(None))


def timed(function: Callable[[], Tensor]) -> tuple[float, float, Tensor]:
    """Wall and CPU seconds of a call, and its result."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def compare(plain: Callable[[], Tensor], ours: Callable[[], Tensor], rounds: int) -> Any:
    """Run both in turns."""
    walls, cpus = [], []
    for _ in range(rounds):
        one, two = timed(plain), timed(ours)
        walls.append((one[0], two[0]))
        cpus.append((one[1], two[1]))
    difference = (one[2] - two[2]).abs().max().item() / one[2].abs().max().item()
    return {
        'speedup_wall': round(statistics.median(a / b for a, b in walls), 2),
        'speedup_wall_worst_round': round(min(a / b for a, b in walls), 2),
        'speedup_cpu': round(statistics.median(a / b for a, b in cpus), 2),
        'torchvision_ms': round(1e3 * statistics.median(a for a, _ in walls), 1),
        'ours_ms': round(1e3 * statistics.median(b for _, b in walls), 1),
        'largest_difference': float(f'{difference:.2g}'),
    }


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--threads', type=int, default=0, help='0 takes what torch takes')
    parser.add_argument('--out', type=Path)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    cases = {name: operator_case(*shape) for name, shape in CASES.items()}
    cases.update({name: fusion_case(*shape) for name, shape in FUSION.items()})
    results = {}
    with torch.inference_mode():
        for name, functions in cases.items():
            rounds = arguments.rounds if name in CASES else max(arguments.rounds // 2, 1)
            results[name] = compare(functions[0], functions[1], rounds)
            print(name, json.dumps(results[name]), flush=True)
    report = {
        'command': ' '.join(
            ['./scripts/with_env', 'python', 'benchmarks/deform_conv.py', *sys.argv[1:]]),
        'commit': subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True,
                                 text=True, check=False).stdout.strip(),
        'machine': platform.processor() or platform.machine(), 'torch': torch.__version__,
        'threads': torch.get_num_threads(), 'results': results}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    main()
