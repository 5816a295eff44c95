"""Pairs of views for training: sample ``i`` depends on the seed and on ``i`` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from masa_ros.structures.settings import setting
from masa_ros.training.corpus import Corpus
from masa_ros.training.views import (
    apply,
    bend,
    blend_transform,
    compose,
    cut_out,
    draw_view,
    jitter_colours,
    large_scale_transforms,
    Layer,
    object_transforms,
    photo_transforms,
    Shape,
    Transform,
    translate,
    View,
    ViewConfig,
    ViewInstance,
    weather,
    window_target,
)
import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor
from torch.utils.data import Dataset

# Where the identities of a sample's cut-outs and of a blended photo begin.
PASTED, BLENDED = 100_000, 200_000
# Draws of a crop until it shows an object.
_CROPS = 10


@dataclass(frozen=True)
class PairConfig:
    """What of a pair of views goes into the losses."""

    max_instances: int = setting(
        32, 'Most instances of a view that are embedded.', minimum=1, maximum=1000)
    max_masks: int = setting(
        12, 'Most instances of a view whose mask is learned.', minimum=0, maximum=1000)
    track_jitter: float = setting(
        0.05, 'Standard deviation of box noise for embeddings, part of a side.', minimum=0.0,
        maximum=0.5)
    mask_jitter: float = setting(
        0.04, 'Standard deviation of box noise for masks, part of a side.', minimum=0.0,
        maximum=0.5)
    mask_size: int = setting(32, 'Side of a mask target.', minimum=8, maximum=128)
    mask_margin: float = setting(
        0.125, 'Part of a box side that a mask window adds on each side.', minimum=0.0,
        maximum=1.0)


@dataclass(frozen=True, eq=False)
class ViewSample:
    """
    Arrays of one view: pixels, boxes to propose, boxes to embed, masks to predict.

    With ``features``, pooled before, the boxes to embed need no pixels. ``recording`` is that of
    the clip, 0 for none.
    """

    image: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    track_boxes: NDArray[np.float32]
    identities: NDArray[np.int64]
    mask_boxes: NDArray[np.float32]
    mask_targets: NDArray[np.uint8]
    exhaustive: bool
    features: NDArray[np.float16] | None = None
    recording: int = 0


class PairDataset(Dataset[tuple[ViewSample, ViewSample]]):
    """
    Endless pairs of views from a corpus.

    Parameters
    ----------
    corpus : Corpus
        Photos and instances.
    weights : mapping
        Relative number of samples from each source; sources that are not named get 0.
    paste_weights : mapping
        Relative number of cut-outs from each source.
    views, pairs : ViewConfig, PairConfig
        How the samples are drawn.
    seed : int
        Everything random follows from it.
    length : int
        Number of samples to offer.

    Raises
    ------
    ValueError
        If no photo has a positive weight.

    """

    def __init__(
        self, corpus: Corpus, weights: Mapping[str, float],
        paste_weights: Mapping[str, float], views: ViewConfig, pairs: PairConfig, seed: int,
        length: int,
    ) -> None:
        self.corpus, self.views, self.pairs = corpus, views, pairs
        self.seed, self.length = seed, length
        sources = corpus.sources()
        self._chance = _share(sources, weights)
        if self._chance is None:
            raise ValueError(
                f'no photo to train on: the corpus has the sources {sorted(set(sources))}, the '
                f'weights name {sorted(weights)}')
        self._cutouts = _find_cutouts(corpus, paste_weights)
        self._clips: dict[str, list[int]] = {}
        for row, clip in enumerate(corpus.clips()):
            if clip:
                self._clips.setdefault(clip, []).append(row)
        known = dict.fromkeys(recording_of(clip) for clip in self._clips)
        self._recordings = {name: number for number, name in enumerate(known, 1) if name}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[ViewSample, ViewSample]:
        rng = np.random.default_rng((self.seed, index))
        stacks, transforms, placements, exhaustive, recording = self._scene(rng)
        first, second = (draw_view(stacks[v], [pair[v] for pair in transforms], self.views)
                         for v in range(2))
        if rng.random() < self.views.mixup:
            first, second = self._mix(rng, first, second, _size(stacks[0][0]), placements)
        shared = ({item.identity for item in first.instances}
                  & {item.identity for item in second.instances})
        return (self._sample(rng, first, shared, exhaustive, recording),
                self._sample(rng, second, shared, exhaustive, recording))

    def scene_views(self, index: int) -> tuple[View, View]:
        """Draw a sample's views without blending and colour changes, to look at."""
        rng = np.random.default_rng((self.seed, index))
        stacks, transforms, *_ = self._scene(rng)
        first, second = (draw_view(stacks[v], [pair[v] for pair in transforms], self.views)
                         for v in range(2))
        return first, second

    def _scene(self, rng: np.random.Generator) -> tuple[
            list[list[Layer]], list[tuple[Transform, Transform]],
            tuple[Transform, Transform] | None, bool, int]:
        """Draw a photo or two frames of a clip, cut-outs on top, and how each of them moves."""
        index = int(rng.choice(len(self.corpus), p=self._chance))
        photo = self._photo(index, 1)
        stacks = [[photo], [self._photo(self._partner(rng, index), 1)]]
        placed, placements = self._placed(rng, photo)
        transforms = [placed]
        identity = PASTED
        for row in self._choose_cutouts(rng):
            source, instance = self._cutouts.places[row]
            layer = cut_out(self.corpus.image(source), _shape(
                self.corpus, source, instance, identity), identity)
            if rng.random() < 0.5:
                wide = ViewConfig(hue=20, saturation=50, value=50)
                layer = Layer(jitter_colours(rng, np.ascontiguousarray(layer.image), wide),
                              layer.alpha, layer.shapes)
            for stack in stacks:
                stack.append(bend(rng, layer, self.views.bend))
            # A bent cut-out is wider on both sides alike, so its centre has to move along.
            margin = (_size(stacks[0][-1])[1] - _size(layer)[1]) / 2
            first, second = object_transforms(rng, *_size(layer), self.views)
            transforms.append((compose(first, translate(-margin, 0)),
                               compose(second, translate(-margin, 0))))
            identity += 1
        record = self.corpus.records[index]
        return (stacks, transforms, placements, bool(record['exhaustive']),
                self._recordings.get(recording_of(str(record['clip'])), 0))

    def _placed(self, rng: np.random.Generator, photo: Layer) -> tuple[
            tuple[Transform, Transform], tuple[Transform, Transform] | None]:
        """Draw how a photo moves into two views, and what a blended one shares of that."""
        if not self.views.large_scale:
            return photo_transforms(rng, *_size(photo), self.views), None
        boxes = np.array([shape.box for shape in photo.shapes], np.float64).reshape(-1, 4)
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        for _ in range(_CROPS):
            affines, placements = large_scale_transforms(rng, *_size(photo), self.views)
            pair = (compose(placements[0], affines[0]), compose(placements[1], affines[1]))
            seen = [((moved > 0) & (moved < self.views.size)).all(1).any()
                    for moved in (apply(transform, centres) for transform in pair)]
            if all(seen):
                break
        return pair, placements

    def _partner(self, rng: np.random.Generator, index: int) -> int:
        """Choose another frame of the same clip; a photo on its own is its own partner."""
        frames = self._clips.get(str(self.corpus.records[index]['clip']), [index])
        return frames[int(rng.integers(len(frames)))]

    def _photo(self, index: int, first_identity: int) -> Layer:
        """Make a layer of an image and all its instances, numbered within its photo or clip."""
        identities = self.corpus.identities_of(index)
        if not self.corpus.records[index]['clip']:
            identities = np.arange(len(identities))
        return Layer(self.corpus.image(index), None, [
            _shape(self.corpus, index, i, first_identity + int(identity))
            for i, identity in enumerate(identities)])

    def _choose_cutouts(self, rng: np.random.Generator) -> list[int]:
        """Rows of the cut-out list for one scene; often all of one class."""
        bank = self._cutouts
        count = int(rng.integers(0, self.views.paste_max + 1))
        if not count or not len(bank.places):
            return []
        chance = bank.chance
        if len(bank.classes) and rng.random() < self.views.same_class:
            chosen = int(rng.choice(bank.classes, p=bank.class_chance))
            chance = np.where(bank.class_ids == chosen, chance, 0)
            chance = chance / chance.sum()
        return [int(row) for row in rng.choice(len(bank.places), count, p=chance)]

    def _mix(
        self, rng: np.random.Generator, first: View, second: View, photo: tuple[int, int],
        placements: tuple[Transform, Transform] | None,
    ) -> tuple[View, View]:
        """Blend a second photo into both views; its instances count as well."""
        index = int(rng.choice(len(self.corpus), p=self._chance))
        layer = self._photo(index, BLENDED)
        if placements is None:
            pair = photo_transforms(rng, *_size(layer), self.views)
        else:
            first_on, second_on = (
                blend_transform(rng, _size(layer), photo, self.views.size) for _ in range(2))
            pair = compose(placements[0], first_on), compose(placements[1], second_on)
        mixed = []
        for view, transform in zip((first, second), pair, strict=True):
            other = draw_view([layer], [transform], self.views)
            image = ((view.image.astype(np.uint16) + other.image + 1) // 2).astype(np.uint8)
            # A blended picture has no clean outline, so the partner's masks are not learned.
            partner = [ViewInstance(item.identity, item.box, None, 0, 0)
                       for item in other.instances]
            mine = [ViewInstance(item.identity, item.box, None, 0, 0)
                    for item in view.instances]
            mixed.append(View(image, mine + partner))
        return mixed[0], mixed[1]

    def _sample(
        self, rng: np.random.Generator, view: View, shared: set[int], exhaustive: bool,
        recording: int,
    ) -> ViewSample:
        """Colour a view and pick what is learned from it."""
        image = jitter_colours(rng, view.image, self.views)
        if rng.random() < self.views.photometric:
            image = weather(rng, image)
        items = view.instances
        # Instances seen in both views teach most; the others are negatives.
        rank = rng.random(len(items)) + [item.identity not in shared for item in items]
        chosen = [items[i] for i in np.argsort(rank)[:self.pairs.max_instances]]
        masked = [item for item in chosen if item.visible is not None]
        masked = masked[:self.pairs.max_masks]
        boxes = _stack([item.box for item in chosen])
        mask_boxes = jitter_boxes(
            rng, _stack([item.box for item in masked]), self.pairs.mask_jitter)
        side, margin = self.pairs.mask_size, self.pairs.mask_margin
        targets = [window_target(item, _window(box, margin), side)
                   for item, box in zip(masked, mask_boxes, strict=True)]
        return ViewSample(
            image, _stack([item.box for item in items]),
            jitter_boxes(rng, boxes, self.pairs.track_jitter),
            np.array([item.identity for item in chosen], np.int64), mask_boxes,
            np.stack(targets) if targets else np.zeros((0, side, side), np.uint8), exhaustive,
            recording=recording)


def recording_of(clip: str) -> str:
    """
    Name what several clips, ``RECORDING/PART``, are parts of; empty for a clip on its own.

    Identities hold within a clip. Another part may show the same objects under other numbers.
    """
    return clip.rpartition('/')[0]


@dataclass(frozen=True, eq=False)
class _Cutouts:
    """Instances that may be pasted: where they are, how likely, of which class."""

    places: list[tuple[int, int]]
    chance: NDArray[np.float64]
    class_ids: NDArray[np.int64]
    classes: NDArray[np.int64]
    class_chance: NDArray[np.float64]


def _find_cutouts(corpus: Corpus, weights: Mapping[str, float]) -> _Cutouts:
    """List the instances with masks that are neither specks nor backdrops."""
    places, class_ids, sources = [], [], []
    for index, source in enumerate(corpus.sources()):
        if weights.get(source, 0) <= 0:
            continue
        record = corpus.records[index]
        height, width = int(str(record['height'])), int(str(record['width']))
        labels, boxes = corpus.class_ids_of(index), corpus.boxes_of(index)
        for instance in np.flatnonzero(corpus.has_mask(index)):
            mask = corpus.mask(index, int(instance))
            area = mask.area if mask is not None else 0
            x0, y0, x1, y1 = boxes[instance]
            cut = (x0 <= 1) + (y0 <= 1) + (x1 >= width - 1) + (y1 >= height - 1)
            if 300 <= area <= 0.3 * height * width and cut <= 1:
                places.append((index, int(instance)))
                class_ids.append(int(labels[instance]))
                sources.append(source)
    labels = np.array(class_ids, np.int64)
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    chance = _share(sources, weights)
    enough = counts >= 6
    # Frequent classes have more different members, so a scene of them is worth more.
    class_chance = np.sqrt(counts[enough])
    return _Cutouts(places, np.zeros(0) if chance is None else chance, labels, values[enough],
                    class_chance / max(class_chance.sum(), 1))


def _share(sources: Sequence[str], weights: Mapping[str, float]) -> NDArray[np.float64] | None:
    """Probability of each row so that sources are drawn by weight, rows of one alike."""
    chance = np.zeros(len(sources))
    for source, weight in weights.items():
        rows = np.array([name == source for name in sources], bool)
        if rows.any():
            chance[rows] = weight / rows.sum()
    return chance / chance.sum() if chance.sum() > 0 else None


def _shape(corpus: Corpus, index: int, instance: int, identity: int) -> Shape:
    """One instance of the corpus as a shape of its photo."""
    mask = corpus.mask(index, instance)
    box = corpus.boxes_of(index)[instance]
    if mask is None:
        return Shape(identity, box)
    return Shape(identity, box, mask.decode(), mask.x_offset, mask.y_offset)


def jitter_boxes(
    rng: np.random.Generator, boxes: NDArray[np.float32], deviation: float,
) -> NDArray[np.float32]:
    """Move every side of boxes by Gaussian noise in parts of the box's width or height."""
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
    noise = np.clip(rng.normal(0, 1, boxes.shape), -2, 2) * deviation
    moved = boxes + noise * np.concatenate([sides, sides], 1)
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    return np.asarray(moved, np.float32)


def _window(box: NDArray[np.float32], margin: float) -> NDArray[np.float32]:
    """Box enlarged by a part of its sides, as the mask head does."""
    grow = (box[2:] - box[:2]) * margin
    window: NDArray[np.float32] = np.concatenate([box[:2] - grow, box[2:] + grow])
    return window


def _size(layer: Layer) -> tuple[int, int]:
    """Height and width."""
    return int(layer.image.shape[0]), int(layer.image.shape[1])


def _stack(boxes: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.stack(boxes) if boxes else np.zeros((0, 4), np.float32)


@dataclass(frozen=True, eq=False)
class Batch:
    """
    Several pairs as tensors; views 0 to B-1 are the first ones, B to 2B-1 their partners.

    Parameters
    ----------
    images : Tensor
        ``(2B, 3, S, S)`` uint8 RGB.
    boxes : tuple of Tensor
        ``2B`` tensors ``(N, 4)`` of everything labelled.
    exhaustive : Tensor
        ``(2B,)`` bool.
    track_rois : Tensor
        ``(T, 5)`` view index and box.
    identities : Tensor
        ``(T,)`` int64, different between pairs, equal for the two views of an instance.
    mask_rois : Tensor
        ``(K, 5)`` view index and box.
    mask_targets : Tensor
        ``(K, size, size)`` uint8.
    recordings : Tensor
        ``(B,)`` int64 recording of each pair, 0 for none; see `recording_of`.
    track_features : Tensor or None
        ``(T, C, 7, 7)`` of ``track_rois``, where they were pooled before.

    """

    images: Tensor
    boxes: tuple[Tensor, ...]
    exhaustive: Tensor
    track_rois: Tensor
    identities: Tensor
    mask_rois: Tensor
    mask_targets: Tensor
    recordings: Tensor
    track_features: Tensor | None = None

    @property
    def num_pairs(self) -> int:
        """Photos in the batch."""
        return len(self.boxes) // 2

    def to(self, device: torch.device) -> Batch:
        """Move everything to a device."""
        features = self.track_features
        return Batch(
            self.images.to(device), tuple(rows.to(device) for rows in self.boxes),
            self.exhaustive.to(device), self.track_rois.to(device), self.identities.to(device),
            self.mask_rois.to(device), self.mask_targets.to(device),
            self.recordings.to(device),
            None if features is None else features.to(device))


def collate(pairs: Sequence[tuple[ViewSample, ViewSample]]) -> Batch:
    """Put pairs together."""
    views = [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
    images = np.stack([view.image for view in views])
    identities = [view.identities + 1_000_000 * (i % len(pairs))
                  for i, view in enumerate(views)]
    features = [view.features for view in views if view.features is not None]
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        tuple(torch.from_numpy(view.boxes) for view in views),
        torch.tensor([view.exhaustive for view in views]),
        _rois([view.track_boxes for view in views]),
        torch.from_numpy(np.concatenate(identities)),
        _rois([view.mask_boxes for view in views]),
        torch.from_numpy(np.concatenate([view.mask_targets for view in views])),
        torch.tensor([pair[0].recording for pair in pairs]),
        torch.from_numpy(np.concatenate(features)) if features else None)


def _rois(boxes: Sequence[NDArray[np.float32]]) -> Tensor:
    """``(N, 5)`` of boxes with the index of their view in front."""
    index = np.concatenate([np.full(len(rows), i, np.float32) for i, rows in enumerate(boxes)])
    return torch.from_numpy(np.concatenate([index[:, None], np.concatenate(boxes)], 1))
