"""
Adaptation to one robot's recordings, without labels.

Frames of the recording are marked by the network itself, two views of each teach the track head
to tell their objects apart (nothing else moves), and held-out frames decide whether that helped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
from masa_ros.models.tiny.network import TinyNetwork
from masa_ros.models.tiny.weights import load_network
from masa_ros.structures.boxes import pairwise_iou
from masa_ros.structures.instances import Instances
from masa_ros.structures.settings import setting
from masa_ros.training.config import DataConfig, LossConfig, OptimConfig, TrainConfig
from masa_ros.training.corpus import Corpus, LabelledImage, write_corpus
from masa_ros.training.dataset import PairConfig, PairDataset
from masa_ros.training.labels import shrink
from masa_ros.training.proposals import filter_proposals, ProposalConfig
from masa_ros.training.train import train
from masa_ros.training.validation import validate
from masa_ros.training.views import ViewConfig
import numpy as np
from numpy.typing import NDArray
import torch

if TYPE_CHECKING:
    from masa_ros.training.adapt_masa import MasaLearner

Teacher = Callable[[NDArray[np.uint8]], Instances]

FAR_VIEWS = ViewConfig(size=256, zoom_min=0.5, zoom_max=1.2, view_zoom=2.0, aspect=1.3,
                       mixup=0.0, paste_max=6, photometric=0.6)
TEACHING_VIEWS = replace(FAR_VIEWS, mixup=0.1, photometric=0.3, view_zoom=1.6)
NEIGHBOUR_IOU = 0.5
LEAST_FRAMES = 8


@dataclass(frozen=True)
class AdaptConfig:
    """How a recording is learned from."""

    frames: int = setting(240, 'Most frames to use.', minimum=8, maximum=100000)
    alike: float = setting(
        0.985, 'Correlation of two small pictures above which the second is skipped.',
        minimum=0.0, maximum=1.0)
    long_side_px: int = setting(512, 'Frames are reduced to this.', minimum=64, maximum=4096)
    proposals: int = setting(32, 'Most proposals of a frame.', minimum=1, maximum=1000)
    held_out: float = setting(
        0.25, 'Part of the recording, its end, that only judges.', minimum=0.05, maximum=0.9)
    steps: int = setting(200, 'Optimizer steps.', minimum=1)
    batch: int = setting(8, 'Pairs of views of a step.', minimum=1)
    learning_rate: float = setting(3e-4, 'Rate of the track head.', minimum=0.0, maximum=1.0)
    judge_pairs: int = setting(96, 'Pairs of far-apart views that judge.', minimum=1)
    cached_pairs: int = setting(
        64, 'For the MASA variants: pairs of views that teach; their features are computed once.',
        minimum=1)
    seed: int = setting(0, 'Seed of everything random.', minimum=0)


@dataclass(frozen=True)
class Judgement:
    """
    Self-consistency on frames that were not learned from.

    Parameters
    ----------
    views : float
        Part of the objects that find themselves in a far-apart augmented view.
    neighbours : float
        Part of the objects whose best match in the next frame is the one at the same place;
        NaN where no two frames were close enough to know.

    """

    views: float
    neighbours: float

    def mean(self) -> float:
        """Mean of what is known."""
        return float(np.nanmean([self.views, self.neighbours]))

    def better_than(self, other: Judgement) -> bool:
        """Whether the mean rose and neither part fell."""
        fell = self.views < other.views or self.neighbours < other.neighbours
        return self.mean() > other.mean() and not fell


@dataclass(frozen=True)
class Adaptation:
    """Frames learned from and judged on, and what the judge said before and after."""

    learned_frames: int
    judged_frames: int
    before: Judgement
    after: Judgement
    written: Path | None


def sample_frames(
    frames: Iterable[tuple[str, NDArray[np.uint8]]], config: AdaptConfig,
) -> list[tuple[str, NDArray[np.uint8]]]:
    """
    Choose frames that differ, spread over the recording.

    Parameters
    ----------
    frames : iterable
        Name and ``(H, W, 3)`` uint8 RGB image.
    config : AdaptConfig
        Number, size and what counts as alike.

    Returns
    -------
    list
        Names and reduced images, in order. When too many differ, every other one is given up,
        so a recording of any length fits the memory.

    """
    kept: list[tuple[str, NDArray[np.uint8]]] = []
    last: NDArray[np.float32] | None = None
    step, seen = 1, 0
    for name, image in frames:
        thumb = _thumbnail(image)
        if last is not None and float((thumb * last).sum()) > config.alike:
            continue
        last = thumb
        if seen % step == 0:
            kept.append((name, shrink(image, config.long_side_px)))
        seen += 1
        if len(kept) >= 2 * config.frames:
            kept, step = kept[::2], step * 2
    if len(kept) > config.frames:
        rows = np.linspace(0, len(kept) - 1, config.frames).round().astype(int)
        kept = [kept[row] for row in rows]
    return kept


def adapt(
    frames: Iterable[tuple[str, NDArray[np.uint8]]], teacher: Teacher, start: str | Path,
    out: str | Path, config: AdaptConfig | None = None, model: str = 'tiny', encoder: str = '',
) -> Adaptation:
    """
    Fine-tune the track head on a recording and keep the result if it is better.

    Parameters
    ----------
    frames : iterable
        Name and image of every frame, in order of time.
    teacher : callable
        Image to instances with masks: the network's own proposals, or a detector's boxes.
    start : str or Path
        Weights to start from; for ``tiny`` empty takes the shipped ones.
    out : str or Path
        Folder for the run; ``adapted.pt`` (``adapted.pth`` for a MASA variant) is written there
        if it is better.
    config : AdaptConfig, optional
        How to learn.
    model : str
        ``tiny`` or a MASA variant.
    encoder : str
        SAM file of a MASA variant, where ``start`` leaves SAM out.

    Returns
    -------
    Adaptation
        With the numbers before and after; ``written`` is ``None`` if it did not get better.

    Raises
    ------
    ValueError
        If the recording has too few different frames, or nothing was found in them.

    """
    config = config or AdaptConfig()
    place = Path(out)
    masa = None if model == 'tiny' else _masa(model, start, encoder, place)
    if masa is not None:
        config = replace(config, long_side_px=masa.long_side_px)
    chosen = sample_frames(frames, config)
    border = round(len(chosen) * (1 - config.held_out))
    if len(chosen) < LEAST_FRAMES or len(chosen) - border < 2:
        raise ValueError(f'the recording has {len(chosen)} different frames, expected at least '
                         f'{LEAST_FRAMES}; record for longer or with a moving camera')
    marked = [_mark(name, image, teacher, config) for name, image in chosen]
    learned, judged = marked[:border], marked[border:]
    if not any(len(item.boxes) for item in learned) or not any(len(i.boxes) for i in judged):
        raise ValueError('nothing was found in the frames; lower model.proposal_score or give a '
                         'detector')
    corpus = write_corpus(place / 'learned', learned)
    judges = write_corpus(place / 'judged', judged)
    if masa is not None:
        return _adapt_masa(masa, corpus, judges, config)

    network, _ = load_network(start)
    first = place / 'start.pt'
    _write_start(network, first)
    before = judge(network, judges, config)
    newest = train(_recipe(config, network, corpus, first, place))
    adapted, _ = load_network(newest)
    after = judge(adapted, judges, config)
    written: Path | None = None
    if after.better_than(before):
        written = place / 'adapted.pt'
        newest.replace(written)
    return Adaptation(len(learned), len(judged), before, after, written)


def _masa(model: str, start: str | Path, encoder: str, place: Path) -> MasaLearner:
    """Judge and teacher of a MASA variant."""
    from masa_ros.training.adapt_masa import MasaLearner

    return MasaLearner(model, str(start), encoder, place)


def _adapt_masa(
    masa: MasaLearner, corpus: Corpus, judges: Corpus, config: AdaptConfig,
) -> Adaptation:
    """Fine-tune and judge the track head of a MASA variant over features that stay."""
    held_out = [judges[i] for i in range(len(judges))]
    masa.prepare(judges, FAR_VIEWS, config.seed + 1, config.judge_pairs)

    def verdict(checkpoint: Path | None) -> Judgement:
        views, embed_boxes = masa.judge(checkpoint)
        return Judgement(views, neighbour_accuracy(held_out, embed_boxes))

    before = verdict(None)
    newest = train(masa.recipe(corpus, TEACHING_VIEWS, {
        'seed': config.seed, 'steps': config.steps, 'batch': config.batch,
        'data.cached_pairs': config.cached_pairs, 'pairs.max_instances': config.proposals,
        'optim.learning_rate': config.learning_rate,
        'optim.warmup_steps': min(50, config.steps)}))
    after = verdict(newest)
    written: Path | None = None
    if after.better_than(before):
        written = masa.write(newest, newest.with_name('adapted.pth'))
    return Adaptation(len(corpus), len(judges), before, after, written)


def judge(network: TinyNetwork, corpus: Corpus, config: AdaptConfig) -> Judgement:
    """Measure the self-consistency of a network on the frames of a corpus."""
    share = dict.fromkeys(set(corpus.sources()), 1.0)
    pairs = PairDataset(corpus, share, share, FAR_VIEWS, PairConfig(), config.seed + 1,
                        config.judge_pairs)
    views = validate(network, pairs)['retrieval']
    return Judgement(views, neighbour_accuracy(
        [corpus[i] for i in range(len(corpus))], lambda item: embed(network, item)))


def neighbour_accuracy(
    frames: Sequence[LabelledImage],
    embeddings: Callable[[LabelledImage], NDArray[np.float32]],
) -> float:
    """
    Part of the objects whose best match in the next frame is the one at the same place.

    Parameters
    ----------
    frames : sequence of LabelledImage
        In order of time.
    embeddings : callable
        Image to ``(N, D)``.

    Returns
    -------
    float
        Over objects that overlap exactly one object of the next frame by half; NaN where there
        is none.

    """
    hits: list[bool] = []
    described = [embeddings(frame) for frame in frames]
    for k in range(len(frames) - 1):
        overlap = pairwise_iou(frames[k].boxes, frames[k + 1].boxes) > NEIGHBOUR_IOU
        clear = (overlap.sum(1) == 1) & (overlap & (overlap.sum(0) == 1)).any(1)
        if overlap.shape[1] < 2 or not clear.any():
            continue
        best = (described[k] @ described[k + 1].T).argmax(1)
        hits += overlap[np.flatnonzero(clear), best[clear]].tolist()
    return float(np.mean(hits)) if hits else float('nan')


@torch.inference_mode()
def embed(network: TinyNetwork, item: LabelledImage) -> NDArray[np.float32]:
    """Embeddings of the known boxes of an image."""
    from masa_ros.models import ModelConfig
    from masa_ros.models.tiny.model import TinyModel

    model = TinyModel(ModelConfig(name='tiny', max_masks=0, device='cpu'), network)
    found = model.run([item.image], [Instances.from_boxes(item.boxes)])[0].embeddings
    return np.zeros((0, 1), np.float32) if found is None else found


def _recipe(
    config: AdaptConfig, network: TinyNetwork, corpus: Corpus, start: Path, place: Path,
) -> TrainConfig:
    """Build the settings of the fine-tuning, in which only the track head moves."""
    rest = sorted({name.split('.')[0] + '.' for name, _ in network.named_parameters()
                   if not name.startswith('track_head.')})
    return TrainConfig(
        run=str(place), initial_weights=str(start), seed=config.seed, steps=config.steps,
        batch=config.batch, precision='float32', validate_every=0, network=network.config,
        data=DataConfig(corpus=str(corpus.folder), workers=0),
        views=TEACHING_VIEWS,
        pairs=PairConfig(max_masks=0),
        loss=LossConfig(detection_weight=0.0, mask_weight=0.0),
        optim=OptimConfig(learning_rate=config.learning_rate, frozen=tuple(rest),
                          warmup_steps=min(50, config.steps), decay_part=0.5, ema=0.98))


def _write_start(network: TinyNetwork, path: Path) -> None:
    """Write full-precision weights to start from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'average': network.state_dict()}, path)


def _mark(
    name: str, image: NDArray[np.uint8], teacher: Teacher, config: AdaptConfig,
) -> LabelledImage:
    """Let the teacher mark one frame."""
    height, width = image.shape[:2]
    found = filter_proposals(teacher(image), height, width,
                             ProposalConfig(most=config.proposals, nms_threshold=0.5))
    return LabelledImage(name, 'recording', image, found.boxes, found.masks, found.class_ids)


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Small grey picture of mean 0 and length 1, so that a product is a correlation."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 24), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), np.float32)
