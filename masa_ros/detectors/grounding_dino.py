"""
Grounding-DINO: finds what a text names.

The network is that of Hugging Face ``transformers``. Its weights are a folder in the library's
own form (Swin-T or Swin-B), or the authors' ``gdino_masa.pth``, which holds the detector beside
the tracking adapter. With that file and the model ``masa_gdino`` one pass of the image backbone
serves both. Nothing is downloaded.

References
----------
S. Liu et al., "Grounding DINO: marrying DINO with grounded pre-training for open-set object
detection", ECCV 2024.

"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
import logging
from pathlib import Path
from typing import Any

from masa_ros.detectors import DetectorConfig, import_library, no_classes_error
from masa_ros.detectors.grounding_dino_network import (
    EXTRA,
    from_entries,
    from_folder,
    TextGuidedNetwork,
)
from masa_ros.detectors.grounding_dino_text import (
    class_scores,
    DOT,
    END,
    make_prompt,
    Prompt,
    QUESTION,
    START,
)
from masa_ros.detectors.on_backbone import (
    Backbone,
    DetectorOnBackbone,
    find_weights,
    swin_from_entries,
)
from masa_ros.detectors.prompts import unique_names, wanted_names
from masa_ros.detectors.selection import Vocabulary
from masa_ros.models import weights as published
from masa_ros.models.checkpoint import read_entries
from masa_ros.models.masa import resolve_device
from masa_ros.models.preprocess import Prepared
from masa_ros.models.variants import find_variant, InputRule
from masa_ros.structures.boxes import box_areas, clip_boxes, nms
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)

HOW_TO_GET = (
    'get the weights on a machine with a network: masa_ros weights fetch masa_gdino (detector and '
    'tracking adapter in one file), or the folder of https://huggingface.co/IDEA-Research/'
    'grounding-dino-tiny (Swin-T) or grounding-dino-base (Swin-B), Apache-2.0')
HOW_TO_GET_VOCABULARY = (
    'run masa_ros weights fetch bert_vocabulary on a machine with a network, or put vocab.txt of '
    'https://huggingface.co/google-bert/bert-base-uncased (Apache-2.0, 232 kB) beside the '
    'weights, or set detector.text_model to its folder')


def build(config: DetectorConfig, model: Any = None) -> GroundingDino:
    """
    Load the detector that a configuration names.

    Parameters
    ----------
    config : DetectorConfig
        ``checkpoint`` is a folder, or a MASA file; empty takes the model's file.
    model : Model, optional
        A ``masa_gdino`` shares its image backbone where the weights are its own.

    Raises
    ------
    ValueError
        If transformers is missing, nothing is looked for, or a file does not fit.
    FileNotFoundError
        If weights or vocabulary are not there; the message says how to get them.

    """
    import_library('transformers', 'grounding_dino', EXTRA)
    path, shared = find_weights(
        'grounding_dino', 'masa_gdino', config.checkpoint, model, HOW_TO_GET)
    tokenizer = Tokenizer(config.text_model, path)
    device = resolve_device(shared.device if shared is not None else config.device)
    backbone: Backbone | None = None
    if path.is_dir():
        network, backbone = from_folder(path, device)
    else:
        entries = read_entries(path)
        network = from_entries(entries, device, str(path))
        if shared is None:
            backbone = swin_from_entries(entries, device)
    if shared is None and getattr(model, 'name', '') == 'masa_gdino':
        _LOG.warning('the detector has weights of its own (%s), so the image backbone runs twice; '
                     'leave detector.checkpoint empty to share it', path)
    return GroundingDino(network, tokenizer, config, device, backbone=backbone, shared=shared)


@dataclass(frozen=True, eq=False)
class _Found:
    """Boxes of one image that one chunk of classes gave."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


class Tokenizer:
    """
    BERT's uncased tokenizer, from files on this machine.

    Parameters
    ----------
    given : str
        Folder with a tokenizer or a ``vocab.txt``, or such a file; empty looks beside the
        weights, then in the folder of ``masa_ros weights``.
    weights : Path
        Folder or file of the weights.

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is another vocabulary.

    """

    def __init__(self, given: str, weights: Path) -> None:
        transformers: Any = import_library('transformers', 'grounding_dino', EXTRA)
        folder = Path(given).expanduser() if given else (
            weights if weights.is_dir() else weights.parent)
        file = folder if folder.is_file() else folder / 'vocab.txt'
        fetched = published.folder() / published.entry_of('bert_vocabulary').file
        if file.is_file():
            self._tokenizer = transformers.BertTokenizer(str(file))
        elif (folder / 'tokenizer.json').is_file():
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True)
        elif not given and fetched.is_file():
            self._tokenizer = transformers.BertTokenizer(str(fetched))
        else:
            raise FileNotFoundError(f'no vocabulary for the text at {file}; the weights do not '
                                    f'hold one: {HOW_TO_GET_VOCABULARY}')
        special = self._tokenizer.convert_tokens_to_ids(['[CLS]', '[SEP]', '.', '?'])
        if special != [START, END, DOT, QUESTION]:
            raise ValueError(f'{folder} is not the vocabulary of BERT uncased, which '
                             f'Grounding-DINO was trained with; {HOW_TO_GET_VOCABULARY}')

    def __call__(self, text: str) -> list[int]:
        """Token numbers of a text, without [CLS] and [SEP]."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


class GroundingDino(DetectorOnBackbone):
    """
    Grounding-DINO behind the `masa_ros.detectors.detector.Detector` protocol.

    A box's score is the highest among the words of its class; the class is that whose words have
    the highest mean score, which must reach ``text_threshold``.

    Parameters
    ----------
    network : TextGuidedNetwork
        Everything but the image backbone.
    tokenize : callable
        Token numbers of a text.
    config : DetectorConfig
        What is looked for, thresholds, limits.
    device : torch.device
        Where it runs.
    backbone : callable, optional
        Image features, where no model shares its own.
    shared : MasaModel, optional
        Model whose features are used.
    input_rule : InputRule, optional
        Scaling and padding of images for an own backbone.

    """

    def __init__(
        self, network: TextGuidedNetwork, tokenize: Any, config: DetectorConfig,
        device: torch.device, *, backbone: Backbone | None = None, shared: Any = None,
        input_rule: InputRule | None = None,
    ) -> None:
        super().__init__('grounding_dino', device, input_rule or find_variant('gdino').input_rule,
                         backbone, shared)
        self._network: Any = network
        self._tokenize = tokenize
        self._vocabulary = Vocabulary()
        self._used: Prompt | None = None
        self.reconfigure(config)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes that are looked for."""
        return self._prompt.names

    def set_classes(self, names: Sequence[str]) -> None:
        """See `masa_ros.detectors.detector.Detector.set_classes`."""
        wanted = unique_names(names)
        if not wanted:
            raise no_classes_error('grounding_dino', names)
        self._prompt = make_prompt(wanted, self._tokenize, self._network.longest_text)

    def reconfigure(self, config: DetectorConfig) -> None:
        """
        Take over classes, thresholds and limits.

        Raises
        ------
        ValueError
            If nothing is looked for.

        """
        self.set_classes(wanted_names(config.classes, config.text))
        self._config = config

    def close(self) -> None:
        """Free memory."""
        super().close()
        self._network = None

    def _task(self) -> tuple[Prompt, DetectorConfig]:
        """Return what this call looks for, also if it is changed meanwhile."""
        prompt = self._prompt
        if prompt is not self._used:
            self._network.forget_texts()
            self._used = prompt
        return prompt, self._config

    def _find(
        self, task: tuple[Prompt, DetectorConfig], levels: Sequence[Tensor],
        prepared: Sequence[Prepared], sizes: Sequence[tuple[int, ...]],
    ) -> list[Instances]:
        """Run every chunk of classes over images of one padded size."""
        prompt, config = task
        mask = torch.zeros(len(prepared), *prepared[0].pixels.shape[1:], dtype=torch.bool,
                           device=self._device)
        for row, image in enumerate(prepared):
            mask[row, :image.size[0], :image.size[1]] = True
        found: list[list[_Found]] = [[] for _ in prepared]
        for chunk in prompt.chunks:
            scores, boxes = self._network(levels, mask, chunk.token_ids)
            for row, size in enumerate(sizes):
                best, mean = class_scores(scores[row], chunk.spans)
                highest, chosen = mean.max(dim=1)
                score = best.gather(1, chosen[:, None])[:, 0]
                good = (score >= config.score_threshold) & (highest >= config.text_threshold)
                classes = np.array(chunk.classes)[chosen[good].cpu().numpy()]
                found[row].append(_Found(
                    _in_pixels(boxes[row][good].cpu().numpy(), size),
                    score[good].cpu().numpy(), classes.astype(np.int64)))
        return [self._instances(prompt, config, parts, size)
                for parts, size in zip(found, sizes, strict=True)]

    def _instances(
        self, prompt: Prompt, config: DetectorConfig, parts: Sequence[_Found],
        size: tuple[int, ...],
    ) -> Instances:
        """Join the chunks' boxes; each object once, best first."""
        boxes = clip_boxes(np.concatenate([part.boxes for part in parts]), size[0], size[1])
        scores = np.concatenate([part.scores for part in parts])
        classes = np.concatenate([part.classes for part in parts])
        solid = np.flatnonzero(box_areas(boxes) > 0)
        kept = nms(boxes[solid], scores[solid], config.nms_threshold, classes[solid])
        rows = solid[kept[:config.max_detections]]
        labels = [prompt.names[row] for row in classes[rows]]
        numbers = [self._vocabulary.number(name, int(row))
                   for name, row in zip(labels, classes[rows], strict=True)]
        return Instances.from_boxes(boxes[rows], scores[rows], numbers, labels)


def _in_pixels(boxes: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Boxes xyxy in image pixels from centres and sizes as shares of the image."""
    scaled = boxes * np.array([size[1], size[0]] * 2, np.float32)
    half = scaled[:, 2:] / 2
    return np.concatenate([scaled[:, :2] - half, scaled[:, :2] + half], axis=1)
