"""Class names as vectors, by the text half of CLIP from ``transformers``; no download."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from masa_ros.detectors import import_library
import torch
from torch import Tensor
from torch.nn import functional

EXTRA = "'masa_ros[grounding-dino]'"
HOW_TO_GET = (
    'download the folder of https://huggingface.co/openai/clip-vit-base-patch32 on a machine with '
    'a network, or give the vectors as a file (detector.class_vectors with detector.class_file)')
PROMPT = 'a {}'
"""What Detic's class vectors were made of."""

_NAMES_AT_ONCE = 64


class ClipText:
    """
    CLIP's text encoder.

    Parameters
    ----------
    folder : str
        Folder with the model (``config.json``, ``model.safetensors``) and its tokenizer.
    width : int
        Length of the vectors that are needed.

    Raises
    ------
    FileNotFoundError
        If there is no such folder.
    ValueError
        If transformers is missing, or the folder holds no fitting model.

    """

    def __init__(self, folder: str, width: int) -> None:
        transformers: Any = import_library('transformers', 'detic (with text)', EXTRA)
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise FileNotFoundError(f'no CLIP text model at {path}; correct detector.text_model: '
                                    + HOW_TO_GET)
        try:
            self._tokenizer: Any = transformers.CLIPTokenizer.from_pretrained(
                str(path), local_files_only=True)
            self._model: Any = transformers.CLIPTextModelWithProjection.from_pretrained(
                str(path), local_files_only=True).eval()
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            problem = ' '.join(str(error).split())[:300]
            raise ValueError(f'{path} holds no CLIP text model of transformers ({problem}); '
                             + HOW_TO_GET) from error
        if self._model.config.projection_dim != width:
            raise ValueError(f'the CLIP text model at {path} gives vectors of '
                             f'{self._model.config.projection_dim} numbers, expected {width} as '
                             'those of ViT-B/32; ' + HOW_TO_GET)

    @torch.inference_mode()
    def __call__(self, names: Sequence[str]) -> Tensor:
        """Vectors ``(N, width)`` of length 1."""
        parts = []
        for start in range(0, len(names), _NAMES_AT_ONCE):
            texts = [PROMPT.format(name.lower()) for name in names[start:start + _NAMES_AT_ONCE]]
            tokens = self._tokenizer(texts, padding=True, truncation=True, return_tensors='pt')
            parts.append(self._model(
                input_ids=tokens['input_ids'],
                attention_mask=tokens['attention_mask']).text_embeds)
        return functional.normalize(torch.cat(parts).float(), dim=1).clone()
