"""
Detectors in ONNX files, run by onnxruntime on the CPU or a GPU.

YOLOX and PicoDet files hold the network only: what comes before (resizing, colour order,
normalization) and after (decoding of grid cells to boxes, non-maximum suppression) differs
between the two and is done here, in numpy.

Any other detector fits by the style ``boxes``, a small contract. Its file takes one image
``(1, 3, H, W)`` float32, RGB from 0 to 1, scaled with its shape kept into the top-left corner of
a grey input, and gives three outputs with these names: ``boxes`` ``(N, 4)`` xyxy in pixels of the
input, ``scores`` ``(N,)`` from 0 to 1, and ``labels`` ``(N,)`` class numbers from 0. A leading
axis of size 1 is allowed on each, ``N`` may differ from image to image, and normalization belongs
into the file.

References
----------
Z. Ge et al., "YOLOX: exceeding YOLO series in 2021", arXiv:2107.08430.
G. Yu et al., "PP-PicoDet: a better real-time object detector on mobile devices",
arXiv:2111.00902; the distribution over distances is that of X. Li et al., "Generalized focal
loss", NeurIPS 2020.

"""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path
from typing import Any

import cv2
from masa_ros.detectors import DetectorConfig, import_library
from masa_ros.detectors.detector import Detector
from masa_ros.detectors.prompts import choose_classes, read_names, wanted_names
from masa_ros.structures.boxes import box_areas, clip_boxes, nms
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

STRIDES = (8, 16, 32, 64, 128)
MOST_CANDIDATES = 1000  # Boxes that enter non-maximum suppression, which is quadratic in them.
PADDING = 114  # Grey that YOLOX is trained to see beside an image.
PICODET_MEAN = np.array([123.675, 116.28, 103.53], np.float32)
PICODET_DEVIATION = np.array([58.395, 57.12, 57.375], np.float32)
BOXES_OUTPUTS = ('boxes', 'scores', 'labels')


def build(config: DetectorConfig, model: Any = None) -> Detector:
    """
    Load the detector that a configuration names.

    Raises
    ------
    ValueError
        If no file is named, onnxruntime is missing, the outputs have no known layout, or class
        names do not fit.
    FileNotFoundError
        If the file or the class file is not there.

    """
    return OnnxDetector(config)


class OnnxDetector:
    """
    One ONNX file with its pre- and post-processing.

    Parameters
    ----------
    config : DetectorConfig
        Names the file; see `build` for what is refused.

    """

    open_vocabulary = False

    def __init__(self, config: DetectorConfig) -> None:
        self._session = open_session(config)
        image_input = self._session.get_inputs()[0]
        self._input_name = str(image_input.name)
        self._size = input_size(config.checkpoint, [
            tuple(item.shape) for item in self._session.get_inputs()])
        # Declared shapes may be symbolic; those of a real run are not.
        blank = np.zeros((1, 3, *self._size), np.float32)
        self._outputs = [str(output.name) for output in self._session.get_outputs()]
        shapes = [output.shape for output in self._infer(blank)]
        self._style = find_style(shapes, self._size, config.style, self._outputs)
        classes = {'yolox': shapes[0][-1] - 5, 'picodet': shapes[0][-1], 'boxes': None}
        self._num_classes: int | None = classes[self._style]
        self._names = read_names(config.class_file, self._num_classes)
        self._keep: NDArray[np.bool_] | None = None
        self.name = f'onnx {Path(config.checkpoint).name} ({self._style})'
        self.reconfigure(config)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Classes that are looked for; empty where they have numbers only."""
        keep = self._keep
        return self._names if keep is None else tuple(
            name for name, kept in zip(self._names, keep, strict=True) if kept)

    def warm_up(self) -> None:
        """Run once on a dummy image."""
        self.detect([np.zeros((*self._size, 3), np.uint8)])

    def detect(self, images: Sequence[NDArray[np.uint8]]) -> list[Instances]:
        """See `masa_ros.detectors.detector.Detector.detect`."""
        return [self._detect_one(image) for image in images]

    def reconfigure(self, config: DetectorConfig) -> None:
        """
        Take over thresholds, limits and the classes to keep.

        Raises
        ------
        ValueError
            If a class to keep is not one of the class file's.

        """
        self.set_classes(wanted_names(config.classes, config.text))
        self._config = config

    def set_classes(self, names: Sequence[str]) -> None:
        """See `masa_ros.detectors.detector.Detector.set_classes`."""
        keep = choose_classes(names, self._names, 'onnx')
        self._keep = None if all(keep) else np.array(keep, bool)

    def close(self) -> None:
        """Free memory."""
        self._session = None

    def _infer(self, blob: Floats) -> list[Floats]:
        outputs = self._session.run(None, {self._input_name: blob})
        return [np.asarray(output, np.float32) for output in outputs]

    def _detect_one(self, image: NDArray[np.uint8]) -> Instances:
        config, keep = self._config, self._keep
        boxes, best, classes = self._found(image, config)
        boxes = clip_boxes(boxes, image.shape[0], image.shape[1])
        rows = np.flatnonzero((best >= config.score_threshold) & (box_areas(boxes) > 0))
        if keep is not None:
            rows = rows[keep[classes[rows]]]
        rows = rows[np.argsort(-best[rows], kind='stable')[:MOST_CANDIDATES]]
        kept = nms(boxes[rows], best[rows], config.nms_threshold, classes[rows])
        rows = rows[kept[:config.max_detections]]
        labels = [self._names[i] for i in classes[rows]] if self._names else None
        return Instances.from_boxes(boxes[rows], np.clip(best[rows], 0, 1), classes[rows], labels)

    def _found(
        self, image: NDArray[np.uint8], config: DetectorConfig,
    ) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Boxes in image pixels, their best scores and those scores' classes."""
        if self._style == 'boxes':
            blob, scale = prepare_boxes(image, self._size)
            boxes, best, classes = decode_boxes(
                dict(zip(self._outputs, self._infer(blob), strict=True)))
            if self._names and len(classes) and not 0 <= classes.min() <= classes.max() < len(
                    self._names):
                raise ValueError(
                    f'{self.name} gives class numbers from {classes.min()} to {classes.max()}, '
                    f'but detector.class_file has {len(self._names)} names; write one line for '
                    'each number from 0')
            return np.asarray(boxes / scale[[0, 1, 0, 1]], np.float32), best, classes
        if self._style == 'yolox':
            blob, scale = prepare_yolox(image, self._size)
            boxes, scores = decode_yolox(self._infer(blob)[0][0], self._size)
        else:
            blob, scale = prepare_picodet(image, self._size)
            outputs = [output[0] for output in self._infer(blob)]
            boxes, scores = decode_picodet(outputs, self._size, config.score_threshold)
        classes = scores.argmax(axis=1)
        best = np.take_along_axis(scores, classes[:, None], axis=1)[:, 0]
        return np.asarray(boxes / scale[[0, 1, 0, 1]], np.float32), best, classes


def open_session(config: DetectorConfig) -> Any:
    """Return an onnxruntime session of the file that a configuration names."""
    if not config.checkpoint:
        raise ValueError('detector.checkpoint is empty; set it to the ONNX file of the detector, '
                         'such as yolox_nano.onnx, or set detector.name to none')
    path = Path(config.checkpoint).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'detector file {path} is not there (looked in '
                                f'{path.absolute().parent}); correct detector.checkpoint')
    onnxruntime: Any = import_library('onnxruntime', 'onnx', 'onnxruntime')
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = config.threads or default_threads()
    # Waiting threads would otherwise spin, taking the cores from camera drivers and DDS.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.log_severity_level = 3  # Exporters leave hundreds of harmless warnings.
    available = onnxruntime.get_available_providers()
    providers = [name for name in ('CUDAExecutionProvider', 'CPUExecutionProvider')
                 if name in available]
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own classes derive from Exception only.
        raise ValueError(f'{path} cannot be loaded as an ONNX model ({error}); export it anew or '
                         'check that the download is complete') from error


def default_threads() -> int:
    """Half of the cores this process may use, from 1 to 4; the rest is for everything else."""
    cores = (len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity')
             else os.cpu_count() or 1)
    return max(1, min(4, cores // 2))


def input_size(name: str, shapes: Sequence[tuple[Any, ...]]) -> tuple[int, int]:
    """
    Height and width of the only input, from the declared input shapes.

    Raises
    ------
    ValueError
        If there are more inputs, or the one is not ``(1 or free, 3, fixed, fixed)``.

    """
    if len(shapes) != 1:
        raise ValueError(f'{name} has {len(shapes)} inputs, expected one image; export the '
                         'detector without post-processing')
    shape = shapes[0]
    if len(shape) != 4 or shape[1] != 3 or (isinstance(shape[0], int) and shape[0] != 1):
        raise ValueError(f'{name} takes {shape}, expected an image of shape (1, 3, height, '
                         'width); export the detector with batch size 1 and channels first')
    if not all(isinstance(side, int) and side > 0 for side in shape[2:]):
        raise ValueError(f'{name} takes {shape}, with height and width left open; export the '
                         'detector with a fixed input size')
    return int(shape[2]), int(shape[3])


def find_style(
    shapes: Sequence[tuple[int, ...]], size: tuple[int, int], wanted: str = 'auto',
    outputs: Sequence[str] = (),
) -> str:
    """
    Tell a detector's style from the shapes and names of its outputs.

    Parameters
    ----------
    shapes : sequence of tuple
        Output shapes with batch size 1.
    size : tuple of int
        Height and width of the input.
    wanted : str
        ``auto``, or the style that the shapes must fit.
    outputs : sequence of str
        Names of the outputs.

    Raises
    ------
    ValueError
        If the shapes fit no style, or not the one wanted.

    """
    flat = all(len(shape) == 3 and shape[0] == 1 for shape in shapes)
    found = ''
    if set(BOXES_OUTPUTS) <= set(outputs):
        found = 'boxes'
    elif flat and len(shapes) == 1 and shapes[0][2] > 5 and yolox_strides(shapes[0][1], size):
        found = 'yolox'
    elif flat and len(shapes) >= 2 and len(shapes) % 2 == 0 and _fits_picodet(shapes, size):
        found = 'picodet'
    if found and wanted in ('auto', found):
        return found
    raise ValueError(
        f'the detector gives outputs of shape {", ".join(str(tuple(item)) for item in shapes)} '
        f'for an input of {size[0]} x {size[1]}, which '
        + (f'is {found} style, not {wanted}; set detector.style to auto' if found else
           'fits no known style: yolox is one output (1, cells of strides 8, 16, 32, 5 + '
           'classes); picodet is class scores (1, cells, classes) of every stride, then box '
           'distances (1, cells, 4 x bins) of every stride, both without post-processing; boxes '
           'is three outputs named boxes (N, 4), scores (N) and labels (N)'))


def _fits_picodet(shapes: Sequence[tuple[int, ...]], size: tuple[int, int]) -> bool:
    half = len(shapes) // 2
    scores, distances = shapes[:half], shapes[half:]
    return (
        all(score[1] == distance[1] and cell_stride(score[1], size) > 0
            for score, distance in zip(scores, distances, strict=True))
        and len({score[2] for score in scores}) == 1
        and len({distance[2] for distance in distances}) == 1
        and distances[0][2] % 4 == 0 and distances[0][2] >= 8)


def cell_stride(cells: int, size: tuple[int, int]) -> int:
    """Stride at which an input of a size has so many cells; 0 for none."""
    for stride in STRIDES:
        if -(-size[0] // stride) * -(-size[1] // stride) == cells:
            return stride
    return 0


def yolox_strides(cells: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Strides, from 8 up, whose cells together are so many; empty for none."""
    total = 0
    for count, stride in enumerate(STRIDES, start=1):
        total += (size[0] // stride) * (size[1] // stride)
        if total == cells:
            return STRIDES[:count]
    return ()


def cell_corners(size: tuple[int, int], stride: int) -> Floats:
    """``(cells, 2)`` x and y of each cell's corner in cells, row by row."""
    y, x = np.mgrid[:-(-size[0] // stride), :-(-size[1] // stride)]
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def prepare_yolox(
    image: NDArray[np.uint8], size: tuple[int, int],
) -> tuple[Floats, Floats]:
    """
    Scale an RGB image into the top-left corner of a grey input, as BGR from 0 to 255.

    Returns
    -------
    blob : ndarray
        ``(1, 3, height, width)`` float32.
    scale : ndarray
        ``(2,)`` input pixels per image pixel in x and y.

    """
    height, width = image.shape[:2]
    ratio = min(size[0] / height, size[1] / width)
    # At least one pixel, also of an image a thousand times as wide as high.
    inner = (max(1, round(width * ratio)), max(1, round(height * ratio)))
    canvas = np.full((*size, 3), PADDING, np.uint8)
    canvas[:inner[1], :inner[0]] = cv2.resize(image, inner, interpolation=cv2.INTER_LINEAR)
    blob = np.ascontiguousarray(canvas[..., ::-1].transpose(2, 0, 1)[None], np.float32)
    return blob, np.array([inner[0] / width, inner[1] / height], np.float32)


def prepare_boxes(
    image: NDArray[np.uint8], size: tuple[int, int],
) -> tuple[Floats, Floats]:
    """Scale as `prepare_yolox` does, but RGB from 0 to 1."""
    blob, scale = prepare_yolox(image, size)
    return np.ascontiguousarray(blob[:, ::-1] / np.float32(255)), scale


def decode_boxes(outputs: dict[str, Floats]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """
    Check the outputs of the style ``boxes``.

    Returns
    -------
    boxes : ndarray
        ``(N, 4)`` xyxy in pixels of the input.
    scores : ndarray
        ``(N,)``.
    classes : ndarray
        ``(N,)`` int64.

    Raises
    ------
    ValueError
        If shapes do not fit each other.

    """
    boxes, scores, classes = (outputs[name] for name in BOXES_OUTPUTS)
    boxes = boxes[0] if boxes.ndim == 3 and len(boxes) == 1 else boxes
    scores, classes = (values[0] if values.ndim == 2 and len(values) == 1 else values
                       for values in (scores, classes))
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not (
            scores.shape == classes.shape == boxes.shape[:1]):
        raise ValueError(f'the detector gives boxes {boxes.shape}, scores {scores.shape} and '
                         f'labels {classes.shape}, expected (N, 4), (N,) and (N,)')
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    return boxes[finite], scores[finite], classes[finite].astype(np.int64)


def prepare_picodet(
    image: NDArray[np.uint8], size: tuple[int, int],
) -> tuple[Floats, Floats]:
    """Stretch an RGB image to the input and normalize it; returns as `prepare_yolox` does."""
    height, width = image.shape[:2]
    canvas = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    normal = (canvas.astype(np.float32) - PICODET_MEAN) / PICODET_DEVIATION
    blob = np.ascontiguousarray(normal.transpose(2, 0, 1)[None])
    return blob, np.array([size[1] / width, size[0] / height], np.float32)


def decode_yolox(output: Floats, size: tuple[int, int]) -> tuple[Floats, Floats]:
    """
    Turn YOLOX cells into boxes and class scores.

    Parameters
    ----------
    output : ndarray
        ``(cells, 5 + classes)``: centre offset in cells, log size in cells, objectness, class
        scores, the last two in ``[0, 1]``.
    size : tuple of int
        Height and width of the input.

    Returns
    -------
    boxes : ndarray
        ``(cells, 4)`` xyxy in pixels of the input.
    scores : ndarray
        ``(cells, classes)`` objectness times class score.

    """
    strides = yolox_strides(len(output), size)
    corners = [cell_corners(size, stride) for stride in strides]
    scale = np.concatenate([np.full((len(part), 1), stride, np.float32)
                            for part, stride in zip(corners, strides, strict=True)])
    centers = (output[:, :2] + np.concatenate(corners)) * scale
    # A cell of an untrained or half-precision model must not overflow: e^20 cells is any size.
    half = np.exp(np.minimum(output[:, 2:4], 20)) * scale / 2
    return np.concatenate([centers - half, centers + half], axis=1), output[:, 4:5] * output[:, 5:]


def decode_picodet(
    outputs: Sequence[Floats], size: tuple[int, int], score_threshold: float = 0.0,
) -> tuple[Floats, Floats]:
    """
    Turn PicoDet cells into boxes and class scores.

    Parameters
    ----------
    outputs : sequence of ndarray
        Class scores ``(cells, classes)`` of each stride, then ``(cells, 4 * bins)`` logits of
        the distances to the left, top, right and bottom edge, in strides.
    size : tuple of int
        Height and width of the input.
    score_threshold : float
        Cells whose best score is below are left out, which saves most of the work.

    Returns
    -------
    boxes : ndarray
        ``(K, 4)`` xyxy in pixels of the input.
    scores : ndarray
        ``(K, classes)``.

    """
    boxes, scores = [], []
    half = len(outputs) // 2
    for score, logits in zip(outputs[:half], outputs[half:], strict=True):
        stride = cell_stride(len(score), size)
        rows = np.flatnonzero(score.max(axis=1) >= score_threshold)
        chosen = logits[rows].reshape(len(rows), 4, logits.shape[1] // 4)
        shares = np.exp(chosen - chosen.max(axis=2, keepdims=True))
        distances = (shares @ np.arange(shares.shape[2], dtype=np.float32)) / shares.sum(axis=2)
        centers = cell_corners(size, stride)[rows] + np.float32(0.5)
        boxes.append(np.concatenate(
            [centers - distances[:, :2], centers + distances[:, 2:]], axis=1) * stride)
        scores.append(score[rows])
    return np.concatenate(boxes), np.concatenate(scores)
