"""FILEs that hold others: zips and directories. Names in them never decide where something is written."""

from __future__ import annotations

import io
import os
import posixpath
import stat
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import IO

from threadfs.importing.files import Advance, Container, File, Unreadable
from threadfs.importing.pieces import Pieces
from threadfs.importing.values import Fields, entries, fields, text

_MANIFEST = "export_manifest.json"


@dataclass(slots=True)
class Zip:
    """A zip. Only ordinary files are members; links and directories are not."""

    name: str
    archive: zipfile.ZipFile
    _infos: dict[str, zipfile.ZipInfo] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, stream: IO[bytes]) -> Zip:
        """Raises Unreadable."""
        try:
            made = cls(name, zipfile.ZipFile(stream))
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
            raise Unreadable(f"is a zip that is cut off or damaged: {error}") from None
        for info in made.archive.infolist():
            mode = info.external_attr >> 16
            if not info.is_dir() and (stat.S_IFMT(mode) in (0, stat.S_IFREG)):
                made._infos.setdefault(info.filename, info)
        return made

    def members(self) -> list[str]:
        return sorted(self._infos)

    def opened(self, member: str) -> IO[bytes]:
        info = self._infos[member]
        if info.flag_bits & 1:
            raise Unreadable("is encrypted")
        try:
            return self.archive.open(info)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError) as error:
            raise Unreadable(f"cannot be unpacked: {error}") from None

    def packed(self, member: str) -> float:
        info = self._infos[member]
        return info.compress_size / info.file_size if info.file_size else 0.0


@dataclass(slots=True)
class Directory:
    """A directory with all files below it. Links in it are not followed."""

    name: str

    def members(self) -> list[str]:
        found = []
        for at, directories, names in os.walk(self.name):
            directories.sort()
            for name in sorted(names):
                path = os.path.join(at, name)
                with suppress(OSError):
                    if stat.S_ISREG(os.lstat(path).st_mode):
                        found.append(os.path.relpath(path, self.name))
        return sorted(found)

    def opened(self, member: str) -> IO[bytes]:
        return open(os.path.join(self.name, member), "rb")

    def packed(self, member: str) -> float:
        return 1.0


def files_in(
    container: Container, advance: Advance, unreadable: Callable[[str, str], None]
) -> Iterator[File]:
    """Each member as a file, open until the next iteration; *unreadable* gets those that cannot be opened."""
    for member in container.members():
        name = f"{container.name.rstrip('/')}/{member}"
        try:
            stream = container.opened(member)
        except FileNotFoundError:
            continue  # A program has deleted it since the directory was listed.
        except OSError as error:
            unreadable(name, error.strerror or str(error))
            continue
        except Unreadable as error:
            unreadable(name, str(error))
            continue
        with closing(stream):
            yield File(name, stream, _in_proportion(advance, container.packed(member)), container, member)


def _in_proportion(advance: Advance, share: float) -> Advance:
    return lambda size: advance(size * share)


def beside(container: Container | None, member: str, name: str) -> object:
    """The value in the small JSON file *name* in the directory of a *member*; ``None`` without one."""
    if container is None:
        return None
    wanted = posixpath.join(posixpath.dirname(member), name)
    return _value(container, wanted) if wanted in container.members() else None


def _value(container: Container, member: str) -> object:
    try:
        with closing(container.opened(member)) as stream:
            data = File(member, stream, lambda size: None).head()
    except (OSError, Unreadable):
        return None
    values = [item.value for item in Pieces(io.BytesIO(data).read)]
    return values if data.lstrip()[:1] == b"[" else values[0] if values else None


def missing_shards(container: Container) -> Iterator[str]:
    """The shards of ``conversations.json`` that a manifest of the container lists, and that are missing."""
    members = set(container.members())
    for manifest in sorted(member for member in members if posixpath.basename(member) == _MANIFEST):
        logical: Fields = fields(fields(_value(container, manifest)).get("logical_files"))
        listed = entries(fields(logical.get("conversations.json")).get("files"))
        for shard in sorted({text(name) for name in listed} - {""}):
            if posixpath.join(posixpath.dirname(manifest), shard) not in members:
                yield shard
