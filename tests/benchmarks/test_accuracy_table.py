"""The accuracy table of the sketch's README is what its script makes."""

from __future__ import annotations

import pytest

from . import bench_sketch_accuracy as bench


def rows() -> list[list[str]]:
    """Return the cells of the table, the header first."""
    table = bench.README.read_text(encoding="utf-8").split(bench.BEGIN)[1].split(bench.END)[0]
    header, _, *lines = (line.strip("|").split("|") for line in table.strip().splitlines())
    return [[cell.strip() for cell in line] for line in (header, *lines)]


def test_the_table_has_the_columns_that_the_script_makes_and_the_peers_that_matter() -> None:
    header, *lines = rows()

    assert header == list(bench.COLUMNS)
    assert {len(line) for line in lines} == {len(header)}
    for peer in ("tdigest", "crick", "fastdigest", "pytdigest", "datasketches KLL"):
        assert any(name.startswith(peer) for name in header)


def test_the_table_has_the_rows_and_our_errors_that_the_script_makes() -> None:
    made = [[name, *bench.own_cells(name, values)] for name, values in bench.distributions().items()]

    assert [line[:3] for line in rows()[1:]] == made


@pytest.mark.parametrize("name", ["constant", "sorted"])
def test_the_errors_of_the_tdigest_package_are_those_that_the_script_makes(name: str) -> None:
    column, (peer, step) = next((name, peer) for name, peer in bench.PEERS.items() if "tdigest," in name)
    header, *lines = rows()
    values = bench.distributions()[name][::step]

    cells = next(line for line in lines if line[0] == name)
    assert cells[header.index(column)] == bench.peer_cell(peer, values)
