"""
Association: how alike detections and tracks are, and who gets whom.

Shapes: N detections of a frame, M entries of the memory (tracks, then distractors), D embedding
width. Every function takes whole arrays; rows are ranked by descending score where order matters.
"""

from __future__ import annotations

from masa_ros.structures.boxes import box_areas
from masa_ros.tracking.workspace import Workspace
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

UNMATCHED = -1
SUPPRESSED = -2

Floats = NDArray[np.float32]


def rows_where(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of the rows whose flag is true; a quick `numpy.flatnonzero` for one axis."""
    return flags.nonzero()[0]


def check_embeddings(detection_embeddings: Floats, track_embeddings: Floats) -> None:
    """
    Check that detections and memory can be compared.

    Raises
    ------
    ValueError
        If either input is not 2-D, or their embedding widths differ.

    """
    for name, array in (('detection', detection_embeddings), ('track', track_embeddings)):
        if array.ndim != 2:
            raise ValueError(f'{name} embeddings have shape {array.shape}, expected two axes: '
                             'one row per object')
    if detection_embeddings.shape[1] != track_embeddings.shape[1]:
        raise ValueError(
            f'detection embeddings are {detection_embeddings.shape[1]} wide but the track memory '
            f'holds {track_embeddings.shape[1]}-wide ones; call tracker.reset() after changing '
            'the model')


def bisoftmax_similarity(detection_embeddings: Floats, track_embeddings: Floats) -> Floats:
    """
    Score every detection against every track by bidirectional softmax.

    Parameters
    ----------
    detection_embeddings : ndarray
        ``(N, D)`` float32, not normalized. One row per detection of this frame.
    track_embeddings : ndarray
        ``(M, D)`` float32. One row per entry of the memory.

    Returns
    -------
    ndarray
        ``(N, M)`` in ``[0, 1]``: the mean of a softmax over the tracks and one over the
        detections. Empty when ``N`` or ``M`` is 0.

    Raises
    ------
    ValueError
        If either input is not 2-D, or their embedding widths differ.

    References
    ----------
    Paper, appendix J.4, equation 2, ``s1``: raw dot products, no temperature.

    """
    return appearance_similarity('bisoftmax', detection_embeddings, track_embeddings)


def softmax_similarity(detection_embeddings: Floats, track_embeddings: Floats) -> Floats:
    """Softmax over the tracks only, ``(N, M)``; see `bisoftmax_similarity` for the inputs."""
    return appearance_similarity('softmax', detection_embeddings, track_embeddings)


def cosine_similarity(detection_embeddings: Floats, track_embeddings: Floats) -> Floats:
    """Cosine of the angle, ``(N, M)`` in ``[-1, 1]``; an all-zero embedding gives 0."""
    return appearance_similarity('cosine', detection_embeddings, track_embeddings)


def combined_similarity(detection_embeddings: Floats, track_embeddings: Floats) -> Floats:
    """
    Mean of bidirectional softmax and cosine, ``(N, M)`` in ``[-0.5, 1]``.

    References
    ----------
    Paper, appendix J.4, equation 2, ``s``.

    """
    return appearance_similarity('combined', detection_embeddings, track_embeddings)


def appearance_similarity(
    kind: str, detection_embeddings: Floats, track_embeddings: Floats,
    workspace: Workspace | None = None,
) -> Floats:
    """
    Compute one of the similarities of the reference trackers.

    Parameters
    ----------
    kind : {'combined', 'bisoftmax', 'softmax', 'cosine', 'product'}
        Which one; the product is the cosine of embeddings of unit length.
    detection_embeddings, track_embeddings : ndarray
        ``(N, D)`` and ``(M, D)`` float32.
    workspace : Workspace, optional
        Where to compute; the result is its table ``products`` or ``similarity``.

    Returns
    -------
    ndarray
        ``(N, M)`` float32.

    Raises
    ------
    ValueError
        If the kind is unknown, an input is not 2-D, or the embedding widths differ.

    """
    known = ('combined', 'bisoftmax', 'softmax', 'cosine', 'product')
    if kind not in known:
        raise ValueError(f'unknown similarity {kind!r}; known ones are {", ".join(known)}')
    check_embeddings(detection_embeddings, track_embeddings)
    work = workspace or Workspace()
    shape = len(detection_embeddings), len(track_embeddings)
    products: Floats = work.table('products', *shape)
    np.matmul(detection_embeddings, track_embeddings.T, out=products)
    if not products.size or kind == 'product':
        return products
    if kind == 'softmax':
        return _softmax(products, 1, work.table('similarity', *shape))
    if kind == 'cosine':
        return _cosines(products, detection_embeddings, track_embeddings)
    both = _softmax(products, 1, work.table('similarity', *shape), weight=0.5)
    both += _softmax(products, 0, work.table('softmax', *shape), weight=0.5)
    if kind == 'combined':
        both += _cosines(products, detection_embeddings, track_embeddings)
        both *= 0.5
    return both


def _cosines(products: Floats, first: Floats, second: Floats) -> Floats:
    """Turn dot products, in place, into cosines."""
    products *= _inverse_lengths(first)[:, None]
    products *= _inverse_lengths(second)
    return products


def _inverse_lengths(embeddings: Floats) -> Floats:
    lengths = np.sqrt(np.einsum('ij,ij->i', embeddings, embeddings))
    return np.asarray(1 / np.maximum(lengths, np.finfo(np.float32).tiny ** 0.5), np.float32)


def _softmax(logits: Floats, axis: int, out: Floats, weight: float = 1.0) -> Floats:
    """Weight times the softmax over an axis; matrix products add faster than sums do."""
    np.subtract(logits, logits.max(axis=axis, keepdims=True), out=out)
    np.exp(out, out=out)
    ones = np.ones(logits.shape[axis], np.float32)
    out *= weight / ((out @ ones)[:, None] if axis else ones @ out)
    return out


def distance_gate(
    detection_boxes: Floats, track_boxes: Floats, gaps_frames: NDArray[np.int64],
    max_distance_px: float, rate_hz: float, workspace: Workspace | None = None,
) -> Floats:
    """
    Factor that fades matches to far-away tracks, as the reference's demo has it.

    Parameters
    ----------
    detection_boxes : ndarray
        ``(N, 4)`` xyxy in input pixels.
    track_boxes : ndarray
        ``(M, 4)`` the last box of each track.
    gaps_frames : ndarray
        ``(M,)`` frames since each track was seen.
    max_distance_px : float
        Distance of the centres that is allowed without a gap; it grows by ``exp(6 gap / rate)``.
    rate_hz : float
        Nominal frame rate.
    workspace : Workspace, optional
        Where to compute; the result is its table ``distance``.

    Returns
    -------
    ndarray
        ``(N, M)`` in ``(0, 1]``: 1 within the allowed distance, beyond it falling by ``e`` every
        ``100 / rate`` pixels.

    """
    work = workspace or Workspace()
    there = _centers(track_boxes)
    distance: Floats = work.table('distance', len(detection_boxes), len(track_boxes))
    distance[:] = work.squares(_centers(detection_boxes), there, np.ones_like(there))
    np.clip(distance, 0, np.inf, out=distance)  # Several times faster than np.maximum.
    np.sqrt(distance, out=distance)
    allowed = np.float32(max_distance_px) * np.exp(
        gaps_frames.astype(np.float32) / np.float32(rate_hz / 6))
    distance -= allowed
    distance /= -np.float32(100 / rate_hz)
    np.clip(distance, -80, 0, out=distance)  # Below -80 come denormal numbers, which are slow.
    return np.exp(distance, out=distance)


def _centers(boxes: Floats) -> NDArray[np.float64]:
    return (boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2


def overlapping_pairs(
    boxes: Floats, iou: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """
    Find the pairs of boxes that overlap, without looking at all pairs.

    Parameters
    ----------
    boxes : ndarray
        ``(N, 4)`` xyxy.
    iou : float
        Pairs up to this intersection over union may be left out.

    Returns
    -------
    first, second : ndarray
        ``(P,)`` int64 rows, ``first < second``.
    overlaps : ndarray
        ``(P,)`` float32 intersection over union of each pair.

    Notes
    -----
    Where the overlap is above ``u``, the second left edge follows the first within ``1 - u`` of
    the first box's width (otherwise too much of that box lies outside the second), so a sweep
    along x meets few pairs. Of these, few have upper edges that are as near.

    """
    nothing = np.zeros(0, np.int64)
    if len(boxes) < 2:
        return nothing, nothing, np.zeros(0, np.float32)
    order = np.argsort(boxes[:, 0], kind='stable')
    left, top, right, bottom = boxes[order].T.astype(np.float64)
    room = 1.001 * (1 - iou)  # For rounding.
    reach = left + room * np.maximum(right - left, 0)
    rows = np.arange(len(boxes))
    counts = np.maximum(np.searchsorted(left, reach, side='right') - rows - 1, 0)
    earlier = np.repeat(rows, counts)
    later = np.arange(len(earlier)) + np.repeat(rows + 1 - np.cumsum(counts) + counts, counts)
    heights, below = bottom - top, top[later] - top[earlier]
    near = rows_where((below <= room * np.maximum(heights[earlier], 0))
                      & (below >= -room * np.maximum(heights[later], 0)))
    if not len(near):
        return nothing, nothing, np.zeros(0, np.float32)
    one, two = order[earlier[near]], order[later[near]]
    first, second = np.minimum(one, two), np.maximum(one, two)
    return first, second, _paired_iou(boxes[first], boxes[second])


def _paired_iou(first: Floats, second: Floats) -> Floats:
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    sides = np.maximum(sides, 0)
    shared = sides[:, 0] * sides[:, 1]
    union = box_areas(first) + box_areas(second) - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float32).tiny), dtype=np.float32)


def unique_rows(
    boxes: Floats, scores: Floats, low_score: float, low_iou: float, iou: float,
) -> NDArray[np.bool_]:
    """
    Tell which ranked boxes are not duplicates of a better one.

    Parameters
    ----------
    boxes : ndarray
        ``(N, 4)`` xyxy by descending score.
    scores : ndarray
        ``(N,)`` descending.
    low_score : float
        A box scoring below this is a duplicate already above `low_iou`.
    low_iou, iou : float
        A box is dropped when its IoU with any box ranked before it, kept or not and of any
        class, is above the limit of its score; 1 never drops.

    Returns
    -------
    ndarray
        ``(N,)`` bool, true for the boxes to keep.

    References
    ----------
    Paper, Algorithm 1, ``DuplicateRemoval``. The reference's two trackers are two settings of
    it: ``iou = 1`` is the TAO tracker's, ``low_score`` equal to the match score the BDD one's.

    """
    unique = np.ones(len(boxes), bool)
    limits = np.where(scores < np.float32(low_score), np.float32(low_iou), np.float32(iou))
    lowest = float(limits.min(initial=1))
    if lowest >= 1:
        return unique
    limits[limits >= 1] = np.inf  # Rounding can make the IoU of equal boxes a hair above 1.
    _, later, overlaps = overlapping_pairs(boxes, lowest)
    unique[later[overlaps > limits[later]]] = False
    return unique


def free_of_earlier(boxes: Floats, iou: float) -> NDArray[np.bool_]:
    """Tell which ``(N,)`` ranked boxes overlap no box ranked before them by more than `iou`."""
    _, later, overlaps = overlapping_pairs(boxes, iou)
    free = np.ones(len(boxes), bool)
    free[later[overlaps > iou]] = False
    return free


def greedy_assignment(
    similarity: Floats, threshold: float, eligible: NDArray[np.bool_] | None = None,
    num_tracks: int | None = None, suppress_above: float | None = None,
) -> NDArray[np.int64]:
    """
    Give each detection in turn its most similar track that is still free.

    Parameters
    ----------
    similarity : ndarray
        ``(N, M)``, detections by descending score.
    threshold : float
        A match needs a similarity above this; not negative.
    eligible : ndarray, optional
        ``(N,)`` bool, detections that may take a track; all when missing.
    num_tracks : int, optional
        How many of the first columns are tracks; the rest are distractors. A detection that
        likes a distractor best stays unmatched.
    suppress_above : float, optional
        A detection that may not take the track it likes best becomes `SUPPRESSED` when their
        similarity is above this, so that it neither starts a track nor competes later.

    Returns
    -------
    ndarray
        ``(N,)`` int64 column of each detection, `UNMATCHED` or `SUPPRESSED`.

    References
    ----------
    The reference sets the column of a taken track to 0; as no match is possible at 0, taking it
    out is the same.

    """
    rows, columns = similarity.shape
    matches = np.full(rows, UNMATCHED, np.int64)
    if not rows or not columns:
        return matches
    num_tracks = columns if num_tracks is None else num_tracks
    best = similarity.argmax(axis=1)
    values = similarity[np.arange(rows), best]
    taken = np.zeros(columns, bool)
    allowed = np.ones(rows, bool) if eligible is None else eligible
    threshold = float(np.float32(threshold))  # Compared in single precision, as the reference.
    # A row's best can only fall when tracks are taken, so rows below the threshold are settled.
    open_rows = rows_where(values > threshold)
    for row, column, value, may_match in zip(
            open_rows.tolist(), best[open_rows].tolist(), values[open_rows].tolist(),
            allowed[open_rows].tolist(), strict=True):
        if taken[column]:
            left = np.where(taken, -np.inf, similarity[row])
            column = int(left.argmax())
            value = float(left[column])
        if value <= threshold or column >= num_tracks:
            continue
        if may_match:
            matches[row] = column
            taken[column] = True
        elif suppress_above is not None and value > float(np.float32(suppress_above)):
            matches[row] = SUPPRESSED
    return matches


def optimal_assignment(similarity: Floats, threshold: float) -> NDArray[np.int64]:
    """
    Match detections and tracks so that the similarity above the threshold is largest in sum.

    Parameters
    ----------
    similarity : ndarray
        ``(N, M)``.
    threshold : float
        A match needs a similarity above this.

    Returns
    -------
    ndarray
        ``(N,)`` int64 column of each detection, or `UNMATCHED`.

    Notes
    -----
    Pairs that compete with no other pair are settled at once, the rest exactly by the Jonker and
    Volgenant method. In ordinary scenes little is left for it.

    """
    rows, columns = np.divmod(
        rows_where((similarity > threshold).ravel()), max(similarity.shape[1], 1))
    return pair_assignment(
        rows, columns, similarity[rows, columns].astype(np.float64) - threshold, similarity.shape)


def pair_assignment(
    rows: NDArray[np.int64], columns: NDArray[np.int64], gains: NDArray[np.float64],
    shape: tuple[int, int],
) -> NDArray[np.int64]:
    """
    Match rows and columns so that the gains are largest in sum.

    Parameters
    ----------
    rows, columns : ndarray
        ``(P,)`` int64 pairs that may be matched.
    gains : ndarray
        ``(P,)`` what each is worth; positive.
    shape : tuple of int
        Numbers of rows and columns.

    Returns
    -------
    ndarray
        ``(N,)`` int64 column of each row, or `UNMATCHED`.

    Notes
    -----
    See `optimal_assignment`.

    """
    num_rows, num_columns = shape
    matches = np.full(num_rows, UNMATCHED, np.int64)
    row_uses = np.bincount(rows, minlength=num_rows)
    column_uses = np.bincount(columns, minlength=num_columns)
    alone = (row_uses[rows] == 1) & (column_uses[columns] == 1)
    matches[rows[alone]] = columns[alone]
    if alone.all():
        return matches
    rows, columns = rows[~alone], columns[~alone]
    left_rows, row_at = _compact(rows, num_rows)
    left_columns, column_at = _compact(columns, num_columns)
    table = np.zeros((len(left_rows), len(left_columns)))
    table[row_at, column_at] = gains[~alone]
    chosen_rows, chosen_columns = linear_sum_assignment(table, maximize=True)
    real = table[chosen_rows, chosen_columns] > 0
    matches[left_rows[chosen_rows[real]]] = left_columns[chosen_columns[real]]
    return matches


def _compact(
    values: NDArray[np.int64], size: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Different values in order, and where each value is among them; all are below `size`."""
    used = np.zeros(size, bool)
    used[values] = True
    return rows_where(used), (np.cumsum(used) - 1)[values]


def runners_up(
    similarity: Floats, rows: NDArray[np.int64], columns: NDArray[np.int64],
) -> Floats:
    """
    Similarity of the best other track for each matched detection.

    Parameters
    ----------
    similarity : ndarray
        ``(N, M)`` tracks only; left as it was.
    rows, columns : ndarray
        ``(K,)`` matched pairs, no row or column twice.

    Returns
    -------
    ndarray
        ``(K,)`` float32; minus infinity where there is no other track.

    """
    if similarity.shape[1] < 2:
        return np.full(len(rows), -np.inf, np.float32)
    own = similarity[rows, columns]
    similarity[rows, columns] = -np.inf
    others = similarity.max(axis=1)[rows]
    similarity[rows, columns] = own
    return np.asarray(others, dtype=np.float32)
