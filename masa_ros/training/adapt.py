"""
Adaptation to one robot's recordings, without labels.

Clips of the recording are marked by the network itself and followed by the tracker. Views of two
moments of a clip teach the track head which objects are the same and which are not (nothing else
moves), and the end of the recording decides whether that helped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
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
from masa_ros.training.proposals import filter_proposals, ProposalConfig, Teacher
from masa_ros.training.tracklets import followed, later_accuracy
from masa_ros.training.train import train
from masa_ros.training.validation import validate
from masa_ros.training.views import ViewConfig
import numpy as np
from numpy.typing import NDArray
import torch

if TYPE_CHECKING:
    from masa_ros.training.adapt_masa import MasaLearner

FAR_VIEWS = ViewConfig(size=256, zoom_min=0.5, zoom_max=1.2, view_zoom=2.0, aspect=1.3,
                       mixup=0.0, paste_max=6, photometric=0.6)
TEACHING_VIEWS = replace(FAR_VIEWS, mixup=0.1, photometric=0.3, view_zoom=1.6)
SHARES = (1.0, 0.5, 0.25)
"""How much of the fine-tuning is tried; the one that judges best counts."""
NEIGHBOUR_IOU = 0.5
LEAST_FRAMES = 8
LATER_FRAMES = range(2, 11)
"""Up to about a second: at most ten frames a second are used."""


@dataclass(frozen=True)
class AdaptConfig:
    """How a recording is learned from."""

    frames: int = setting(240, 'Most frames to use.', minimum=8, maximum=100000)
    clip: int = setting(
        40, 'Successive frames that objects are followed through; a quarter of the most frames '
        'where that is less.', minimum=2, maximum=10000)
    alike: float = setting(
        0.985, 'Correlation of two small pictures above which the second is skipped.',
        minimum=0.0, maximum=1.0)
    long_side_px: int = setting(512, 'Frames are reduced to this.', minimum=64, maximum=4096)
    proposals: int = setting(32, 'Most proposals of a frame.', minimum=1, maximum=1000)
    held_out: float = setting(
        0.25, 'Part of the recording, its end, that only judges.', minimum=0.05, maximum=0.9)
    steps: int = setting(300, 'Optimizer steps.', minimum=1)
    batch: int = setting(8, 'Pairs of views of a step.', minimum=1)
    learning_rate: float = setting(1e-3, 'Rate of the track head.', minimum=0.0, maximum=1.0)
    judge_pairs: int = setting(96, 'Pairs of far-apart views that judge.', minimum=1)
    cached_pairs: int = setting(
        64, 'For the MASA variants: pairs of views that teach; their features are computed once.',
        minimum=1)
    seed: int = setting(0, 'Seed of everything random.', minimum=0)


@dataclass(frozen=True)
class ClipFrame:
    """Name and image of a frame, reduced, with height and width from before."""

    name: str
    image: NDArray[np.uint8]
    full_size: tuple[int, int]


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
    later : float
        Part of the followed objects whose best match in one of the frames of `LATER_FRAMES` is
        themselves; NaN where none was followed for so long.

    """

    views: float
    neighbours: float
    later: float = float('nan')

    def parts(self) -> tuple[float, float, float]:
        """All numbers."""
        return self.views, self.neighbours, self.later

    def mean(self) -> float:
        """Mean of what is known."""
        return float(np.nanmean(self.parts()))

    def better_than(self, other: Judgement) -> bool:
        """Whether the mean rose and no part fell."""
        fell = any(mine < theirs for mine, theirs in zip(
            self.parts(), other.parts(), strict=True))
        return self.mean() > other.mean() and not fell


@dataclass(frozen=True)
class Adaptation:
    """Frames learned from and judged on, and what the judge said before and after."""

    learned_frames: int
    judged_frames: int
    before: Judgement
    after: Judgement
    written: Path | None


def sample_clips(
    frames: Iterable[tuple[str, NDArray[np.uint8]]], config: AdaptConfig,
) -> list[list[ClipFrame]]:
    """
    Choose clips of successive frames that differ, spread over the recording.

    Parameters
    ----------
    frames : iterable
        Name and ``(H, W, 3)`` uint8 RGB image; frames of several cameras are told apart by what
        stands before the last slash of the name.
    config : AdaptConfig
        Number, size and what counts as alike.

    Returns
    -------
    list of list of ClipFrame
        The frames of each clip, in order. When there are too many, every other
        clip is given up, so a recording of any length fits the memory.

    """
    length = min(config.clip, max(config.frames // 4, 2))
    clips: list[list[ClipFrame]] = []
    streams: dict[str, _Stream] = {}
    step = 1
    for name, image in frames:
        stream = streams.setdefault(name.rpartition('/')[0], _Stream())
        thumb = _thumbnail(image)
        if stream.last is not None and float((thumb * stream.last).sum()) > config.alike:
            continue
        stream.last = thumb
        if stream.seen % (step * length) < length:
            height, width = image.shape[:2]
            stream.clip.append(ClipFrame(
                name, shrink(image, config.long_side_px), (height, width)))
        stream.seen += 1
        if len(stream.clip) == length:
            clips.append(stream.clip)
            stream.clip = []
        if len(clips) * length >= 2 * config.frames:
            clips, step = clips[::2], step * 2
    clips += [stream.clip for stream in streams.values() if stream.clip]
    most = max(config.frames // length, 1)
    if len(clips) > most:
        rows = np.linspace(0, len(clips) - 1, most).round().astype(int)
        clips = [clips[row] for row in rows]
    return clips


@dataclass
class _Stream:
    """What was seen of one camera: the last frame in small, their number, the newest clip."""

    last: NDArray[np.float32] | None = None
    seen: int = 0
    clip: list[ClipFrame] = field(default_factory=list)


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
        To instances with masks: the network's own proposals, or a detector's boxes.
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
    clips = sample_clips(frames, config)
    count = sum(map(len, clips))
    border = round(count * (1 - config.held_out))
    if count < LEAST_FRAMES or count - border < 2:
        raise ValueError(f'the recording has {count} different frames, expected at least '
                         f'{LEAST_FRAMES}; record for longer or with a moving camera')
    learned, judged = _mark_clips(clips, border, teacher, config)
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
    end, _ = load_network(newest)
    candidates = [part_of_the_way(network, end, share) for share in SHARES]
    verdicts = [judge(candidate, judges, config) for candidate in candidates]
    best = max(range(len(SHARES)), key=lambda i: (
        verdicts[i].better_than(before), verdicts[i].mean()))
    written: Path | None = None
    if verdicts[best].better_than(before):
        written = place / 'adapted.pt'
        stored = torch.load(newest, map_location='cpu', weights_only=True)
        torch.save({**stored, 'average': candidates[best].state_dict()}, written)
        newest.unlink()
    return Adaptation(len(learned), len(judged), before, verdicts[best], written)


def part_of_the_way(start: TinyNetwork, end: TinyNetwork, share: float) -> TinyNetwork:
    """
    Go from one network's weights to another's, but not all of the way.

    Half of a fine-tuning often keeps most of what it learned and loses less of what was known.

    References
    ----------
    M. Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022.

    """
    network = TinyNetwork(start.config)
    old, new = start.state_dict(), end.state_dict()
    network.load_state_dict(
        {name: torch.lerp(old[name], new[name], share) for name in old})
    return network


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
        return _judgement(views, held_out, embed_boxes)

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
    return _judgement(views, [corpus[i] for i in range(len(corpus))],
                      lambda item: embed(network, item))


def _judgement(
    views: float, frames: Sequence[LabelledImage],
    embeddings: Callable[[LabelledImage], NDArray[np.float32]],
) -> Judgement:
    """Add what frames in order of time tell; each is embedded once."""
    known = {frame.name: embeddings(frame) for frame in frames}
    return Judgement(
        views, neighbour_accuracy(frames, lambda item: known[item.name]),
        later_accuracy(frames, lambda item: known[item.name], LATER_FRAMES))


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
        if frames[k].clip != frames[k + 1].clip:
            continue
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


def _mark_clips(
    clips: Sequence[Sequence[ClipFrame]], border: int, teacher: Teacher, config: AdaptConfig,
) -> tuple[list[LabelledImage], list[LabelledImage]]:
    """Mark and follow the objects of all clips; what comes after the border only judges."""
    learned: list[LabelledImage] = []
    judged: list[LabelledImage] = []
    start = 0
    for number, clip in enumerate(clips):
        cut = min(max(border - start, 0), len(clip))
        learned += _mark_clip(clip[:cut], f'{number} learned', teacher, config)
        judged += _mark_clip(clip[cut:], f'{number} judged', teacher, config)
        start += len(clip)
    return learned, judged


def _mark_clip(
    clip: Sequence[ClipFrame], name: str, teacher: Teacher, config: AdaptConfig,
) -> list[LabelledImage]:
    """Let the teacher mark the frames of a clip and the tracker follow what it marked."""
    rules = ProposalConfig(most=config.proposals, nms_threshold=0.5)
    found = [filter_proposals(teacher(frame.image, frame.full_size), frame.image.shape[0],
                              frame.image.shape[1], rules) for frame in clip]
    frames = [LabelledImage(frame.name, 'recording', frame.image, objects.boxes, objects.masks,
                            objects.class_ids)
              for frame, objects in zip(clip, found, strict=True)]
    return followed(frames, found, name)


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Small grey picture of mean 0 and length 1, so that a product is a correlation."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (32, 24), interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), np.float32)
