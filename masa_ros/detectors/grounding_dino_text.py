"""Class names as Grounding-DINO reads them: names to tokens, token scores to class scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

START, END, DOT, QUESTION = 101, 102, 1012, 1029
"""Numbers of [CLS], [SEP], the full stop and the question mark in BERT's uncased vocabulary."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """
    Class names that go through the network together.

    Parameters
    ----------
    token_ids : Tensor
        ``(T,)`` int64, from [CLS] to [SEP], a full stop after each name.
    spans : list of tuple
        First token and the one after the last of each name.
    classes : list of int
        Position of each name in the prompt.

    """

    token_ids: Tensor
    spans: list[tuple[int, int]]
    classes: list[int]


@dataclass(frozen=True, eq=False)
class Prompt:
    """
    What is looked for.

    Parameters
    ----------
    names : tuple of str
        Class names.
    chunks : list of Chunk
        Their tokens, as many chunks as the longest text of the network asks for.

    """

    names: tuple[str, ...]
    chunks: list[Chunk]


def make_prompt(
    names: Sequence[str], tokenize: Callable[[str], list[int]], longest: int,
) -> Prompt:
    """
    Turn class names into tokens.

    Parameters
    ----------
    names : sequence of str
        At least one.
    tokenize : callable
        Token numbers of a text, without [CLS] and [SEP].
    longest : int
        Most tokens of a chunk.

    Raises
    ------
    ValueError
        If a name has no token (nothing but punctuation), or is too long by itself.

    """
    chunks: list[tuple[list[int], list[tuple[int, int]], list[int]]] = []
    for position, name in enumerate(names):
        # A full stop inside a name would end it.
        tokens = [token for token in tokenize(name.lower())
                  if token not in (START, END, DOT, QUESTION)]
        if not tokens:
            raise ValueError(f'the class name {name!r} has no word in it; use one that describes '
                             'the object')
        if len(tokens) + 3 > longest:
            raise ValueError(f'the class name {name[:40]!r}... has {len(tokens)} tokens, expected '
                             f'at most {longest - 3}; use a shorter one')
        if not chunks or len(chunks[-1][0]) + len(tokens) + 2 > longest:
            chunks.append(([START], [], []))
        ids, spans, classes = chunks[-1]
        spans.append((len(ids), len(ids) + len(tokens)))
        classes.append(position)
        ids += [*tokens, DOT]
    return Prompt(tuple(names), [Chunk(torch.tensor([*ids, END]), spans, classes)
                                 for ids, spans, classes in chunks])


def class_scores(token_scores: Tensor, spans: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """
    Scores of classes from those of their tokens.

    Parameters
    ----------
    token_scores : Tensor
        ``(Q, T)`` in ``[0, 1]``.
    spans : sequence of tuple
        Tokens of each of ``K`` classes.

    Returns
    -------
    best : Tensor
        ``(Q, K)`` the highest score among the tokens of each class, which is the box's score.
    mean : Tensor
        ``(Q, K)`` their mean, which tells ``traffic cone`` from ``traffic light``.

    """
    groups = [token_scores[:, first:last] for first, last in spans]
    return (torch.stack([group.amax(dim=1) for group in groups], dim=1),
            torch.stack([group.mean(dim=1) for group in groups], dim=1))
