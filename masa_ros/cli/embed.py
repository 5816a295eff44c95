"""``masa_ros embed``: pictures of what a model's embeddings tell apart."""

from __future__ import annotations

import argparse
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
from masa_ros.cli.ignored_truth import in_regions
from masa_ros.cli.inputs import Input, open_input
from masa_ros.cli.settings import add_settings, read_settings, refuse_unused
from masa_ros.cli.teacher import READING
from masa_ros.cli.track import NO_BOXES
from masa_ros.evaluation.datasets.motchallenge import read_sequence
from masa_ros.evaluation.datasets.sequence import Sequence
from masa_ros.models import build_model
from masa_ros.models.model import Model
from masa_ros.pipeline import Pipeline, PipelineConfig
from masa_ros.ros.parameters import NodeConfig
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray

GAPS = (1, 2, 5, 10, 20, 40)
THUMB_PX = 72
MOST_POINTS = 1500


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'embed', help='draw what the embeddings of a model tell apart',
        description='Embed the ground-truth objects of a MOTChallenge sequence, or the tracked '
        'objects of any bag, video or image folder. Writes tsne.png (a map coloured by identity), '
        'retrieval.png and retrieval.csv (how often an object finds itself after a number of '
        'frames) and neighbours.png (what a sample of objects takes for itself; red frames are '
        'wrong).')
    parser.add_argument('sequence', type=Path,
                        help='folder with img1 and gt, or any bag, video or image folder')
    parser.add_argument('--topics', nargs='+', default=[], metavar='IMAGE[:DETECTIONS]',
                        help='image topic of a bag, perhaps with its detections')
    parser.add_argument('--max-frames', type=int, default=1000, metavar='N',
                        help='most frames of a recording without ground truth')
    parser.add_argument('--out', type=Path, required=True, help='folder for the pictures')
    parser.add_argument('--seed', type=int, default=0, help='seed of the map')
    add_settings(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    node_config, config = read_settings(args)
    if (args.sequence / 'gt' / 'gt.txt').is_file():
        refuse_unused(args, 'masa_ros embed with the boxes of the ground truth',
                      ('model', 'regions'))
        model = build_model(config.model)
        objects = embed_truth(in_regions([read_sequence(args.sequence)], config.regions)[0], model)
    else:
        model, objects = _embed_recording(args, node_config, config)
        print("there is no ground truth: identities are the tracker's own, so the figures say how "
              'well embeddings agree with it, not how right it is')
    curve = retrieval_curve(objects)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'retrieval.csv').write_text('frames apart,found,pairs\n' + ''.join(
        f'{gap},{found:.4f},{count}\n' for gap, found, count in curve))
    for gap, found, count in curve:
        print(f'{gap:3d} frames apart: {100 * found:5.1f} % of {count} find themselves')
    draw_curve(curve, model.name, args.out / 'retrieval.png')
    draw_map(objects, args.seed, args.out / 'tsne.png')
    sheet = neighbour_sheet(objects)
    cv2.imwrite(str(args.out / 'neighbours.png'), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    print(f'pictures are in {args.out}')
    return 0


def _embed_recording(
    args: argparse.Namespace, node_config: NodeConfig, config: PipelineConfig,
) -> tuple[Model, EmbeddedObjects]:
    """Track a recording as ``masa_ros track`` does, for the embeddings of its objects."""
    recording = open_input(args.sequence, node_config, args.topics,
                           use_bag_detections=not config.detector.enabled,
                           camera_motion=config.tracker.camera_motion)
    with closing(recording):
        pipeline = Pipeline(config)
        if not (recording.has_detections or pipeline.finds_objects):
            raise ValueError(NO_BOXES.format(model=config.model.name, path=args.sequence))
        used = ['model', 'regions', 'tracker', 'odometry', *READING]
        if recording.has_detections or pipeline.detector is not None:
            refuse_unused(args, 'masa_ros embed', [*used, 'detector', 'classes', 'detections'])
        else:
            refuse_unused(args, 'masa_ros embed without given boxes or a detector',
                          [*used, 'detector.name'])
        return pipeline.model, embed_tracks(
            recording, pipeline, args.max_frames, node_config.detections.missing)


class EmbeddedObjects:
    """
    Objects of a sequence, row by row.

    Parameters
    ----------
    frames : ndarray
        ``(N,)`` position of the frame.
    identities : ndarray
        ``(N,)`` true identities.
    embeddings : ndarray
        ``(N, D)``.
    thumbs : ndarray
        ``(N, THUMB_PX, THUMB_PX, 3)`` uint8 RGB.

    Raises
    ------
    ValueError
        If there is no object.

    """

    def __init__(
        self, frames: NDArray[np.int64], identities: NDArray[np.int64],
        embeddings: NDArray[np.float32], thumbs: NDArray[np.uint8],
    ) -> None:
        if not len(frames):
            raise ValueError('the sequence has no object to embed')
        self.frames, self.identities = frames, identities
        self.embeddings, self.thumbs = embeddings, thumbs

    def similarities(self, first: int, second: int) -> tuple[
            NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Rows of two frames and their cosines."""
        one, two = (np.flatnonzero(self.frames == frame) for frame in (first, second))
        unit = self.embeddings / np.maximum(
            np.linalg.norm(self.embeddings, axis=1, keepdims=True), 1e-9)
        return one, two, np.asarray(unit[one] @ unit[two].T, np.float32)


def embed_truth(sequence: Sequence, model: Model) -> EmbeddedObjects:
    """Embed the true boxes of every frame."""
    frames: list[int] = []
    identities: list[int] = []
    embeddings: list[NDArray[np.float32]] = []
    thumbs: list[NDArray[np.uint8]] = []
    for position in range(len(sequence)):
        truth = sequence.truth[position]
        if not len(truth):
            continue
        image = sequence.image(position)
        found = model.run([image], [Instances.from_boxes(truth.boxes)])[0]
        if found.embeddings is None:
            raise ValueError(f'the model {model.name} gives no embeddings')
        frames += [position] * len(truth)
        identities += truth.track_ids.tolist()
        embeddings += list(found.embeddings)
        thumbs += [_thumb(image, box) for box in truth.boxes]
    return EmbeddedObjects(
        np.array(frames, np.int64), np.array(identities, np.int64),
        np.array(embeddings, np.float32), np.array(thumbs, np.uint8))


def embed_tracks(
    recording: Input, pipeline: Pipeline, max_frames: int, missing: str = 'propose',
) -> EmbeddedObjects:
    """
    Track the first stream of a recording and take the embeddings of what was seen.

    Parameters
    ----------
    recording : Input
        Images, perhaps with boxes.
    pipeline : Pipeline
        What tracks them.
    max_frames : int
        Most frames.
    missing : {'skip', 'empty', 'propose'}
        What becomes of a frame without boxes where others have some: it is left out, is one
        without objects, or the pipeline finds them.

    Raises
    ------
    ValueError
        If nothing was tracked.

    """
    stream = recording.streams[0]
    frames: list[int] = []
    identities: list[int] = []
    embeddings: list[NDArray[np.float32]] = []
    thumbs: list[NDArray[np.uint8]] = []
    own = (item for item in recording if item.frame.stream == stream)
    for position, item in enumerate(islice(own, max_frames)):
        boxes = item.detections
        if boxes is None and recording.has_detections:
            if missing == 'skip':
                continue
            boxes = Instances() if missing == 'empty' else None
        tracks = pipeline.process(item.frame, boxes).tracks
        for row in np.flatnonzero(tracks.seen):
            if tracks.embeddings is not None:
                frames.append(position)
                identities.append(int(tracks.track_ids[row]))
                embeddings.append(tracks.embeddings[row])
                thumbs.append(_thumb(item.frame.image, tracks.boxes[row]))
    return EmbeddedObjects(
        np.array(frames, np.int64), np.array(identities, np.int64),
        np.array(embeddings, np.float32), np.array(thumbs, np.uint8))


def retrieval_curve(objects: EmbeddedObjects) -> list[tuple[int, float, int]]:
    """For each number of frames: part of the objects that find themselves, and their number."""
    curve = []
    for gap in GAPS:
        hits: list[bool] = []
        for frame in np.unique(objects.frames):
            one, two, cosine = objects.similarities(int(frame), int(frame) + gap)
            if not len(two):
                continue
            same = objects.identities[one][:, None] == objects.identities[two][None]
            known = same.any(1)
            hits += same[np.arange(len(one)), cosine.argmax(1)][known].tolist()
        if hits:
            curve.append((gap, float(np.mean(hits)), len(hits)))
    return curve


def draw_curve(curve: list[tuple[int, float, int]], name: str, path: Path) -> None:
    """Draw retrieval over the number of frames."""
    figure, axes = _figure(5, 3.5)
    axes.plot([row[0] for row in curve], [100 * row[1] for row in curve], marker='o', label=name)
    axes.set(xlabel='frames apart', ylabel='finds itself, %', ylim=(0, 101))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def draw_map(objects: EmbeddedObjects, seed: int, path: Path) -> None:
    """
    Draw a t-SNE map, one colour for each identity.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.

    """
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise ImportError('the map needs scikit-learn; pip install scikit-learn') from error
    rows = np.arange(len(objects.frames))
    if len(rows) > MOST_POINTS:
        rows = np.random.default_rng(seed).choice(rows, MOST_POINTS, replace=False)
    points = np.zeros((len(rows), 2))
    if len(rows) > 3:
        points = TSNE(perplexity=min(30, (len(rows) - 1) / 3), init='pca', random_state=seed,
                      metric='cosine').fit_transform(objects.embeddings[rows])
    figure, axes = _figure(6, 6)
    names, colours = np.unique(objects.identities[rows], return_inverse=True)
    axes.scatter(*points.T, c=colours % 20, cmap='tab20', vmin=0, vmax=19, s=9)
    for index, name in enumerate(names):
        axes.annotate(str(name), np.median(points[colours == index], axis=0), fontsize=9)
    axes.set(xticks=[], yticks=[], title=f'{len(rows)} views of {len(names)} objects')
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def neighbour_sheet(objects: EmbeddedObjects, gap: int = 10, rows: int = 12) -> NDArray[np.uint8]:
    """
    Show objects and what they take for themselves ``gap`` frames later, best first.

    Returns
    -------
    ndarray
        RGB picture; green frames are the same object, red ones another.

    """
    lines: list[NDArray[np.uint8]] = []
    frames = np.unique(objects.frames)
    for frame in frames[np.linspace(0, len(frames) - 1, 4 * rows).round().astype(int)]:
        one, two, cosine = objects.similarities(int(frame), int(frame) + gap)
        # An object that has left by then could only be wrong.
        there = np.flatnonzero(np.isin(objects.identities[one], objects.identities[two]))
        if len(two) < 2 or not len(there) or len(lines) >= rows:
            continue
        row = int(there[len(lines) % len(there)])
        best = np.argsort(-cosine[row])[:6]
        tiles = [objects.thumbs[one[row]]]
        for column in best:
            same = objects.identities[two[column]] == objects.identities[one[row]]
            tiles.append(_framed(objects.thumbs[two[column]], (0, 190, 0) if same
                                 else (220, 0, 0)))
        tiles += [np.full_like(tiles[0], 255)] * (7 - len(tiles))
        lines.append(np.concatenate(tiles, axis=1))
    if not lines:
        return np.full((THUMB_PX, 7 * THUMB_PX, 3), 255, np.uint8)
    return np.concatenate(lines)


def _thumb(image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Box cut out, fitted in a square."""
    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(box[:2]).astype(int), 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(box[2:]).astype(int), [x0 + 1, y0 + 1], [width, height])
    scale = (THUMB_PX - 6) / max(x1 - x0, y1 - y0)
    size = (max(round((x1 - x0) * scale), 1), max(round((y1 - y0) * scale), 1))
    crop = cv2.resize(image[y0:y1, x0:x1], size, interpolation=cv2.INTER_AREA)
    thumb = np.full((THUMB_PX, THUMB_PX, 3), 255, np.uint8)
    top, left = (THUMB_PX - size[1]) // 2, (THUMB_PX - size[0]) // 2
    thumb[top:top + size[1], left:left + size[0]] = crop
    return thumb


def _framed(thumb: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    framed = thumb.copy()
    cv2.rectangle(framed, (1, 1), (THUMB_PX - 2, THUMB_PX - 2), colour, 3)
    return framed


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """Figure and axes that draw to files, whatever the screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()
