"""``masa_ros evaluate``: score trackers on data sets, folders and recordings."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
import sys
from typing import Any

from masa_ros.cli.ignored_truth import in_regions
from masa_ros.cli.observers import (
    baseline_tracker,
    Observation,
    observer,
    own_tracker,
    sam2_tracker,
)
from masa_ros.cli.outputs import file_name
from masa_ros.cli.recordings import (
    aligned,
    alignment_text,
    read_recording,
    read_truth,
    TOLERANCE_S,
    with_truth,
)
from masa_ros.cli.settings import add_settings, read_settings
from masa_ros.detectors import named
from masa_ros.evaluation.baselines import BASELINES
from masa_ros.evaluation.benchmark import (
    Faults,
    ObserverSpec,
    Plan,
    read_tracks,
    Run,
    run_benchmark,
    TrackerSpec,
    write_tracks,
)
from masa_ros.evaluation.benchmark_report import build_report, write_report
from masa_ros.evaluation.datasets import DATASETS, read_dataset, tao
from masa_ros.evaluation.datasets.given_detections import give
from masa_ros.evaluation.datasets.sequence import Sequence, sized_by_boxes, with_ids
from masa_ros.evaluation.formats.mot import format_rows
from masa_ros.evaluation.scores import score_sequence
from masa_ros.models import CATALOG
from masa_ros.models.features import BACKBONES, FeatureConfig
from masa_ros.models.weights import is_seeded
from masa_ros.pipeline import PipelineConfig
from masa_ros.regions import Regions
from masa_ros.ros.bag import is_bag
from masa_ros.ros.parameters import NodeConfig
from masa_ros.structures.instances import Instances
from masa_ros.structures.settings import from_mapping
from masa_ros.tracking.presets import PRESETS
from masa_ros.tracking.tracker import TrackerConfig
import numpy as np
from tqdm import tqdm

TRUTH, GIVEN, DETECTOR, PROPOSALS = 'truth', 'given', 'detector', 'proposals'
FORMATS = ('auto', *DATASETS)
EXAMPLES = """examples:
  masa_ros evaluate MOT17/train --trackers ours,bytetrack --strides 1,5,10
  masa_ros evaluate tao --dataset tao --boxes detector --detector yolox.onnx
  masa_ros evaluate bdd100k --dataset bdd_mot --boxes-only --given results/    (no images)
  masa_ros evaluate drive.mcap --truth /ground_truth --detector yolox.onnx
  masa_ros evaluate drive.mcap --results /masa/tracks --truth gt.txt    (a live run, scored)
  masa_ros evaluate drive.mcap --detector yolox.onnx                    (no truth: statistics)
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the command line."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        'evaluate', help='score trackers on data sets and recordings, and write a report',
        formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EXAMPLES,
        description='Run one or many trackers over a data set, a bag, a video or an image '
        'folder on the same detections, score them where there is a ground truth, and write '
        'report.html, results.json and results.csv. Detections and embeddings are kept, so '
        'that the next tracker costs seconds and a broken-off run goes on.')
    parser.add_argument('input', type=Path, help='folder of a data set or of sequences, bag, '
                        'video or image folder')
    parser.add_argument('--dataset', choices=FORMATS, default='auto', help='what the folder '
                        'holds; auto knows recordings and MOTChallenge folders')
    parser.add_argument('--split', default='', help='part of the data set')
    parser.add_argument('--sequences', default='', metavar='NAMES', help='only these, comma '
                        'separated')
    parser.add_argument('--boxes', choices=(TRUTH, GIVEN, DETECTOR, PROPOSALS), default=None,
                        help='where boxes come from; the detector where one is given, else '
                        'those that come with the data, else the model')
    parser.add_argument('--boxes-only', action='store_true', help='compare trackers on boxes of '
                        'the truth or given ones alone: annotations are enough, neither images '
                        'nor a model are needed')
    parser.add_argument('--given', type=Path, metavar='FILE|FOLDER', help='published detections: '
                        'COCO result file, Scalabel JSON (or a folder of them), or folder of the '
                        'reference (one .pth per image)')
    parser.add_argument('--annotation', type=Path, metavar='FILE', help='annotation that tells '
                        'the image ids of --given; that of the data set when missing')
    parser.add_argument('--trackers', default='ours', metavar='NAMES', help='comma separated: '
                        f'ours, {", ".join(BASELINES)}, or a preset of ours such as tao_bench')
    parser.add_argument('--features', default='', metavar='NAMES', help='run ours, presets of '
                        'ours and deepsort on these embeddings too: self-supervised ones '
                        f'({", ".join(BACKBONES)}, with their weights as NAME=FILE, otherwise '
                        'random numbers) or those of a model (sam_vit_b, raw features of SAM)')
    parser.add_argument('--sam2', default='', metavar='CONFIG=FILE', help="also run SAM 2's "
                        'video predictor with this configuration and weights file (needs the '
                        'package sam2)')
    parser.add_argument('--strides', default='1', help='use every n-th frame; comma separated')
    faults = parser.add_argument_group('simulated faults, added to a run without them')
    faults.add_argument('--drop-frames', type=float, default=0.0, metavar='SHARE')
    faults.add_argument('--miss-boxes', type=float, default=0.0, metavar='SHARE')
    faults.add_argument('--noise', type=float, default=0.0, metavar='SHARE',
                        help='standard deviation of box edges, as a share of the side')
    faults.add_argument('--seed', type=int, default=0)
    recording = parser.add_argument_group('recordings')
    recording.add_argument('--truth', default='', metavar='FILE|TOPIC', help='ground truth of '
                           'a recording: MOT or COCO file, or a topic of the bag')
    recording.add_argument('--results', default='', metavar='FILE|TOPIC', help='score these '
                           'tracks of a live run beside the trackers')
    recording.add_argument('--tolerance', type=float, default=TOLERANCE_S, metavar='S',
                           help='largest difference of stamps of a frame and its truth')
    recording.add_argument('--topics', nargs='+', default=[], metavar='IMAGE[:DETECTIONS]')
    recording.add_argument('--detections', default='', metavar='FILE|TOPIC')
    recording.add_argument('--fps', type=float, help='frame rate of a video or image folder')
    parser.add_argument('--workers', type=int, default=1, help='processes')
    parser.add_argument('--ray', default=None, nargs='?', const='local', metavar='ADDRESS',
                        help='spread sequences over a Ray cluster, which must see the same '
                        'files (extra: ray)')
    parser.add_argument('--out', type=Path, help='folder for the report; out/evaluate/NAME '
                        'when missing')
    parser.add_argument('--cache', type=Path, default=Path('out') / 'evaluate' / 'cache',
                        help='folder that keeps detections, embeddings and tracks')
    add_settings(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    node_config, config = read_settings(args)
    sequences = in_regions(
        read_sequences(args, node_config, config.tracker.camera_motion), config.regions)
    names = [name.strip() for name in args.trackers.split(',') if name.strip()]
    specs = [tracker_named(name, config) for name in names]
    if args.sam2:
        specs.append(sam2_tracker(*_pair(args.sam2)))
    if args.boxes_only:
        looking = [spec.name for spec in specs if spec.needs_images]
        if looking or args.features:
            raise ValueError(f'--boxes-only gives {", ".join(looking) or "--features"} no images '
                             'to look at; leave that out')
    plan = Plan(
        tuple(sequences), (choose_observer(args, config, sequences),), tuple(specs),
        _strides(args.strides), _faults(args), args.cache.resolve())
    plans = [plan, *feature_plans(args, config, plan, names)]
    print(f'{len(sequences)} sequences, {sum(map(len, sequences))} frames; boxes and '
          f'embeddings: {plan.observers[0].name}; trackers: '
          + (', '.join(spec.name for spec in plan.trackers) or 'none'))
    bar = tqdm(total=len(sequences) * len(plans), unit=' sequences',
               ascii=not sys.stderr.isatty())

    def progress(what: str, done: int, total: int) -> None:
        bar.set_postfix_str(what)
        bar.update()

    with closing(bar), _executor(args) as executor:
        runs = [run for one in plans for run in run_benchmark(
            one, workers=args.workers, executor=executor, progress=progress)]
    if args.results:
        runs += live_runs(args, plan)
    out = args.out or Path('out') / 'evaluate' / file_name(args.input.resolve().stem)
    report = build_report(args.input.resolve().name, plan, runs,
                          args.dataset if args.dataset != 'auto' else '', class_groups(args))
    write_tracks_as_text(runs, out / 'tracks')
    for path in (*write_report(report, out), out / 'tracks'):
        print(f'wrote {path}')
    print(report.text())
    return 0


def class_groups(args: argparse.Namespace) -> dict[str, list[int]]:
    """Return base and novel classes of TAO, where the annotation states LVIS frequencies."""
    if args.dataset != 'tao':
        return {}
    try:
        base, novel = tao.base_and_novel(tao.annotation_file(args.input, args.split or 'val'))
    except ValueError:
        return {}
    return {'base': base, 'novel': novel}


def read_sequences(
    args: argparse.Namespace, config: NodeConfig, camera_motion: str = 'none',
) -> list[Sequence]:
    """
    Read what the command line names, with truth.

    Raises
    ------
    ValueError
        If options do not fit together, or names are unknown.

    """
    path: Path = args.input
    if args.dataset != 'auto':
        sequences = read_dataset(args.dataset, path, args.split, images=not args.boxes_only)
    elif not is_bag(path) and is_motchallenge(path / args.split):
        sequences = read_dataset(
            'motchallenge', path, args.split, images=not args.boxes_only)
    elif args.boxes_only:
        raise ValueError(f'--boxes-only is for annotations of data sets, and {path} is a '
                         'recording; name its --dataset if it is one')
    else:
        sequences = read_recording(path, config, args.cache.resolve(),
                                   topics=tuple(args.topics), detections=args.detections,
                                   fps=args.fps, camera_motion=camera_motion)
    if camera_motion == 'odometry' and not any(sequence.views for sequence in sequences):
        raise ValueError(f'nothing in {path} tells how the camera turned, so '
                         'tracker.camera_motion odometry has no use; registration needs the '
                         'images only')
    if args.given:
        annotation = args.annotation
        if annotation is None and args.dataset == 'tao':
            annotation = tao.annotation_file(path, args.split or 'val')
        sequences = give(sequences, args.given, annotation)
    if args.truth:
        truth = read_truth(args.truth, path)
        sequences = [with_truth(sequence, truth, args.tolerance) for sequence in sequences]
        for sequence in sequences:
            print(alignment_text(sequence, truth, args.tolerance))
    wanted = [name.strip() for name in args.sequences.split(',') if name.strip()]
    names = [sequence.name for sequence in sequences]
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ValueError(f'no sequence {", ".join(unknown)}; there are {", ".join(names[:20])}')
    return [sized_by_boxes(sequence) if args.boxes_only else sequence
            for sequence in sequences if not wanted or sequence.name in wanted]


def is_motchallenge(path: Path) -> bool:
    """Tell whether a folder is a MOTChallenge sequence or holds some."""
    names = ('seqinfo.ini', 'gt/gt.txt', 'det/det.txt')
    folders = [path, *(child for child in path.iterdir() if child.is_dir())] \
        if path.is_dir() else []
    return any((folder / name).is_file() for folder in folders for name in names)


def choose_observer(
    args: argparse.Namespace, config: PipelineConfig, sequences: list[Sequence],
) -> ObserverSpec:
    """Where boxes come from, and the model that embeds them."""
    observation = choose_observation(args, config, sequences)
    names = {TRUTH: 'boxes of the truth', GIVEN: 'given boxes',
             DETECTOR: Path(config.detector.checkpoint).stem or config.detector.name,
             PROPOSALS: 'own proposals'}
    regions = Regions(config.regions)
    where = f' (regions {regions.digest()})' if regions else ''
    shown = 'no embeddings' if observation.model is None else config.model.name
    return observer(f'{names[observation.source]}{where}, {shown}', observation)


def choose_observation(
    args: argparse.Namespace, config: PipelineConfig, sequences: list[Sequence],
) -> Observation:
    """Choose the source of boxes: the one named, or the best there is."""
    source = args.boxes
    if source is None:
        given = all(sequence.detections for sequence in sequences)
        source = DETECTOR if config.detector.enabled else GIVEN if given else PROPOSALS
        source = GIVEN if args.given else source
        source = TRUTH if args.boxes_only and source not in (GIVEN, TRUTH) else source
    if args.boxes_only and source not in (GIVEN, TRUTH):
        raise ValueError(f'--boxes-only looks at no images, so --boxes {source} finds nothing; '
                         'use --boxes truth or --boxes given')
    model = None if args.boxes_only else config.model
    return Observation(source, named(config.detector, config.model.name), model,
                       classes=config.classes, regions=config.regions)


def feature_plans(
    args: argparse.Namespace, config: PipelineConfig, plan: Plan, names: list[str],
) -> list[Plan]:
    """
    Plan the trackers that look at embeddings once more for each of ``--features``.

    Raises
    ------
    ValueError
        If features are unknown, or no tracker looks at embeddings.

    """
    wanted = [part.strip() for part in args.features.split(',') if part.strip()]
    looking = [spec for spec, name in zip(plan.trackers, names, strict=False)
               if name not in BASELINES or name == 'deepsort']
    if wanted and not looking:
        raise ValueError('--features has no tracker that looks at embeddings; add ours, deepsort '
                         'or a preset such as tao_bench to --trackers')
    plans = []
    for part in wanted:
        name, file = _pair(part) if '=' in part else (part, '')
        if name not in BACKBONES and name not in CATALOG:
            raise ValueError(f'unknown features {name!r}; known ones are '
                             + ', '.join((*BACKBONES, *CATALOG)))
        random = is_seeded(Path(file)) if file else name in BACKBONES
        shown = name + (' (random numbers)' if random else '')
        source = replace(
            choose_observation(args, config, list(plan.sequences)),
            **({'model': None, 'features': FeatureConfig(name, file, config.model.device)}
               if name in BACKBONES else
               {'model': replace(config.model, name=name, checkpoint=file)}))
        plans.append(replace(
            plan, observers=(observer(f'{plan.observers[0].name.split(",")[0]}, {shown}',
                                      source),),
            trackers=tuple(replace(spec, name=f'{spec.name} on {shown}') for spec in looking)))
    return plans


def _pair(text: str) -> tuple[str, str]:
    name, sign, file = text.partition('=')
    if not sign or not name or not file:
        raise ValueError(f'{text!r} is not NAME=FILE')
    return name.strip(), file.strip()


def tracker_named(name: str, config: PipelineConfig) -> TrackerSpec:
    """
    Tracker under a name of the command line.

    Raises
    ------
    ValueError
        If there is none.

    """
    if name == 'ours':
        return own_tracker(name, config.tracker, config.model)
    if name in PRESETS:
        return own_tracker(name, TrackerConfig.preset(name))
    if name in BASELINES:
        return baseline_tracker(name, name)
    raise ValueError(f'unknown tracker {name!r}; known ones are ours, {", ".join(BASELINES)}, '
                     f'{", ".join(sorted(PRESETS))}')


def live_runs(args: argparse.Namespace, plan: Plan) -> list[Run]:
    """Score tracks that a live run left, at the frames that were recorded."""
    results = read_truth(args.results, args.input)
    runs = []
    for sequence in plan.sequences:
        frames = [frame if frame is not None else with_ids(Instances(), [])
                  for frame in aligned(sequence, results, args.tolerance)]
        path = plan.cache / 'tracks' / f'live-{file_name(sequence.name)}.npz'
        write_tracks(path, frames, np.zeros(0, np.float32))
        runs.append(Run(sequence.name, plan.observers[0].name, f'live: {args.results}', 1,
                        Faults().name,
                        score_sequence(sequence, frames) if sequence.truth else None,
                        np.zeros(0, np.float32), path, np.arange(len(sequence))))
    return runs


def write_tracks_as_text(runs: list[Run], folder: Path) -> None:
    """
    Write what every tracker said in MOTChallenge format, for other tools to score.

    Frame numbers count the frames that the run was given, so a run at a stride has no gaps.
    """
    for run in runs:
        condition = f'stride{run.stride}' + ('' if run.faults == 'none' else f'-{run.faults}')
        path = folder / file_name(f'{run.tracker}-{condition}') / f'{file_name(run.sequence)}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        frames, _ = read_tracks(run.tracks_file)
        path.write_text(''.join(format_rows(position, frame)
                                for position, frame in enumerate(frames)))


def _strides(text: str) -> tuple[int, ...]:
    try:
        strides = tuple(int(part) for part in text.split(','))
    except ValueError:
        strides = ()
    if not strides or min(strides) < 1:
        raise ValueError(f'--strides is {text!r}, expected whole numbers from 1, such as 1,5,10')
    return strides


def _faults(args: argparse.Namespace) -> tuple[Faults, ...]:
    chosen = from_mapping(Faults, {
        'dropped_frames': args.drop_frames, 'missed': args.miss_boxes, 'noise': args.noise,
        'seed': args.seed}, 'simulated faults')
    clean = Faults(seed=args.seed)
    return (clean,) if chosen == clean else (clean, chosen)


@contextmanager
def _executor(args: argparse.Namespace) -> Iterator[Executor | None]:
    """Ray's workers as an executor, where they are asked for."""
    if args.ray is None:
        yield None
        return
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "--ray needs Ray; install it with pip install 'masa_ros[ray]', or use --workers for "
            'the processes of this machine') from error
    ray.init(address=args.ray, include_dashboard=False, log_to_driver=False)
    try:
        yield RayExecutor(ray)
    finally:
        ray.shutdown()


class RayExecutor(Executor):
    """
    Runs calls as Ray's tasks.

    Parameters
    ----------
    ray : module
        Ray, connected to a cluster.

    """

    def __init__(self, ray: Any) -> None:
        self._call = ray.remote(_call)

    def submit(self, function: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Schedule a call."""
        future: Future[Any] = self._call.remote(function, args, kwargs).future()
        return future


def _call(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return function(*args, **kwargs)
