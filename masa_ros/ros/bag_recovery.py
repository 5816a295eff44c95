"""
Reading bag files that were never finished: the recorder was killed or the disk was full.

Such files have no index. The messages are there, one after the other, up to the point where the
file ends; these readers give them in the order in which they were written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
import sqlite3
import struct
import sys
from typing import Any, BinaryIO

import apsw
from lz4.frame import decompress as lz4_decompress  # type: ignore[import-untyped]
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

if sys.version_info >= (3, 14):
    from compression.zstd import decompress as zstd_decompress
else:
    from backports.zstd import decompress as zstd_decompress

_MAGIC = b'\x89MCAP0\r\n'
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_FORMATS = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL}
_DECOMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    '': bytes, 'lz4': lz4_decompress, 'zstd': zstd_decompress}


@dataclass(frozen=True)
class RawMessage:
    """
    A message as it lies in a bag.

    Parameters
    ----------
    topic : str
        Its topic.
    type_name : str
        Its type, such as ``sensor_msgs/msg/Image``.
    time_ns : int
        When it was recorded.
    data : bytes
        CDR.

    """

    topic: str
    type_name: str
    time_ns: int
    data: bytes


@dataclass
class RecoveredFile:
    """
    What can be read of an unfinished file.

    Parameters
    ----------
    path : Path
        The file, ``.mcap`` or ``.db3``.
    problem : str
        Why reading stopped; empty as long as it did not.
    definitions : dict
        Definition of each type, filled while reading.

    """

    path: Path
    problem: str = ''
    definitions: dict[str, MessageDefinition] = field(default_factory=dict)

    def messages(self) -> Iterator[RawMessage]:
        """Give all messages up to the end or the first damage."""
        self.problem = ''
        read = _read_sqlite if self.path.suffix == '.db3' else _read_mcap
        yield from read(self)


def _read_mcap(source: RecoveredFile) -> Iterator[RawMessage]:
    """Walk over the records of an MCAP file without its index."""
    channels: dict[int, tuple[str, str]] = {}
    schemas: dict[int, str] = {}
    with source.path.open('rb') as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            source.problem = 'it does not begin like an MCAP file'
            return
        while (record := _next_record(file)) is not None:
            code, body = record
            if code == _DATA_END:
                return
            try:
                yield from _records(source, code, body, channels, schemas)
            except (struct.error, KeyError, ValueError, RuntimeError, EOFError) as error:
                source.problem = f'a record is damaged ({error or type(error).__name__})'
                return
        source.problem = f'it breaks off after {file.tell()} bytes'


def _next_record(file: BinaryIO) -> tuple[int, bytes] | None:
    """Kind and content of the next record; ``None`` where the file ends before its end."""
    head = file.read(9)
    if len(head) < 9:
        return None
    (length,) = struct.unpack('<Q', head[1:])
    if length > 1 << 33:
        return None
    body = file.read(length)
    return (head[0], body) if len(body) == length else None


def _records(
    source: RecoveredFile, code: int, body: bytes, channels: dict[int, tuple[str, str]],
    schemas: dict[int, str],
) -> Iterator[RawMessage]:
    """Messages of one record, which may be a chunk of many."""
    if code == _CHUNK:
        compression = _Fields(body, 28)
        method = compression.text()
        content = _DECOMPRESSORS[method](body[compression.position + 8:])
        chunk = BytesIO(content)
        while (record := _next_record(chunk)) is not None:
            yield from _records(source, *record, channels, schemas)
    elif code == _SCHEMA:
        fields = _Fields(body)
        number, name, encoding = fields.uint16(), fields.text(), fields.text()
        schemas[number] = name
        source.definitions[name] = MessageDefinition(
            _FORMATS.get(encoding, MessageDefinitionFormat.NONE), fields.text())
    elif code == _CHANNEL:
        fields = _Fields(body)
        number, schema, topic = fields.uint16(), fields.uint16(), fields.text()
        channels[number] = (topic, schemas.get(schema, ''))
    elif code == _MESSAGE:
        number, _, time_ns = struct.unpack_from('<HIQ', body)
        yield RawMessage(*channels[number], time_ns, body[22:])


class _Fields:
    """Fields of an MCAP record, one after the other."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self.position = position

    def uint16(self) -> int:
        """Next field, two bytes."""
        self.position += 2
        return int(struct.unpack_from('<H', self._data, self.position - 2)[0])

    def text(self) -> str:
        """Next field, a text with its length before it."""
        (length,) = struct.unpack_from('<I', self._data, self.position)
        self.position += 4 + int(length)
        return self._data[self.position - length:self.position].decode()


class _PaddedFile(apsw.VFSFile):
    """
    File of a database that is shorter than it should be, zeros in place of what is missing.

    SQLite refuses a cut off file as a whole; with the zeros it reads up to the first missing page.
    """

    def __init__(self, path: str, size: int) -> None:
        self._file = Path(path).open('rb')  # noqa: SIM115, closed by xClose
        self._size = size

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802
        self._file.seek(offset)
        return self._file.read(amount).ljust(amount, b'\0')

    def xFileSize(self) -> int:  # noqa: N802
        return self._size

    def xClose(self) -> None:  # noqa: N802
        self._file.close()

    def xSectorSize(self) -> int:  # noqa: N802
        return 0

    def xDeviceCharacteristics(self) -> int:  # noqa: N802
        return 0

    def xFileControl(self, op: int, ptr: int) -> bool:  # noqa: N802
        return False


class _PaddedFiles(apsw.VFS):
    """Opens `_PaddedFile`."""

    def __init__(self, size: int) -> None:
        self._size = size
        super().__init__('masa_ros_padded', '')

    def xOpen(self, name: Any, flags: list[int]) -> Any:  # noqa: N802
        return _PaddedFile(name.filename(), self._size)


def _connect(path: Path) -> tuple[Any, Any]:
    """Open a database; returns the connection and what must live as long as it."""
    if unfinished_database(path):
        return sqlite3.connect(f'file:{path}?mode=ro', uri=True), None
    with path.open('rb') as file:
        head = file.read(100).ljust(100, b'\0')
    # From the file format of SQLite: page size at byte 16 (1 means 65536), pages at byte 28.
    page_size, pages = struct.unpack('>16xH10xI68x', head)
    size = max((65536 if page_size == 1 else page_size) * pages, path.stat().st_size)
    files = _PaddedFiles(size)
    connection = apsw.Connection(
        f'file:{path}?immutable=1', flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
        vfs='masa_ros_padded')
    return connection, files


def unfinished_database(path: Path) -> bool:
    """Whether rows of a database still lie in the write-ahead log beside it."""
    log = path.with_name(f'{path.name}-wal')
    return log.is_file() and log.stat().st_size > 0


def _read_sqlite(source: RecoveredFile) -> Iterator[RawMessage]:
    """Give the rows of a database in the order of writing until one cannot be read."""
    try:
        connection, files = _connect(source.path)
        with closing(connection):
            topics = dict(_sqlite_topics(connection, source))
            # By row number, so that no index is needed, which may be in the missing part.
            for topic_id, time_ns, data in connection.execute(
                    'SELECT topic_id, timestamp, data FROM messages ORDER BY rowid'):
                if topic_id in topics:
                    yield RawMessage(*topics[topic_id], time_ns, data)
        del files
    except (apsw.Error, sqlite3.Error) as error:
        source.problem = f'the database is damaged ({error})'


def _sqlite_topics(
    connection: Any, source: RecoveredFile,
) -> Iterator[tuple[int, tuple[str, str]]]:
    tables = {row[0] for row in connection.execute('SELECT name FROM sqlite_master')}
    if 'message_definitions' in tables:
        for name, encoding, text in connection.execute(
                'SELECT topic_type, encoding, encoded_message_definition '
                'FROM message_definitions'):
            source.definitions[name] = MessageDefinition(
                _FORMATS.get(encoding, MessageDefinitionFormat.NONE), text)
    for number, topic, type_name in connection.execute('SELECT id, name, type FROM topics'):
        yield number, (topic, type_name)
