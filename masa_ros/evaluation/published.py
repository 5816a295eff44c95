"""Published figures of the reference, to be shown beside ours. In percent, as published."""

from __future__ import annotations

SOURCE = ('model zoo of siyuanliii/masa, read 2026; the detections are those published with it, '
          'so figures compare only on the same detections')

# Data set: columns, then a row per variant.
FIGURES: dict[str, tuple[tuple[str, ...], dict[str, tuple[float, ...]]]] = {
    'tao': (('AssocA', 'TETA'), {
        'MASA-R50': (43.0, 45.8), 'MASA-SAM-B': (44.3, 46.5), 'MASA-SAM-H': (44.6, 46.4),
        'MASA-Detic': (44.1, 46.3), 'MASA-GroundingDINO': (44.6, 46.7)}),
    'bdd_mot': (('AssocA', 'mIDF1'), {
        'MASA-R50': (52.1, 55.1), 'MASA-SAM-B': (53.1, 55.6), 'MASA-SAM-H': (52.4, 55.2),
        'MASA-Detic': (53.3, 55.8), 'MASA-GroundingDINO': (53.1, 55.7)}),
    'bdd_mots': (('AssocA', 'mIDF1'), {
        'MASA-R50': (54.8, 50.2), 'MASA-SAM-B': (54.1, 49.7), 'MASA-SAM-H': (54.8, 50.1),
        'MASA-Detic': (53.8, 49.9), 'MASA-GroundingDINO': (53.3, 48.9)}),
}
