"""
Association: how alike detections and tracks are, and who gets whom.

Shapes: N detections of a frame, M entries of the memory (tracks, then distractors), D embedding
width. Every function takes whole arrays; rows are ranked by descending score where order matters.
"""

from __future__ import annotations

from typing import Any

from masa_ros.structures.boxes import pairwise_iou
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

UNMATCHED = -1
SUPPRESSED = -2

Floats = NDArray[np.float32]


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
) -> Floats:
    """
    Compute one of the similarities of the reference trackers.

    Parameters
    ----------
    kind : {'combined', 'bisoftmax', 'softmax', 'cosine'}
        Which one.
    detection_embeddings, track_embeddings : ndarray
        ``(N, D)`` and ``(M, D)`` float32.

    Returns
    -------
    ndarray
        ``(N, M)`` float32.

    Raises
    ------
    ValueError
        If the kind is unknown, an input is not 2-D, or the embedding widths differ.

    """
    check_embeddings(detection_embeddings, track_embeddings)
    products = detection_embeddings @ track_embeddings.T
    if not products.size:
        return np.asarray(products, dtype=np.float32)
    if kind == 'softmax':
        return _softmax(products, axis=1)
    if kind == 'bisoftmax':
        return _bisoftmax(products)
    if kind not in ('cosine', 'combined'):
        raise ValueError(f'unknown similarity {kind!r}; known ones are combined, bisoftmax, '
                         'softmax, cosine')
    lengths = np.outer(_lengths(detection_embeddings), _lengths(track_embeddings))
    cosine = np.asarray(products / lengths, dtype=np.float32)
    if kind == 'cosine':
        return cosine
    return np.asarray((_bisoftmax(products) + cosine) / 2, dtype=np.float32)


def _lengths(embeddings: Floats) -> Floats:
    lengths = np.sqrt(np.einsum('ij,ij->i', embeddings, embeddings))
    return np.asarray(np.maximum(lengths, np.finfo(np.float32).tiny ** 0.5), dtype=np.float32)


def _softmax(logits: Floats, axis: int) -> Floats:
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True), dtype=np.float32)


def _bisoftmax(logits: Floats) -> Floats:
    both = _softmax(logits, axis=1)
    both += _softmax(logits, axis=0)
    both /= 2
    return both


def distance_gate(
    detection_boxes: Floats, track_boxes: Floats, gaps_frames: NDArray[np.int64],
    max_distance_px: float, rate_hz: float,
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

    Returns
    -------
    ndarray
        ``(N, M)`` in ``(0, 1]``: 1 within the allowed distance, beyond it falling by ``e`` every
        ``100 / rate`` pixels.

    """
    steps = (_centers(detection_boxes)[:, None] - _centers(track_boxes)[None]).astype(np.float32)
    allowed = np.float32(max_distance_px) * np.exp(
        gaps_frames.astype(np.float32) / np.float32(rate_hz / 6))
    excess = np.sqrt((steps ** 2).sum(axis=2)) - allowed
    return np.asarray(np.exp(-np.maximum(excess, 0) / np.float32(100 / rate_hz)),
                      dtype=np.float32)


def _centers(boxes: Floats) -> Floats:
    return np.asarray((boxes[:, :2] + boxes[:, 2:]) / 2, dtype=np.float32)


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
    if len(boxes) < 2 or (low_iou >= 1 and iou >= 1):
        return np.ones(len(boxes), bool)
    limits = np.where(scores < np.float32(low_score), np.float32(low_iou), np.float32(iou))
    limits[limits >= 1] = np.inf  # Rounding can make the IoU of equal boxes a hair above 1.
    overlaps = np.tril(pairwise_iou(boxes, boxes) > limits[:, None], k=-1)
    return np.asarray(~overlaps.any(axis=1))


def free_of_earlier(boxes: Floats, iou: float) -> NDArray[np.bool_]:
    """Tell which ``(N,)`` ranked boxes overlap no box ranked before them by more than `iou`."""
    return np.asarray(~np.tril(pairwise_iou(boxes, boxes) > iou, k=-1).any(axis=1))


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
    # A row's best can only fall when tracks are taken, so rows below the threshold are settled.
    for row in np.flatnonzero(values > threshold):
        column, value = best[row], values[row]
        if taken[column]:
            left = np.where(taken, -np.inf, similarity[row])
            column = left.argmax()
            value = left[column]
        if value <= threshold or column >= num_tracks:
            continue
        if allowed[row]:
            matches[row] = column
            taken[column] = True
        elif suppress_above is not None and value > suppress_above:
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
    Pairs that compete with no other pair are settled at once; the rest falls apart into groups
    that share no track, and each is solved exactly. In ordinary scenes the groups are tiny.

    """
    matches = np.full(similarity.shape[0], UNMATCHED, np.int64)
    rows, columns = np.nonzero(similarity > threshold)
    if not len(rows):
        return matches
    row_uses = np.bincount(rows, minlength=similarity.shape[0])
    column_uses = np.bincount(columns, minlength=similarity.shape[1])
    alone = (row_uses[rows] == 1) & (column_uses[columns] == 1)
    matches[rows[alone]] = columns[alone]
    rows, columns = rows[~alone], columns[~alone]
    if not len(rows):
        return matches
    gains = similarity[rows, columns].astype(np.float64) - threshold
    for group_rows, group_columns, table in _groups(rows, columns, gains):
        chosen_rows, chosen_columns = linear_sum_assignment(table, maximize=True)
        real = table[chosen_rows, chosen_columns] > 0
        matches[group_rows[chosen_rows[real]]] = group_columns[chosen_columns[real]]
    return matches


def _groups(
    rows: NDArray[np.int64], columns: NDArray[np.int64], gains: NDArray[np.float64],
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Split a sparse gain table into dense ones that share neither a row nor a column."""
    row_ids, row_at = np.unique(rows, return_inverse=True)
    column_ids, column_at = np.unique(columns, return_inverse=True)
    size = len(row_ids) + len(column_ids)
    graph: Any = csr_array(
        (np.ones(len(rows), np.int8), (row_at, column_at + len(row_ids))), shape=(size, size))
    count, label = connected_components(graph, directed=False)
    pair_label = label[row_at]
    groups = []
    for group in range(count):
        pairs = pair_label == group
        group_rows = np.flatnonzero(label[:len(row_ids)] == group)
        group_columns = np.flatnonzero(label[len(row_ids):] == group)
        table = np.zeros((len(group_rows), len(group_columns)))
        table[np.searchsorted(group_rows, row_at[pairs]),
              np.searchsorted(group_columns, column_at[pairs])] = gains[pairs]
        groups.append((row_ids[group_rows], column_ids[group_columns], table))
    return groups


def margins(
    similarity: Floats, rows: NDArray[np.int64], columns: NDArray[np.int64],
) -> Floats:
    """
    Similarity of matches minus that of the best other track for the same detection.

    Parameters
    ----------
    similarity : ndarray
        ``(N, M)`` tracks only.
    rows, columns : ndarray
        ``(K,)`` matched pairs.

    Returns
    -------
    ndarray
        ``(K,)`` float32; the similarity itself where there is no other track.

    """
    own = similarity[rows, columns]
    if similarity.shape[1] < 2:
        return np.asarray(own, dtype=np.float32)
    others = similarity[rows]
    others[np.arange(len(rows)), columns] = -np.inf
    return np.asarray(own - others.max(axis=1, initial=-np.inf), dtype=np.float32)
