"""
Tracked objects drawn on images, and sheets of such images.

A track keeps its color for life. Lines and letters grow with the image, so that an overlay can be
read at 640 and at 1920 pixels alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
import unicodedata

import cv2
from masa_ros.structures.boxes import box_areas
from masa_ros.structures.instances import Flag, TrackedInstances, TrackState
from masa_ros.structures.masks import RoiMask
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

# Ordered greedily so that each color is far (in OKLab) from the ten before it for normal, protan,
# deutan and tritan vision (simulated after Machado, Oliveira and Fernandes 2009), around the end
# as well: the least distance among any ten neighbors is 0.084, for hues spaced by the golden
# ratio it is 0.002.
PALETTE: tuple[Color, ...] = (
    (158, 143, 233), (183, 28, 14), (120, 250, 209), (23, 111, 124), (239, 148, 95),
    (147, 71, 194), (231, 232, 36), (36, 200, 177), (184, 123, 141), (102, 143, 51),
    (227, 162, 242), (49, 152, 214), (180, 20, 74), (158, 237, 251), (41, 107, 136),
    (243, 144, 109), (118, 62, 189), (227, 230, 123), (84, 216, 177), (181, 123, 150),
    (119, 139, 32), (215, 166, 252), (74, 148, 219), (160, 62, 67), (157, 239, 243),
    (20, 113, 117), (234, 153, 82), (132, 55, 178), (242, 224, 117), (63, 200, 161),
    (186, 123, 132), (234, 91, 30),
)
FONT = cv2.FONT_HERSHEY_SIMPLEX
BACKGROUND: Color = (32, 32, 32)


def track_color(track_id: int) -> Color:
    """RGB color of a track, the same wherever it is drawn."""
    return PALETTE[track_id % len(PALETTE)]


def draw_tracks(
    image: Image,
    tracks: TrackedInstances,
    *,
    masks: bool = True,
    boxes: bool = True,
    labels: bool = True,
    trails: Mapping[int, Sequence[tuple[float, float]]] | None = None,
    mask_opacity: float = 0.45,
) -> Image:
    """
    Draw tracked objects on a copy of an image.

    Seen objects have a solid box (thin while tentative), coasting ones a dashed box, lost ones a
    dim dotted box; removed ones are left out. What the model proposed by itself can cover the
    whole image: it is drawn while it is seen, as its mask and id alone where there is a mask.

    Parameters
    ----------
    image : ndarray
        ``(H, W, 3)`` uint8 RGB.
    tracks : TrackedInstances
        ``N`` objects, in pixels of the image.
    masks, boxes, labels : bool
        What to draw. A label reads ``<id> <class name> <score>``; the score only where the object
        was seen and given by a detection.
    trails : mapping, optional
        Points (x, y) of each track id, oldest first, such as a `Trails`.
    mask_opacity : float
        0 (invisible) to 1 (opaque).

    Returns
    -------
    ndarray
        ``(H, W, 3)`` uint8 RGB, a new array.

    Raises
    ------
    ValueError
        If the image is not ``(H, W, 3)`` uint8.

    """
    _check(image)
    canvas = np.ascontiguousarray(image).copy()
    line, font_scale = _sizes(canvas)
    visible = np.isfinite(tracks.boxes).all(axis=1) & (tracks.states != TrackState.REMOVED)
    proposed = (tracks.flags & int(Flag.FROM_PROPOSAL)) != 0
    visible &= ~proposed | (tracks.states <= TrackState.TRACKED)
    # Large objects first, or they would hide the small ones.
    order = np.argsort(-box_areas(tracks.boxes), kind='stable')
    rows = [int(row) for row in order if visible[row]]
    colors = {row: track_color(int(tracks.track_ids[row])) for row in rows}
    if masks:
        for row in rows:
            mask = tracks.masks[row]
            if mask is not None:
                _draw_mask(canvas, mask, colors[row], mask_opacity, line)
    if trails is not None:
        for row in rows:
            _draw_trail(canvas, trails.get(int(tracks.track_ids[row]), ()), colors[row], line)
    if boxes:
        for row in rows:
            if not (masks and proposed[row] and tracks.masks[row] is not None):
                _draw_box(canvas, tracks.boxes[row], TrackState(tracks.states[row]), colors[row],
                          line)
    if labels:
        _draw_labels(canvas, tracks, rows, colors, font_scale)
    return canvas


class Trails(Mapping[int, Sequence[tuple[float, float]]]):
    """
    Where each track has been lately: the middle of its box's lower edge, per frame.

    Parameters
    ----------
    length : int
        Most points per track.

    """

    def __init__(self, length: int = 30) -> None:
        self._length = length
        self._points: dict[int, deque[tuple[float, float]]] = {}

    def update(self, tracks: TrackedInstances) -> None:
        """Add the boxes of one frame; forget the tracks that are not in it."""
        present: dict[int, deque[tuple[float, float]]] = {}
        for track_id, box, state in zip(
                tracks.track_ids.tolist(), tracks.boxes.tolist(), tracks.states, strict=True):
            if state == TrackState.REMOVED:
                continue
            points = self._points.get(track_id, deque(maxlen=self._length))
            if state <= TrackState.COASTING and np.isfinite(box).all():
                points.append(((box[0] + box[2]) / 2, box[3]))
            present[track_id] = points
        self._points = present

    def __getitem__(self, track_id: int) -> Sequence[tuple[float, float]]:
        return self._points[track_id]

    def __iter__(self) -> Iterator[int]:
        return iter(self._points)

    def __len__(self) -> int:
        return len(self._points)


def contact_sheet(
    images: Iterable[Image],
    columns: int = 4,
    titles: Sequence[str] | None = None,
    tile_width_px: int = 480,
) -> Image:
    """
    Arrange images in a grid, row by row.

    Parameters
    ----------
    images : iterable of ndarray
        ``(H, W, 3)`` uint8 RGB each; sizes may differ, aspect ratios are kept.
    columns : int
        Tiles per row; fewer when there are fewer images.
    titles : sequence of str, optional
        A line above each image.
    tile_width_px : int
        Width of a tile. A row is as high as its highest image at this width.

    Returns
    -------
    ndarray
        ``(height, width, 3)`` uint8 RGB.

    Raises
    ------
    ValueError
        If there are no images, one is not ``(H, W, 3)`` uint8, or titles do not match them.

    """
    tiles = []
    for image in images:
        _check(image)
        height = max(1, round(image.shape[0] * tile_width_px / image.shape[1]))
        shrinks = image.shape[1] > tile_width_px
        tiles.append(cv2.resize(image, (tile_width_px, height),
                                interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
    if not tiles:
        raise ValueError('a contact sheet of no images was asked for; give at least one')
    if columns < 1:
        raise ValueError(f'a contact sheet of {columns} columns was asked for, expected 1 or more')
    if titles is not None and len(titles) != len(tiles):
        raise ValueError(f'{len(titles)} titles were given for {len(tiles)} images; give one each')
    columns = min(columns, len(tiles))
    gap = max(2, tile_width_px // 100)
    band = max(14, tile_width_px // 20) if titles is not None else 0
    heights = [band + max(tile.shape[0] for tile in tiles[start:start + columns])
               for start in range(0, len(tiles), columns)]
    tops = np.cumsum([gap, *(height + gap for height in heights)]).tolist()
    sheet = np.empty((tops[-1], columns * (tile_width_px + gap) + gap, 3), np.uint8)
    sheet[:] = BACKGROUND
    for index, tile in enumerate(tiles):
        y = tops[index // columns]
        x = gap + index % columns * (tile_width_px + gap)
        sheet[y + band:y + band + tile.shape[0], x:x + tile_width_px] = tile
        if titles is not None:
            title = sheet[y:y + band, x:x + tile_width_px]  # A view: long titles end at the edge.
            cv2.putText(title, _ascii(titles[index]), (2, band - band // 4), FONT, band / 34,
                        (230, 230, 230), max(1, band // 20), cv2.LINE_AA)
    return sheet


def _check(image: Image) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f'image is a {image.dtype} array of shape {image.shape}, expected a '
                         'non-empty (height, width, 3) uint8 RGB array')


def _sizes(image: Image) -> tuple[int, float]:
    """Line width in pixels and font scale that suit an image."""
    unit = max(image.shape[:2]) / 640
    return max(1, round(unit)), max(0.3, 0.42 * unit ** 0.7)


def _draw_mask(
    canvas: Image, mask: RoiMask, color: Color, opacity: float, line: int,
) -> None:
    """Tint a mask and draw its outline, touching its region only."""
    x0, y0 = max(mask.x_offset, 0), max(mask.y_offset, 0)
    y1, x1 = max(mask.y_offset + mask.height, 0), max(mask.x_offset + mask.width, 0)
    region = canvas[y0:y1, x0:x1]
    if region.size == 0 or mask.area == 0:
        return
    inside = mask.decode()[y0 - mask.y_offset:, x0 - mask.x_offset:]
    inside = inside[:region.shape[0], :region.shape[1]]
    cover = np.ascontiguousarray(inside, dtype=np.uint8)
    share = opacity * np.array([*color, 0.0])  # Four numbers are a scalar to OpenCV.
    cv2.copyTo(cv2.add(cv2.convertScaleAbs(region, alpha=1 - opacity), share), cover, region)
    outlines, _ = cv2.findContours(cover, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(region, outlines, -1, color, line)


def _draw_box(
    canvas: Image, box: NDArray[np.float32], state: TrackState, color: Color, line: int,
) -> None:
    height, width = canvas.shape[:2]
    # Beyond the image the exact place does not matter, but huge numbers would overflow.
    limits = np.array([width, height, width, height], np.float32)
    edges = np.rint(np.clip(box, -limits, 2 * limits)).astype(int)
    x0, y0 = int(edges[0]), int(edges[1])
    x1, y1 = max(int(edges[2]) - 1, x0), max(int(edges[3]) - 1, y0)
    if state in (TrackState.TENTATIVE, TrackState.TRACKED):
        thickness = line + 1 if state == TrackState.TRACKED else 1
        cv2.rectangle(canvas, (x0, y0), (x1, y1), color, thickness)
        return
    coasting = state == TrackState.COASTING
    dash, gap = (6 * line, 4 * line) if coasting else (3 * line, 5 * line)
    thickness = line + 1 if coasting else line
    if not coasting:
        color = (color[0] // 2 + 48, color[1] // 2 + 48, color[2] // 2 + 48)
    for y in (y0, y1 - thickness + 1):
        _dash(canvas[max(y, 0):max(y + thickness, 0)].transpose(1, 0, 2), x0, x1, dash, gap, color)
    for x in (x0, x1 - thickness + 1):
        _dash(canvas[:, max(x, 0):max(x + thickness, 0)], y0, y1, dash, gap, color)


def _dash(strip: Image, start: int, end: int, dash: int, gap: int, color: Color) -> None:
    """Paint dashes on rows ``start`` to ``end`` of a strip."""
    places = np.arange(max(start, 0), min(end + 1, len(strip)))
    strip[places[(places - start) % (dash + gap) < dash]] = color


def _draw_trail(
    canvas: Image, points: Sequence[tuple[float, float]], color: Color, line: int,
) -> None:
    if len(points) > 1:
        path = np.rint(np.clip(np.array(points), -32000, 32000)).astype(np.int32)
        cv2.polylines(canvas, [path], False, color, line, cv2.LINE_AA)


def _draw_labels(
    canvas: Image, tracks: TrackedInstances, rows: Sequence[int], colors: dict[int, Color],
    font_scale: float,
) -> None:
    """Write the labels, each where it covers no earlier one if there is such a place."""
    height, width = canvas.shape[:2]
    thickness = max(1, round(font_scale * 1.8))
    taken = np.zeros((0, 4))
    for row in rows[::-1]:  # Small objects choose first: large ones have more places.
        x0, y0, x1, y1 = tracks.boxes[row].tolist()
        if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
            continue
        text = _text(_label(tracks, row), font_scale, thickness)
        size = np.array(text.shape[::-1])
        corners = np.array([(x0, y0 - size[1]), (x0, y0), (x0, y1), (x1 - size[0], y1 - size[1])])
        corners = np.clip(corners, 0, np.maximum([width, height] - size, 0))
        places = np.concatenate([corners, corners + size], axis=1)
        low = np.maximum(places[:, None, :2], taken[None, :, :2])
        high = np.minimum(places[:, None, 2:], taken[None, :, 2:])
        covered = np.maximum(high - low, 0).prod(axis=2).sum(axis=1)
        best = places[covered.argmin()]
        taken = np.concatenate([taken, best[None]])
        left, top = round(best[0]), round(best[1])
        plate = canvas[top:top + len(text), left:left + text.shape[1]]
        plate[:] = np.take(_ramp(colors[row]), text[:plate.shape[0], :plate.shape[1]], axis=0,
                           mode='clip')  # Four times as fast as indexing.


def _text(words: Sequence[str], font_scale: float, thickness: int) -> Image:
    """Opacity ``(height, width)`` of a line of text, with a margin."""
    return np.concatenate([_word(word, font_scale, thickness) for word in words], axis=1)


@lru_cache(maxsize=4096)
def _word(word: str, font_scale: float, thickness: int) -> Image:
    """Opacity of a word; kept, because smooth letters are slow to draw and words come again."""
    (width, height), base = cv2.getTextSize(word, FONT, font_scale, thickness)
    margin = 2 + height // 6
    plate = np.zeros((height + base + 2, width + 2 * margin), np.uint8)
    cv2.putText(plate, word, (margin, height + 1), FONT, font_scale, 255, thickness, cv2.LINE_AA)
    return plate


@lru_cache(maxsize=len(PALETTE))
def _ramp(color: Color) -> Image:
    """Colors ``(256, 3)`` from the plate's to the letters', which are black on bright plates."""
    bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 125
    letters = 0 if bright else 255
    opacity = np.linspace(0, 1, 256)[:, None]
    return np.rint(np.array(color) * (1 - opacity) + letters * opacity).astype(np.uint8)


def _label(tracks: TrackedInstances, row: int) -> list[str]:
    parts = [str(int(tracks.track_ids[row])), _ascii(tracks.labels[row])]
    proposed = tracks.flags[row] & int(Flag.FROM_PROPOSAL)
    if (tracks.states[row] <= TrackState.TRACKED and np.isfinite(tracks.scores[row])
            and not proposed):
        parts.append(f'{tracks.scores[row]:.2f}')
    return [part for part in parts if part]


def _ascii(text: str) -> str:
    """Letters that OpenCV's fonts have; accents are dropped, others become question marks."""
    plain = ''.join(letter for letter in unicodedata.normalize('NFKD', text.replace('ß', 'ss'))
                    if not unicodedata.combining(letter))
    return plain.encode('ascii', 'replace').decode()
