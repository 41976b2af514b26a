"""The file of a catalogue: made, found again, and refused when it is not surely ours."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from store.catalogue import place, schema
from store.catalogue.place import NoPlace, Opened, base, digest_of, identity_of, open_catalogue
from store.catalogue.tables import Tables
from store.catalogue.values import ThreadSummary
from tests.store.catalogue.conftest import called

IDENTITY: dict[str, str | int] = {"path": "/store", "inode": 1, "birth_ns": 2}
NAME = digest_of(IDENTITY)


@contextmanager
def opened(caches: Path, identity: dict[str, str | int] = IDENTITY) -> Iterator[Opened]:
    catalogue = open_catalogue(os.fspath(caches), identity)
    try:
        yield catalogue
    finally:
        catalogue.close()


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    """With a catalogue of one thread."""
    with opened(tmp_path / "caches") as made:
        assert made.why_new is None
        catalogue = Tables(made.connection)
        with catalogue.changing():
            catalogue.put_thread(ThreadSummary("t1", 0, 0, "Bees"))
    return tmp_path / "caches"


def titles(caches: Path) -> list[tuple[str, str]]:
    with opened(caches) as found:
        return called(Tables(found.connection).titles())


def test_a_catalogue_is_found_again_and_nobody_else_can_read_it(caches: Path) -> None:
    assert titles(caches) == [("Bees", "t1")]
    with opened(caches):
        found = {path.relative_to(caches).as_posix(): path for path in caches.rglob("*")}
        assert f"threadfs/{NAME}/catalogue.sqlite-wal" in found
        for path in found.values():
            assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_caches_are_where_the_environment_says(tmp_path: Path) -> None:
    assert base({"XDG_CACHE_HOME": "/caches", "HOME": "/home/ada"}) == "/caches"
    assert base({"XDG_CACHE_HOME": "relative", "HOME": "/home/ada"}) == "/home/ada/.cache"
    assert base({"CACHE_DIRECTORY": "/var/cache/one:/var/cache/two"}) == "/var/cache/one"
    with pytest.raises(NoPlace):
        base({"HOME": ""})


def test_another_store_at_the_same_path_has_another_identity(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "link").symlink_to("store")
    first = identity_of(os.fspath(tmp_path / "store"))
    assert first == identity_of(os.fspath(tmp_path / "link"))
    assert abs(int(first["birth_ns"]) / 1e9 - time.time()) < 60
    (tmp_path / "store").rename(tmp_path / "old")
    (tmp_path / "store").mkdir()
    assert identity_of(os.fspath(tmp_path / "store")) != first


def file(caches: Path) -> Path:
    return caches / "threadfs" / NAME / "catalogue.sqlite"


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite_header(path: Path) -> None:
    path.write_bytes(b"not a database" * 1000)


def zero_a_page(path: Path) -> None:
    with path.open("r+b") as written:
        written.seek(4096 * 2)
        written.write(bytes(4096))


def executing(*statements: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        connection = sqlite3.connect(path)
        for statement in statements:
            connection.execute(statement)
        connection.commit()
        connection.close()

    return change


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (truncate, "damaged"),
        (overwrite_header, "damaged"),
        (zero_a_page, "damaged"),
        (executing("PRAGMA user_version = 2"), "version 2"),
        (executing("PRAGMA application_id = 0"), "no catalogue"),
        (executing("CREATE TRIGGER t AFTER INSERT ON threads BEGIN DELETE FROM runs; END"), "tables"),
        (executing("ALTER TABLE runs ADD COLUMN more"), "tables"),
        (executing("UPDATE identity SET value = 9 WHERE key = 'inode'"), "another store"),
    ],
)
def test_what_is_not_surely_ours_is_made_anew_and_the_reason_is_told(
    caches: Path, damage: Callable[[Path], None], why: str
) -> None:
    path = file(caches)
    executing("PRAGMA wal_checkpoint")(path)  # From SQLite's log, what is damaged would be restored.
    damage(path)
    with opened(caches) as made:
        assert why in str(made.why_new)
        assert called(Tables(made.connection).titles()) == []
    with opened(caches) as found:
        assert found.why_new is None


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each catalogue that is opened, whether all of it is read to see whether it is whole."""
    found: list[bool] = []

    def check(*given: Any, is_whole: bool, check: Any = schema.check) -> None:
        found.append(not is_whole)
        check(*given, is_whole=is_whole)

    monkeypatch.setattr(schema, "check", check)
    return found


def test_only_a_catalogue_that_is_not_as_it_was_left_in_this_boot_is_read_to_see_whether_it_is_whole(
    caches: Path, read: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # It was written so shortly before that it may be another one.
        assert titles(caches) == [("Bees", "t1")]
    monkeypatch.setattr(place, "_SETTLES_NS", -1)
    for _ in range(3):
        assert titles(caches) == [("Bees", "t1")]
    assert read == [True, True, True, False, False]
    monkeypatch.setattr(place, "_BOOT", os.devnull)
    titles(caches)
    with opened(caches) as found, Tables(found.connection).changing():
        Tables(found.connection).put_thread(ThreadSummary("t2", 0, 0, "Wasps"))
    titles(caches)
    executing("PRAGMA wal_checkpoint")(file(caches))
    titles(caches)
    assert read[5:] == [True, False, False, True]


def test_a_catalogue_that_has_failed_is_read_to_see_whether_it_is_whole(
    caches: Path, read: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "_SETTLES_NS", -1)
    titles(caches)
    with suppress(sqlite3.Error), open_catalogue(os.fspath(caches), IDENTITY):
        raise sqlite3.DatabaseError
    titles(caches)
    assert read == [True, False, True]


def test_a_catalogue_is_closed_without_a_move_from_the_log_of_sqlite_and_nothing_is_lost(
    caches: Path,
) -> None:
    with opened(caches) as first:
        catalogue = Tables(first.connection)
        with catalogue.changing():
            catalogue.put_thread(ThreadSummary("t1", 0, 0, "Bees"))
    log = Path(f"{file(caches)}-wal")
    size_bytes = log.stat().st_size
    assert size_bytes > 0
    with opened(caches) as second:
        assert ("Bees", "t1") in called(Tables(second.connection).titles())
    assert log.stat().st_size == size_bytes


def test_who_has_a_deleted_catalogue_open_goes_on_with_it_and_spoils_no_new_one(caches: Path) -> None:
    with opened(caches) as old, opened(caches) as second_old:
        executing("PRAGMA user_version = 2")(file(caches))
        with opened(caches) as new:
            catalogue = Tables(new.connection)
            with catalogue.changing():
                catalogue.put_thread(ThreadSummary("t2", 0, 0, "Wasps"))
            with Tables(old.connection).changing():
                Tables(old.connection).put_thread(ThreadSummary("t3", 0, 0, "Ants"))
            second_old.connection.close()
            old.connection.close()
            assert called(catalogue.titles()) == [("Wasps", "t2")]
            schema.check(new.connection, IDENTITY, schema.definitions())
    assert titles(caches) == [("Wasps", "t2")]


def test_a_file_or_directory_that_others_may_write_is_not_used(caches: Path) -> None:
    for path in (file(caches), file(caches).parent, caches / "threadfs"):
        mode = path.stat().st_mode & 0o777
        path.chmod(mode | 0o020)
        with pytest.raises(NoPlace, match="others may write"):
            open_catalogue(os.fspath(caches), IDENTITY)
        path.chmod(mode)
    assert titles(caches) == [("Bees", "t1")]


@pytest.mark.parametrize("name", ["catalogue.sqlite", "catalogue.sqlite-wal", "opening", "."])
def test_a_link_is_not_followed(caches: Path, tmp_path: Path, name: str) -> None:
    place_of = file(caches).parent / name
    target = tmp_path / "target"
    if name == ".":
        file(caches).parent.rename(target)
        file(caches).parent.symlink_to(target)
    else:
        target.write_bytes(b"")
        place_of.unlink(missing_ok=True)
        place_of.symlink_to(target)
    before = target.stat()
    with pytest.raises(NoPlace):
        open_catalogue(os.fspath(caches), IDENTITY)
    assert target.stat() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_somebody_elses_file_is_not_used(caches: Path) -> None:
    os.chown(file(caches), 65534, 65534)
    with pytest.raises(NoPlace, match="somebody else's"):
        open_catalogue(os.fspath(caches), IDENTITY)


def test_a_fifo_or_a_second_name_is_no_file_of_its_own(caches: Path, tmp_path: Path) -> None:
    os.link(file(caches), tmp_path / "second")
    with pytest.raises(NoPlace, match="no file of its own"):
        open_catalogue(os.fspath(caches), IDENTITY)
    file(caches).unlink()
    os.mkfifo(file(caches), 0o600)
    with pytest.raises(NoPlace, match="no file of its own"):
        open_catalogue(os.fspath(caches), IDENTITY)


def test_where_no_file_can_be_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NoPlace, match="file"):
        open_catalogue(os.fspath(tmp_path / "file"), IDENTITY)
    with pytest.raises(NoPlace, match="not on a disk of this machine"):
        open_catalogue("/proc/self/task", IDENTITY)
    monkeypatch.setattr(schema, "_TABLES", ("CREATE VIRTUAL TABLE words USING no_such_module (text)",))
    with pytest.raises(NoPlace, match="no such module"):
        open_catalogue(os.fspath(tmp_path / "caches"), IDENTITY)
    assert not (tmp_path / "caches").exists()


def test_only_catalogues_that_nobody_has_opened_for_a_month_are_removed(caches: Path) -> None:
    other = IDENTITY | {"inode": 9}
    with opened(caches, other):
        pass
    (caches / "threadfs" / "of another program").mkdir()
    a_month_ago = time.time() - 31 * 86400
    for path in (caches / "threadfs").iterdir():
        os.utime(path, (a_month_ago, a_month_ago))
    with opened(caches):
        place.remove_unseen(os.fspath(caches))
    left = sorted(path.name for path in (caches / "threadfs").iterdir())
    assert left == sorted([NAME, "of another program"])
    assert titles(caches) == [("Bees", "t1")]


def test_one_that_is_in_use_is_not_removed_however_old_it_is(caches: Path) -> None:
    with opened(caches):
        a_month_ago = time.time() - 31 * 86400
        os.utime(file(caches).parent, (a_month_ago, a_month_ago))
        place.remove_unseen(os.fspath(caches))
    assert titles(caches) == [("Bees", "t1")]
