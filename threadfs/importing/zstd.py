"""Files that are packed with zstd, as Codex packs old sessions: read by the library, if it is there."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, cast

from threadfs.importing.files import ZSTD, File, Unreadable

if TYPE_CHECKING:
    from zstandard import ZstdDecompressionReader

# A frame may say how much memory its reader is to take: as much as `zstd` grants without being asked.
_MAX_WINDOW_BYTES = 128 << 20


def unpacked(file: File) -> File:
    """The file itself, if it is not packed. Raises Unreadable."""
    if not file.head().startswith(ZSTD):
        return file
    try:
        import zstandard
    except ImportError:
        raise Unreadable(
            "is packed with zstd: unpack it first, or install what reads it: pip install zstandard"
        ) from None
    decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
    reader = decompressor.stream_reader(cast(IO[bytes], file), read_across_frames=True)
    # What was read is told by the packed file.
    return File(
        file.name, cast(IO[bytes], _Stream(reader)), lambda size: None, file.container, file.member, file.keep
    )


class _Stream:
    """What is in a packed file, with its errors as `File` has them."""

    def __init__(self, reader: ZstdDecompressionReader) -> None:
        self._reader = reader

    def read(self, size: int = -1) -> bytes:
        from zstandard import ZstdError

        try:
            return self._reader.read(size)
        except ZstdError as error:
            raise Unreadable(f"cannot be unpacked: {error}") from None
