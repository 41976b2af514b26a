"""The bytes of files that are in an export, written beside the store: for ``--files DIR``."""

from __future__ import annotations

import binascii
import os
import posixpath
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import chain

from store import names
from threadfs.importing.containers import beside
from threadfs.importing.conversations import Attached, Conversation
from threadfs.importing.files import Container, File
from threadfs.importing.values import digest, fields, text

_PIECE_BYTES = 1 << 20
# So many characters hold the bytes that tell the type.
_BASE64_OF_TYPE = 32
_SUFFIX = re.compile(r"\.([A-Za-z0-9]{1,8})\Z")
# ChatGPT gives all files this ending, whatever their type is.
_NO_TYPE = "dat"
_TYPES = (
    (b"\x89PNG", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"%PDF-", "pdf"),
    (b"PK\x03\x04", "zip"),
    (b"OggS", "ogg"),
    (b"ID3", "mp3"),
)
_NAMES = "conversation_asset_file_names.json"


@dataclass(slots=True)
class AttachedFiles:
    """Writes files into *directory*, which is made when there is something for it."""

    directory: str
    _container: Container | None = None
    _members: dict[str, str] = field(default_factory=dict)

    def write(self, conversation: Conversation, container: Container | None) -> None:
        """Writes the files of a conversation that its container holds. Raises OSError, Unreadable."""
        files = [file for message in conversation.messages for file in message.files]
        if not files or container is None:
            return
        if container is not self._container:
            self._container, self._members = container, dict(_by_id(container))
        for file in files:
            if member := self._members.get(file.file_id):
                self._copy(container, member, file)

    def keep(self, file_id: str, data: str) -> None:
        """A picture that is in a file of conversations itself, as base64. Raises OSError."""
        with suppress(binascii.Error):
            begins = binascii.a2b_base64(data[:_BASE64_OF_TYPE])
            self._write(file_id, _type_of(begins), lambda: [binascii.a2b_base64(data)])

    def _copy(self, container: Container, member: str, file: Attached) -> None:
        with closing(container.opened(member)) as stream:
            read = File(member, stream, lambda size: None).read
            begins = read(_PIECE_BYTES)
            kind = _type(container, member, file, begins)
            self._write(file.file_id, kind, lambda: chain([begins], iter(lambda: read(_PIECE_BYTES), b"")))

    def _write(self, file_id: str, kind: str, pieces: Callable[[], Iterable[bytes]]) -> None:
        """Writes the file, if it is not there."""
        stem = file_id if names.is_id(file_id) else digest(file_id)
        path = os.path.join(self.directory, f"{stem}.{kind}")
        if os.path.lexists(path):
            return
        os.makedirs(self.directory, exist_ok=True)
        # An import may be killed: the file is complete, or it is not there.
        temporary = os.path.join(self.directory, f".threadfs-tmp-{secrets.token_hex(8)}")
        try:
            with open(temporary, "xb") as written:
                written.writelines(pieces())
            os.rename(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def _by_id(container: Container) -> Iterator[tuple[str, str]]:
    """(id, member) for each id that a member may have: ``<id>``, ``<id>.<type>`` or ``<id>-<name>``."""
    for member in reversed(container.members()):
        base = posixpath.basename(member)
        for end in re.finditer(r"[-.]|\Z", base):
            yield base[: end.start()], member


def _type(container: Container, member: str, file: Attached, data: bytes) -> str:
    """The type of a file, without a dot: from its known name, else from its first bytes."""
    base = posixpath.basename(member)
    known = fields(beside(container, member, _NAMES))
    for name in (file.name, text(known.get(base)), base):
        found = _SUFFIX.search(name)
        if found and found[1].lower() != _NO_TYPE:
            return found[1].lower()
    return _type_of(data)


def _type_of(data: bytes) -> str:
    if data[:4] == b"RIFF":
        return "webp" if data[8:12] == b"WEBP" else "wav"
    if data[4:8] == b"ftyp":
        return "mp4"
    return next((kind for magic, kind in _TYPES if data.startswith(magic)), "bin")
