"""
Self-supervised features of boxes, to be measured beside ours (the paper's Tables 7 and 15).

DINO and MoCo learn from whole images which pictures are alike. Here their backbones, from the
library `timm`, describe boxes: their features at stride 16, averaged over each box. Weights come
from the authors' files; without a file they are random numbers of a seed, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import hashlib
from pathlib import Path
from typing import Any

from masa_ros.models.features import BACKBONES, FeatureConfig
from masa_ros.models.masa import resolve_device
from masa_ros.models.model import WeightsInfo
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

SHORT_SIDE, STRIDE, CELLS = 480, 16, 7
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# Where the authors' files keep the backbone: entries that hold it, and prefixes of its names.
_HOLDERS = ('state_dict', 'teacher', 'model')
_PREFIXES = ('module.encoder_q.', 'module.base_encoder.', 'module.backbone.', 'backbone.',
             'module.', '')


class SelfSupervisedFeatures:
    """
    Embeds boxes with a self-supervised backbone; see `masa_ros.models.model.Model`.

    Parameters
    ----------
    config : FeatureConfig
        Which backbone, with which weights.

    Raises
    ------
    ModuleNotFoundError
        If `timm` is not installed; the message says how to get it.
    FileNotFoundError, ValueError
        If the name is unknown or the file is missing or holds something else.

    """

    can_propose = False

    def __init__(self, config: FeatureConfig) -> None:
        if config.name not in BACKBONES:
            raise ValueError(f'unknown features {config.name!r}; known ones are '
                             + ', '.join(sorted(BACKBONES)))
        self.name = config.name
        architecture, self._is_transformer = BACKBONES[config.name]
        self._network = _build(architecture, self._is_transformer)
        self.weights = WeightsInfo(('seeded numbers',), trained=False)
        if config.checkpoint:
            path = Path(config.checkpoint)
            self._network.load_state_dict(backbone_entries(path, self._network.state_dict()))
            self.weights = WeightsInfo((path.name,), hashlib.sha256(path.read_bytes()).hexdigest())
        device = resolve_device(config.device)
        self.device = str(device)
        self._network.eval().requires_grad_(False).to(device)
        self._mean = torch.tensor(MEAN, device=device)[:, None, None]
        self._spread = torch.tensor(SPREAD, device=device)[:, None, None]

    def warm_up(self) -> None:
        """Run once on a dummy image."""
        self.run([np.zeros((SHORT_SIDE, SHORT_SIDE, 3), np.uint8)],
                 [Instances.from_boxes([[0, 0, 64, 64]])])

    @torch.inference_mode()
    def run(
        self, images: Sequence[NDArray[np.uint8]], detections: Sequence[Instances | None],
    ) -> list[Instances]:
        """Embed the boxes of each image; masks stay as they are."""
        return [self._one(image, found) for image, found in zip(images, detections, strict=True)]

    def reconfigure(self, config: Any) -> None:
        """Nothing may change while running."""

    def close(self) -> None:
        """Free the memory of the device."""
        self._network.to('meta')

    def _one(self, image: NDArray[np.uint8], found: Instances | None) -> Instances:
        if found is None:
            raise ValueError(f'{self.name} finds no objects by itself; give boxes')
        height, width = image.shape[:2]
        scale = SHORT_SIDE / min(height, width)
        size = [max(round(side * scale / STRIDE), 1) * STRIDE for side in (height, width)]
        pixels = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1).float() / 255
        batch = F.interpolate(((pixels - self._mean) / self._spread)[None], size,
                              mode='bilinear', antialias=True)
        if self._is_transformer:
            tokens: Tensor = self._network.forward_features(batch)  # type: ignore[operator]
            first = int(self._network.num_prefix_tokens)  # type: ignore[arg-type]
            features = tokens[:, first:].transpose(1, 2).reshape(
                1, -1, size[0] // STRIDE, size[1] // STRIDE)
        else:
            features = self._network(batch)[0]
        factors = np.array([size[1] / width, size[0] / height] * 2, np.float32)
        inside = np.clip(found.boxes, 0, np.array([width, height] * 2, np.float32)) * factors
        cells = roi_align(features, [torch.from_numpy(inside).to(self.device)], CELLS,
                          1 / STRIDE, aligned=True)
        return found.with_fields(embeddings=cells.mean(dim=(2, 3)).cpu().numpy())


def _build(architecture: str, is_transformer: bool) -> nn.Module:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'self-supervised features need the library timm; install it with '
            "pip install 'masa_ros[features]'", name=error.name) from error
    options: dict[str, Any] = ({'num_classes': 0, 'dynamic_img_size': True} if is_transformer
                               else {'features_only': True, 'out_indices': (3,)})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network: nn.Module = timm.create_model(architecture, pretrained=False, **options)
    return network


def backbone_entries(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    Read the entries of a backbone from an author's file.

    Parameters
    ----------
    path : Path
        PyTorch file, the backbone alone or a whole training state; read without running code.
    wanted : mapping
        Entries of the network.

    Raises
    ------
    FileNotFoundError
        If the file is not there.
    ValueError
        If entries are missing or have other shapes.

    """
    if not path.is_file():
        raise FileNotFoundError(f'weights file {path} is missing; get it from '
                                'github.com/facebookresearch (dino or moco)')
    content: Any = torch.load(path, map_location='cpu', weights_only=True)
    holder = next((name for name in _HOLDERS if isinstance(content.get(name), Mapping)), None)
    entries: Mapping[str, Tensor] = content[holder] if holder else content
    for prefix in _PREFIXES:
        found = {name: entries[prefix + name] for name in wanted if prefix + name in entries}
        # Files of before 2018 do not count batches.
        found |= {name: value for name, value in wanted.items()
                  if name.endswith('num_batches_tracked') and name not in found and found}
        if set(found) == set(wanted):
            break
    else:
        missing = sorted(set(wanted) - set(found))
        raise ValueError(f'{path} lacks {len(missing)} of {len(wanted)} entries of the backbone, '
                         f'such as {missing[0]}; it belongs to another network')
    wrong = [name for name, value in found.items() if value.shape != wanted[name].shape]
    if wrong:
        raise ValueError(f'{path}: {wrong[0]} has shape {tuple(found[wrong[0]].shape)}, expected '
                         f'{tuple(wanted[wrong[0]].shape)}; it belongs to another network')
    return found
