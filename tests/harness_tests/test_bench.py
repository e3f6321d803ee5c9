"""The benchmarks measure what they say: small sizes, the real parts."""

from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import clouds, report, senders
from bench.clouds import Sinks
from bench.measure import Cost, Spread, run
from bench.sink import SOURCE
from bench.transfers import Table
from harness import images


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return clouds.image(tmp_path / "disk.qcow2", 8 * images.MIB)


@pytest.mark.parametrize("tls", [False, True])
def test_the_sink_takes_images_from_curl_and_from_the_engine(tmp_path: Path, file: Path, tls: bool) -> None:
    sinks = Sinks(tmp_path / "sinks", tls=tls, served=file)
    try:
        for send in (senders.curl, senders.engine, senders.engine_unhashed):
            cost = send(sinks, sinks.names, file)
            assert 0 < cost.wall < 60
            assert cost.cpu > 0
            assert cost.peak > images.MIB
    finally:
        sinks.close()


def test_the_whole_programs_upload_to_the_sink_and_copy_from_it(tmp_path: Path, file: Path) -> None:
    sinks = Sinks(tmp_path / "sinks", 2, served=file)
    try:
        for source in ("", f"sink2:{SOURCE}"):
            cost = senders.Whole(tmp_path / "whole", source=source)(sinks, ["sink1"], file)
            assert cost.peak > images.MIB
    finally:
        sinks.close()


def test_a_sink_that_tells_another_digest_is_noticed(tmp_path: Path, file: Path) -> None:
    """The figures of the whole programs include the verification."""
    other = clouds.image(tmp_path / "other.qcow2", images.MIB)
    sinks = Sinks(tmp_path / "sinks", served=other)
    try:
        with pytest.raises(AssertionError):
            senders.Whole(tmp_path / "whole", patience=12)(sinks, ["sink1"], file)
    finally:
        sinks.close()


def test_a_rate_is_kept(tmp_path: Path, file: Path) -> None:
    sinks = Sinks(tmp_path / "sinks", rate=8e6)
    try:
        seconds = file.stat().st_size / 8e6
        assert seconds * 0.95 < senders.curl(sinks, sinks.names, file).wall < seconds * 3 + 5
    finally:
        sinks.close()


def test_a_command_that_fails_is_no_measurement() -> None:
    with pytest.raises(AssertionError, match="ended with 3"):
        run(["sh", "-c", "exit 3"])


def test_cpu_time_and_memory_of_children_count() -> None:
    burn = "end = time.process_time() + 0.5\nwhile time.process_time() < end: pass"
    grow = f"import time; room = bytearray(60 << 20); {burn}"
    cost = run(["sh", "-c", f"python3 -c '{grow}'; true"])
    assert 0.4 < cost.cpu < 5
    assert cost.peak > 60 * images.MIB


def test_tables_replace_only_what_is_between_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- sink: begin -->\nold\n<!-- sink: end -->\nafter\n")
    costs = {"curl": [Cost(1.0, 0.5, images.MIB)] * 3, "engine": [Cost(2.0, 0.25, images.MIB)] * 3}
    table = Table("T", "W", "curl", images.MIB, costs, {})
    report.put(page, "sink", report.transfer(table))
    text = page.read_text()
    assert text.startswith("before\n<!-- sink: begin -->\n### T")
    assert text.endswith("<!-- sink: end -->\nafter\n")
    assert "| engine | 2.00 (2.00 to 2.00) | 2.00 (2.00 to 2.00) | 0.25" in text
    with pytest.raises(ValueError, match="no markers for glance"):
        report.put(page, "glance", "new")


def test_the_page_has_a_place_for_every_part() -> None:
    text = bench.PAGE.read_text()
    for part in [*bench.TRANSFERS, *bench.QUEUES]:
        assert f"<!-- {part}: begin -->" in text, part


def test_medians() -> None:
    assert Spread.of([3.0, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
