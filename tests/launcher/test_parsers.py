"""The small languages: conmon's log, ps."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from netd.core.times import timestamp
from netd.launcher import top
from netd.launcher.logs import Entry, LogQuery, _Reader, parse_entry

times = st.integers(0, 4_000_000_000 * 10**9)
texts = st.binary().filter(lambda text: b"\n" not in text)


@given(times, st.sampled_from([(b"stdout", 1), (b"stderr", 2)]), texts, st.booleans())
def test_log_lines_are_read_as_conmon_writes_them(
    time: int, stream: tuple[bytes, int], text: bytes, whole: bool
) -> None:
    stamp = timestamp(time).replace("Z", "+00:00").encode()
    line = b" ".join([stamp, stream[0], b"F" if whole else b"P", text])
    assert parse_entry(line) == Entry(time, stream[1], text + b"\n" if whole else text)


@given(texts)
def test_no_line_breaks_the_log_reader(line: bytes) -> None:
    parse_entry(line)


def test_log_times_of_other_zones() -> None:
    entry = parse_entry(b"2026-01-02T03:04:05.000000006+02:00 stdout F x")
    assert entry is not None
    assert entry.time == int(datetime(2026, 1, 2, 1, 4, 5, tzinfo=UTC).timestamp()) * 10**9 + 6


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=5)), max_size=8), st.integers(1, 40))
def test_blocks_may_be_cut_anywhere(entries: list[tuple[bool, bytes]], size: int) -> None:
    texts = [(whole, text.replace(b"\n", b"")) for whole, text in entries]
    stamp = b"2026-01-02T03:04:05.000000000+00:00 stdout "
    log = b"".join(stamp + (b"F " if whole else b"P ") + text + b"\n" for whole, text in texts)
    reader = _Reader(LogQuery())
    out = [data for at in range(0, len(log), size) for _, data in reader.feed(log[at : at + size])]
    assert b"".join(out) == b"".join(text + (b"\n" if whole else b"") for whole, text in texts)


def test_a_time_stands_only_before_whole_lines() -> None:
    stamp = b"2026-01-02T03:04:05.000000000+00:00 stdout "
    reader = _Reader(LogQuery(timestamps=True))
    out = b"".join(data for _, data in reader.feed(stamp + b"P a\n" + stamp + b"F b\n" + stamp + b"F c\n"))
    assert out == b"2026-01-02T03:04:05.000000000Z ab\n2026-01-02T03:04:05.000000000Z c\n"


def test_ps_output_is_reduced_to_the_containers_processes() -> None:
    output = "UID  PID CMD\nroot 1 init\nroot 22 sh -c 'a b'\nroot 23 sleep\n"
    assert top.parse(output, {22, 99}) == {
        "Titles": ["UID", "PID", "CMD"],
        "Processes": [["root", "22", "sh -c 'a b'"]],
    }
