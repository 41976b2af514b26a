"""The lines of the events that a mount keeps."""

from __future__ import annotations

from threadfs.events.event import Event, event_of
from threadfs.events.kept import KeptLines


def filled(count: int, kept: int = 10) -> KeptLines:
    lines = KeptLines(kept)
    for number in range(count):
        lines.add(b"%06d\n" % number)
    return lines


def test_lines_are_read_from_any_place_in_pieces_of_any_size() -> None:
    lines = filled(5)
    whole = lines.read(0, 1000)
    assert whole == b"".join(b"%06d\n" % number for number in range(5))
    for place in range(len(whole) + 1):
        for size in range(1, len(whole) + 2):
            assert lines.read(place, size) == whole[place : place + size]


def test_at_least_so_many_lines_are_kept_and_at_most_twice_as_many() -> None:
    for count in range(60):
        lines = filled(count)
        kept = lines.read(lines.beginning, 10_000).splitlines()
        assert min(count, 10) <= len(kept) <= 20
        assert kept[-1:] == ([b"%06d" % (count - 1)] if count else [])
        assert lines.count == count


def test_who_has_read_on_loses_no_place_when_old_lines_are_dropped() -> None:
    lines = filled(19)
    place = lines.end
    for number in range(19, 40):
        lines.add(b"%06d\n" % number)
        piece = lines.read(place, 100)
        assert piece == b"%06d\n" % number
        place += len(piece)


def test_what_is_not_kept_any_more_reads_as_empty_lines() -> None:
    lines = filled(50)
    whole = b""
    while piece := lines.read(len(whole), 9):
        whole += piece
    assert len(whole) == lines.end
    assert whole == b"\n" * lines.beginning + lines.read(lines.beginning, 1000)


def test_a_line_says_what_it_was_made_of() -> None:
    event = Event(1_700_000_000_123_000_000, "run.completed", "a\nb\udcff", "R", status="completed")
    line = event.line()
    assert line.count(b"\n") == 1
    assert event_of(line) == event
    assert b'"time":"2023-11-14T22:13:20.123Z"' in line
