"""
Count parameters and multiply-adds of all variants for a 720p frame, without running them.

Pooling, suppression, norms and activations are left out, as usual. A floating point operation
count is twice these figures. The mask decoder is counted over the whole image for each box, an
upper bound: masks are upscaled around their boxes only.

    ./scripts/with_env python benchmarks/masa_flops.py --out benchmarks/masa_flops.json

"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import json
from pathlib import Path
import sys
from typing import Any

from masa_ros.models.checkpoint import published_entries
from masa_ros.models.masa_network import MasaNetwork
from masa_ros.models.sam.architecture import ARCHITECTURES, build_network
from masa_ros.models.sam.decoder import BoxDecoder
from masa_ros.models.sam.encoder import encode
from masa_ros.models.tiny.model import fit_image
from masa_ros.models.tiny.network import TinyNetwork
from masa_ros.models.variants import Variant, VARIANTS
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

CONSTANTS = ('num_batches_tracked', 'relative_position_index')


def deform_conv_flop(
    x: Sequence[int], weight: Sequence[int], offset: Sequence[int], *_: Any, out_shape: Any = None,
    **__: Any,
) -> int:
    """Products of the convolution itself and of the bilinear samples."""
    positions = x[0] * offset[2] * offset[3]
    return 2 * positions * (weight[0] * weight[1] * 9 + 4 * 9 * x[1])


def count(function: Callable[[], Any]) -> tuple[float, Any]:
    """Billions of multiply-adds of a call, and its result."""
    mapping = {torch.ops.torchvision.deform_conv2d: deform_conv_flop}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        result = function()
    return counter.get_total_flops() / 2e9, result


def millions(tensors: Any) -> float:
    """Millions of numbers in tensors."""
    return round(float(sum(tensor.numel() for tensor in tensors)) / 1e6, 2)


def measure_sam(name: str) -> dict[str, Any]:
    """Count the parts of a plain SAM: its encoder always sees 1024 x 1024 pixels."""
    sam: Any = build_network(ARCHITECTURES[name])
    with torch.device('meta'):
        image, boxes = torch.empty(1, 3, 1024, 1024), torch.empty(100, 4)
    with torch.no_grad():
        encoder, features = count(lambda: encode(sam.image_encoder, image))
        decoder = BoxDecoder(sam.prompt_encoder, sam.mask_decoder)
        masks, _ = count(lambda: decoder.decode(decoder.prepare(features.neck[0]), boxes))
    return {'input': '1024x1024', 'file_mparams': millions(sam.parameters()),
            'encoder_gmac': round(encoder, 1), 'mask_decoder_100_gmac': round(masks, 1)}


def measure(variant: Variant, height: int, width: int) -> dict[str, Any]:
    """Count one variant's parts."""
    with torch.device('meta'):
        network = MasaNetwork(variant).eval()
        scaled = variant.input_rule.scaled_size(height, width)
        image = torch.empty(1, 3, *variant.input_rule.padded_size(*scaled))
        regions, boxes = torch.empty(1000, 256, 7, 7), torch.empty(100, 256, 7, 7)
    with torch.no_grad():
        backbone, features = count(lambda: network.backbone_features(image)[0])
        adapter, pyramid = count(lambda: network.masa_adapter(features))
        proposals, _ = count(lambda: network.rpn_head(pyramid))
        box_head, _ = count(lambda: network.roi_head.bbox_head(regions))
        track_head, _ = count(lambda: network.track_head(boxes))
    names = {name: shape for name, shape in published_entries(variant).items()
             if not name.endswith(CONSTANTS)}
    return {
        'input': 'x'.join(str(side) for side in image.shape[2:]),
        'file_mparams': round(sum(int(np.prod(s)) for s in names.values()) / 1e6, 2),
        'used_mparams': millions(network.parameters()),
        'backbone_gmac': round(backbone, 1), 'adapter_gmac': round(adapter, 1),
        'rpn_gmac': round(proposals, 1), 'box_head_1000_gmac': round(box_head, 1),
        'track_head_100_gmac': round(track_head, 1)}


def measure_tiny(height: int, width: int) -> dict[str, Any]:
    """Count the small network: both passes of the image, and its heads for 100 boxes."""
    pixels, _ = fit_image(np.zeros((height, width, 3), np.uint8))
    sides = pixels.shape[:2]
    # RoIAlign has no shapes-only form, so this one runs.
    network = TinyNetwork().eval()
    half = [-(-side // 64) * 32 for side in sides]
    images = [torch.zeros(1, 3, *size) for size in (sides, half)]
    rois = torch.tensor([[0.0, 10, 10, 80, 80]]).expand(100, -1)
    with torch.no_grad():
        features, passes = count(lambda: [network.features(image) for image in images])
        proposals, _ = count(lambda: [network.proposal_head(pyramid) for pyramid, _ in passes])
        masks, _ = count(lambda: network.mask_head(passes[0][1], rois))
        track_head, _ = count(lambda: network.track_head(passes[0][1], rois))
    return {
        'input': 'x'.join(map(str, sides)) + ' and half', 'used_mparams': millions(
            network.parameters()), 'features_gmac': round(features, 2),
        'proposals_gmac': round(proposals, 2), 'mask_head_100_gmac': round(masks, 2),
        'track_head_100_gmac': round(track_head, 2)}


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=str(__doc__).strip().split('\n')[0])
    parser.add_argument('--height', type=int, default=720)
    parser.add_argument('--width', type=int, default=1280)
    parser.add_argument('--out', type=Path, help='JSON file')
    arguments = parser.parse_args()
    results = {variant.model: measure(variant, arguments.height, arguments.width)
               for variant in VARIANTS.values()}
    results['tiny'] = measure_tiny(arguments.height, arguments.width)
    results.update({name: measure_sam(name) for name in ARCHITECTURES})
    for name, figures in results.items():
        print(name, json.dumps(figures), flush=True)
    if arguments.out:
        command = ' '.join(
            ['./scripts/with_env', 'python', 'benchmarks/masa_flops.py', *sys.argv[1:]])
        arguments.out.write_text(json.dumps({
            'command': command, 'torch': torch.__version__,
            'image': [arguments.height, arguments.width], 'results': results}, indent=1) + '\n')


if __name__ == '__main__':
    main()
