"""A text file that grows by whole pieces."""

from __future__ import annotations

from pathlib import Path


class AppendFile:
    """
    Writes pieces of text, each wholly or not at all.

    Nothing is held back, and a piece that the disk has no room for is taken away again, so that
    the file is whole after every piece.

    Parameters
    ----------
    path : Path
        File to write.

    """

    def __init__(self, path: Path) -> None:
        self._file = path.open('wb', buffering=0)

    @property
    def closed(self) -> bool:
        """Whether the file is finished."""
        return self._file.closed

    def write(self, text: str) -> None:
        """
        Append a piece.

        Raises
        ------
        OSError
            If it cannot be written; the file is as it was before.

        """
        data = memoryview(text.encode())
        start = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) or 0:]
        except OSError:
            self._file.truncate(start)
            self._file.seek(start)
            raise

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
