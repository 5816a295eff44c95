"""
Which classes of detections are used, under which names and from which score on.

The rules hold for detections of any origin. Applying them twice gives what applying them once
does, so a caller that merges several origins may apply them before, and the pipeline again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masa_ros.structures.instances import Instances
from masa_ros.structures.settings import setting
import numpy as np

OTHERS = '*'
"""Stands for every class that has no score threshold of its own."""
FIRST_OWN_NUMBER = 10000
"""Class numbers from here on are given out by a `Vocabulary`."""


@dataclass(frozen=True)
class ClassConfig:
    """Names, score thresholds and choice of classes, for detections of any origin."""

    keep: tuple[str, ...] = setting(
        (), 'Classes to use, after renaming; empty uses all. Detections without a class name are '
        'always used.', dynamic=True)
    ignore: tuple[str, ...] = setting(
        (), 'Classes to leave out, under their old or new name.', dynamic=True)
    rename: tuple[str, ...] = setting(
        (), 'New names of classes, each as old=new, such as truck=vehicle.', dynamic=True)
    score_thresholds: tuple[str, ...] = setting(
        (), 'Lowest score of single classes, each as name=score under the new name, such as '
        'person=0.4; *=score is for all others.', dynamic=True)

    def __post_init__(self) -> None:
        read_renames(self.rename)
        read_thresholds(self.score_thresholds)


class Vocabulary:
    """
    One number per class name, for as long as it lives.

    The first number that comes with a name stays the name's, unless another name has it; then
    the name gets the next one from `FIRST_OWN_NUMBER` on. So a single detector keeps its numbers,
    and several detectors whose numbers mean different things do not mix them up.

    Parameters
    ----------
    names : sequence of str
        Names whose numbers are their positions.

    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        self._numbers: dict[str, int] = {}
        self._taken: set[int] = set()
        self._next = FIRST_OWN_NUMBER
        for number, name in enumerate(names):
            self.number(name, number)

    def number(self, name: str, wanted: int = -1) -> int:
        """
        Return the number of a name; upper and lower case do not differ.

        Parameters
        ----------
        name : str
            Not empty.
        wanted : int
            Its number at the detector that found it; -1 for none.

        """
        key = class_key(name)
        number = self._numbers.get(key)
        if number is None:
            number = wanted
            if wanted < 0 or wanted in self._taken:
                while self._next in self._taken:
                    self._next += 1
                number = self._next
            self._numbers[key] = number
            self._taken.add(number)
        return number


class ClassRules:
    """
    Renaming, choice and score thresholds of classes.

    Parameters
    ----------
    config : ClassConfig
        The settings.
    vocabulary : Vocabulary, optional
        Keeps the class numbers of the same name the same; share one among all detectors whose
        boxes meet. A new one when missing.

    """

    def __init__(
        self, config: ClassConfig | None = None, vocabulary: Vocabulary | None = None,
    ) -> None:
        self._config = config or ClassConfig()
        self._vocabulary = vocabulary or Vocabulary()
        self._renames = read_renames(self._config.rename)
        self._thresholds = read_thresholds(self._config.score_thresholds)
        self._ignored = {class_key(name) for name in self._config.ignore}
        self._kept = {class_key(name) for name in self._config.keep}

    @property
    def config(self) -> ClassConfig:
        """Return the settings in force."""
        return self._config

    def apply(self, instances: Instances) -> Instances:
        """
        Rename detections and leave out those that are not wanted.

        A row without a name only has to reach the score threshold of all others. A score that is
        no number is kept: whoever checks boxes counts it as unusable.

        Parameters
        ----------
        instances : Instances
            Detections of one image. Rows keep their order.

        """
        labels, numbers = list(instances.labels), instances.class_ids.copy()
        alive = np.ones(len(instances), bool)
        floor = self._thresholds.get(OTHERS, 0.0)
        for row, label in enumerate(labels):
            if not label:
                alive[row] = not instances.scores[row] < floor
                continue
            renamed = self._renames.get(class_key(label))
            number = -1 if renamed else int(numbers[row])
            labels[row] = renamed or label
            old, new = class_key(label), class_key(labels[row])
            alive[row] = not (
                old in self._ignored or new in self._ignored
                or (self._kept and new not in self._kept)
                or instances.scores[row] < self._thresholds.get(new, floor))
            numbers[row] = self._vocabulary.number(labels[row], number)
        changed = instances.with_fields(labels=tuple(labels), class_ids=numbers)
        return changed if alive.all() else changed.select(alive)


def class_key(name: str) -> str:
    """Form of a class name by which two names are compared: ``Car`` is ``car``."""
    return ' '.join(name.casefold().split())


def read_renames(entries: Sequence[str]) -> dict[str, str]:
    """
    Read ``old=new`` texts into new names by the compared form of the old ones.

    Raises
    ------
    ValueError
        If a text is no such pair, an old name comes twice, or a new name is itself renamed.

    """
    renames: dict[str, str] = {}
    for entry in entries:
        old, new = _pair(entry, 'classes.rename', 'truck=vehicle')
        if renames.get(class_key(old), new) != new:
            raise ValueError(f'classes.rename gives {old!r} two new names, '
                             f'{renames[class_key(old)]!r} and {new!r}; keep one')
        renames[class_key(old)] = new
    for new in renames.values():
        other = renames.get(class_key(new), new)
        if class_key(other) != class_key(new):
            raise ValueError(f'classes.rename renames {new!r}, which is itself a new name, to '
                             f'{other!r}; write the last name in every entry')
    return renames


def read_thresholds(entries: Sequence[str]) -> dict[str, float]:
    """
    Read ``name=score`` texts into lowest scores by the compared form of class names.

    Raises
    ------
    ValueError
        If a text is no such pair, or a score is not from 0 to 1.

    """
    thresholds: dict[str, float] = {}
    for entry in entries:
        name, text = _pair(entry, 'classes.score_thresholds', 'person=0.4')
        try:
            score = float(text)
        except ValueError:
            score = -1.0
        if not 0 <= score <= 1:
            raise ValueError(f'classes.score_thresholds has {entry!r}, expected a score from 0 to '
                             '1 after the name, such as person=0.4')
        thresholds[class_key(name)] = score
    return thresholds


def _pair(entry: object, setting_name: str, example: str) -> tuple[str, str]:
    """Two sides of a ``left=right`` text; the last ``=`` counts, as names may hold one."""
    left, equals, right = str(entry).rpartition('=')
    if not equals or not left.strip() or not right.strip():
        raise ValueError(f'{setting_name} has {entry!r}, expected a pair such as {example}')
    return left.strip(), right.strip()
