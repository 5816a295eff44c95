"""
Published figures, to be shown beside ours. In percent, as published; NaN where none was given.

They compare with ours only on the same detections and the same part of the data set.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

PAPER = 'S. Li et al., Matching Anything by Segmenting Anything, CVPR 2024'
MODEL_ZOO = "model zoo of siyuanliii/masa, whose detections differ from the paper's"


@dataclass(frozen=True)
class PublishedTable:
    """
    A table as it was published.

    Parameters
    ----------
    title : str
        What it compares.
    source : str
        Where it stands.
    columns : tuple of str
        Names of the figures.
    rows : dict
        Figures of each method, in the order of the columns.

    """

    title: str
    source: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]


_NONE = math.nan
_SAME = 'same detections for all'


def _paper(number: int) -> str:
    return f'{PAPER}, table {number}'


TABLES: dict[str, tuple[PublishedTable, ...]] = {
    'tao': (
        PublishedTable('TAO TETA, validation', _paper(1), ('TETA', 'LocA', 'AssocA', 'ClsA'), {
            'SORT': (24.9, 48.1, 14.3, 12.1), 'Tracktor': (24.2, 47.4, 13.0, 12.1),
            'Tracktor++': (28.0, 49.0, 22.8, 12.1), 'DeepSORT': (26.0, 48.4, 17.5, 12.1),
            'AOA': (25.3, 23.4, 30.6, 21.9), 'QDTrack': (30.0, 50.5, 27.4, 12.1),
            'TETer': (34.6, 52.1, 36.7, 15.0),
            'MASA-Detic, detections of TETer': (34.7, 51.9, 36.4, 15.8),
            'MASA-GroundingDINO, detections of TETer': (34.9, 51.8, 37.6, 15.4),
            'MASA-SAM-B, detections of TETer': (34.5, 51.8, 36.6, 15.1),
            'MASA-SAM-H, detections of TETer': (34.5, 51.8, 36.4, 15.4),
            'MASA-Detic, own detections': (46.3, 65.8, 44.1, 28.9)}),
        PublishedTable(f'TAO TETA, validation, {_SAME}', _paper(12),
                       ('AssocA', 'TETA', 'LocA', 'ClsA'), {
            'TETer': (36.7, 34.6, 52.1, 15.0), 'MASA-Detic': (36.4, 34.7, 51.9, 15.8),
            'MASA-GroundingDINO': (37.6, 34.9, 51.8, 15.4),
            'MASA-SAM-B': (36.6, 34.5, 51.9, 15.1), 'MASA-SAM-H': (36.4, 34.5, 51.8, 15.4),
            'MASA-R50': (35.7, 34.1, 52.1, 15.0)}),
        PublishedTable(
            'Open-vocabulary MOT, base and novel classes', _paper(2),
            tuple(f'{name} {part}' for part in ('base', 'novel')
                  for name in ('TETA', 'LocA', 'AssocA', 'ClsA')), {
                'DeepSORT': (28.4, 52.5, 15.6, 17.0, 24.5, 49.2, 15.3, 9.0),
                'Tracktor++': (29.6, 52.4, 19.6, 16.9, 25.7, 50.1, 18.9, 8.1),
                'ByteTrack': (29.5, 51.7, 19.7, 17.2, 25.4, 49.4, 18.1, 8.7),
                'OC-SORT': (30.0, 53.3, 23.5, 13.3, 26.7, 51.5, 21.6, 7.1),
                'OVTrack': (36.3, 53.9, 36.3, 18.7, 32.0, 51.4, 33.2, 11.4),
                'MASA-Detic': (47.0, 66.0, 44.5, 30.5, 40.8, 64.4, 41.2, 17.0)}),
        PublishedTable('TAO Track mAP, validation', _paper(3),
                       ('Track mAP50', 'Track mAP75', 'Track mAP'), {
            'SORT-TAO': (13.2, _NONE, _NONE), 'QDTrack': (15.9, 5.0, 10.6),
            'TAC': (17.7, 5.8, 7.3), 'BIV': (21.6, 10.4, 16.1), 'GTR': (22.5, _NONE, _NONE),
            'MASA-Detic, detections of GTR': (22.0, 12.2, 17.1),
            'MASA-GroundingDINO, detections of GTR': (22.8, 12.3, 17.6),
            'MASA-SAM-B, detections of GTR': (23.9, 13.0, 18.4),
            'MASA-SAM-H, detections of GTR': (22.9, 12.1, 17.5),
            'MASA-Detic, own detections': (30.9, 18.0, 24.4)}),
        PublishedTable('Self-supervised features on TAO (trained on BDD and COCO)', _paper(7),
                       ('AssocA',), {
            'VFS': (19.1,), 'MoCo v2': (30.7,), 'DINO': (12.9,), 'MASA-SAM-B': (35.8,)}),
        PublishedTable('TAO, weights to download', MODEL_ZOO, ('AssocA', 'TETA'), {
            'MASA-R50': (43.0, 45.8), 'MASA-SAM-B': (44.3, 46.5), 'MASA-SAM-H': (44.6, 46.4),
            'MASA-Detic': (44.1, 46.3), 'MASA-GroundingDINO': (44.6, 46.7)}),
    ),
    'bdd_mots': (
        PublishedTable('BDD100K MOTS, validation', _paper(4),
                       ('mIDF1', 'AssocA', 'TETA', 'mMOTSA', 'mHOTA'), {
            'MaskTrackRCNN': (26.2, _NONE, _NONE, 12.3, _NONE),
            'STEm-Seg': (25.4, _NONE, _NONE, 12.2, _NONE),
            'QDTrack-mots': (40.8, _NONE, _NONE, 22.5, _NONE),
            'PCAN': (45.1, 46.7, 46.8, 27.4, 35.9), 'VMT': (45.7, 47.3, 47.1, 28.7, 36.6),
            'Unicorn': (44.2, _NONE, _NONE, 29.6, _NONE),
            'UNINEXT-H': (48.5, 53.2, 53.6, 35.7, 40.6),
            'MASA-Detic': (49.5, 53.5, 54.4, 36.4, 40.2),
            'MASA-GroundingDINO': (48.6, 52.3, 54.0, 36.1, 40.0),
            'MASA-SAM-B': (49.2, 53.9, 54.8, 35.2, 40.7),
            'MASA-SAM-H': (49.7, 54.5, 54.7, 35.8, 40.8),
            'MASA-R50 (table 10)': (48.7, 53.6, 54.7, 35.2, 40.4)}),
        PublishedTable('Self-supervised features on BDD100K MOTS (trained on BDD and COCO)',
                       _paper(7), ('AssocA', 'mIDF1'), {
                           'VFS': (30.7, 30.1), 'MoCo v2': (51.0, 45.3), 'DINO': (20.2, 22.2),
                           'MASA-SAM-B': (53.7, 49.1)}),
        PublishedTable('BDD100K MOTS, weights to download', MODEL_ZOO, ('AssocA', 'mIDF1'), {
            'MASA-R50': (54.8, 50.2), 'MASA-SAM-B': (54.1, 49.7), 'MASA-SAM-H': (54.8, 50.1),
            'MASA-Detic': (53.8, 49.9), 'MASA-GroundingDINO': (53.3, 48.9)}),
    ),
    'bdd_mot': (
        PublishedTable('BDD100K MOT, validation', _paper(5),
                       ('mIDF1', 'IDF1', 'TETA', 'AssocA', 'mMOTA'), {
            'QDTrack': (50.8, 71.5, 47.8, 48.5, 36.6), 'TETer': (53.3, 71.1, 50.8, 52.9, 39.1),
            'MOTR': (54.0, 65.8, _NONE, _NONE, 32.3),
            'Unicorn': (54.0, 71.3, _NONE, _NONE, 41.2),
            'UNINEXT-H': (56.7, 69.9, _NONE, _NONE, 44.2),
            'ByteTrack': (54.8, 70.4, 55.7, 51.5, 45.5),
            'MASA-Detic': (55.8, 71.3, 54.4, 52.9, 44.6),
            'MASA-GroundingDINO': (55.6, 71.7, 54.5, 52.7, 44.5),
            'MASA-SAM-B': (55.6, 71.6, 54.0, 52.6, 44.1),
            'MASA-SAM-H (table 11)': (55.3, 71.7, 54.2, 51.9, 44.5),
            'MASA-R50 (table 11)': (54.8, 71.3, 54.0, 51.7, 44.2)}),
        PublishedTable('Self-supervised features on BDD100K MOT (trained on BDD and COCO)',
                       _paper(7), ('AssocA', 'mIDF1'), {
                           'VFS': (29.2, 35.0), 'MoCo v2': (42.7, 46.7), 'DINO': (23.1, 16.8),
                           'MASA-SAM-B': (51.9, 54.9)}),
        PublishedTable('Training strategy and architecture on BDD100K MOT', _paper(8),
                       ('AssocA', 'mIDF1'), {
            'features of SAM-B': (32.9, 37.3), '+ MASA training': (48.5, 51.7),
            '+ dynamic feature fusion': (50.1, 53.3),
            '+ object prior distillation': (51.9, 54.9)}),
        PublishedTable('BDD100K MOT, weights to download', MODEL_ZOO, ('AssocA', 'mIDF1'), {
            'MASA-R50': (52.1, 55.1), 'MASA-SAM-B': (53.1, 55.6), 'MASA-SAM-H': (52.4, 55.2),
            'MASA-Detic': (53.3, 55.8), 'MASA-GroundingDINO': (53.1, 55.7)}),
    ),
    'uvo': (
        PublishedTable('UVO v0.5 validation, images', f'{PAPER}, figure 4', ('AR100',), {
            'Mask R-CNN': (41.3,), 'MASA-SAM-B': (43.7,), 'MASA-SAM-H': (50.8,)}),
        PublishedTable('UVO v0.5 validation, videos', f'{PAPER}, figure 4', ('AR100',), {
            'MaskTrack R-CNN': (17.2,), 'QDTrack': (20.9,), 'SeqFormer': (21.3,),
            'MASA-SAM-B': (24.9,), 'MASA-SAM-H': (28.4,)}),
        PublishedTable('UVO, against video segmentation', _paper(6), ('AR100',), {
            'SAM-PT': (31.8,), 'Deva': (36.0,), 'MASA-SAM-H': (37.5,)}),
    ),
    'youtube_vis': (
        PublishedTable('YouTube-VIS 2019, validation', _paper(13), ('AP', 'AP75'), {
            'VisTR': (36.2, 36.9), 'MaskProp': (40.0, 42.9), 'IFC': (42.8, 46.8),
            'SeqFormer': (47.4, 51.8), 'IDOL': (49.5, 52.9), 'MFVIS': (46.6, 49.7),
            'VITA': (49.8, 54.5), 'UNINEXT-R50': (53.0, 59.1), 'MASA-SAM-B': (51.8, 58.1)}),
    ),
}
