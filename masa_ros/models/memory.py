"""Work in portions that fit into the memory of the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import logging
from typing import TypeVar

import torch

_LOG = logging.getLogger(__name__)
_Result = TypeVar('_Result')


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device, or the machine, has no more memory."""
    # On the CPU torch raises a plain RuntimeError that holds the allocator's name.
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and 'DefaultCPUAllocator' in str(error))


class Portions:
    """
    Run something for many items, as many at once as the memory holds.

    Parameters
    ----------
    what : str
        The items, in the plural, for messages.
    at_once : int
        Most items in a portion. When memory runs out it is halved for good, and a warning says
        so.

    """

    def __init__(self, what: str, at_once: int) -> None:
        self.what = what
        self.at_once = at_once

    def run(self, count: int, function: Callable[[slice], _Result]) -> Iterator[_Result]:
        """
        Call a function for one portion after the other.

        Parameters
        ----------
        count : int
            Number of items.
        function : callable
            Takes the slice of a portion.

        Yields
        ------
        object
            What the function returned, portion by portion.

        Raises
        ------
        MemoryError
            If there is not even room for one item; the message says what may help.

        """
        start = 0
        while start < count:
            part = slice(start, min(start + self.at_once, count))
            try:
                result = function(part)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(part.stop - part.start, error)
            else:
                yield result
                start = part.stop
                continue
            # Only now, outside of the handler, nothing holds on to the failed attempt any more.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()

    def _halve(self, tried: int, error: RuntimeError) -> None:
        if tried == 1:
            raise MemoryError(
                f'out of memory for a single one of the {self.what}: choose a smaller model, set '
                'model.precision to bfloat16, or free memory on the device '
                f'({str(error).splitlines()[0][:120]})') from error
        self.at_once = tried // 2
        _LOG.warning('out of memory: %s are now computed %d at a time', self.what, self.at_once)
