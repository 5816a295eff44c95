"""Who marks the images that ``masa_ros propose`` keeps and ``masa_ros adapt`` learns from."""

from __future__ import annotations

import argparse

from masa_ros.cli.observers import Observation
from masa_ros.cli.settings import refuse_unused
from masa_ros.detectors import build_detector, named
from masa_ros.detectors.selection import read_renames, Vocabulary
from masa_ros.models import build_model
from masa_ros.pipeline import PipelineConfig
from masa_ros.regions import Regions
from masa_ros.structures.instances import Instances
import numpy as np
from numpy.typing import NDArray

READING = ('bit_depth', 'clock')
"""Settings that decide what is read from a recording."""


class Teacher:
    """
    Model, and detector where one is named, by the rules of ``masa_ros track``.

    Parameters
    ----------
    config : PipelineConfig
        Model, detector, classes and regions are used.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing or does not fit, or nothing finds objects.

    """

    def __init__(self, config: PipelineConfig) -> None:
        Regions(config.regions)  # Refuses bad files before a large model is loaded.
        self._model = build_model(config.model)
        self._detector = build_detector(config.detector, self._model)
        if self._detector is None and not self._model.can_propose:
            raise ValueError(f'the model {config.model.name} finds nothing by itself; choose one '
                             'that does, such as tiny, or give a detector (--detector FILE)')
        # Settled before the first image, so that every process and every later run agrees.
        vocabulary = Vocabulary()
        for name in read_renames(config.classes.rename).values():
            vocabulary.number(name)
        self._observation = Observation(
            'proposals' if self._detector is None else 'detector',
            named(config.detector, config.model.name), config.model, classes=config.classes,
            regions=config.regions, vocabulary=vocabulary)

    def __call__(self, image: NDArray[np.uint8], full_size: tuple[int, int]) -> Instances:
        """See `masa_ros.training.proposals.Teacher`."""
        return self._observation.observe(
            [image], None, self._model, self._detector, [full_size])[0]

    def refuse_unused(self, args: argparse.Namespace, command: str) -> None:
        """
        Refuse settings that nothing here uses; see `masa_ros.cli.settings.refuse_unused`.

        Raises
        ------
        ValueError
            If the command line has one.

        """
        if self._detector is None:
            # Own proposals have no classes; detector.name may have asked for them.
            refuse_unused(args, f'{command} without a detector',
                          ('model', 'regions', 'detector.name', *READING))
        else:
            refuse_unused(args, command, ('model', 'detector', 'classes', 'regions', *READING))
