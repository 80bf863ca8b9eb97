"""What passes a tile on and computes nothing really runs."""

import time
from pathlib import Path

from benchmarks.measure import Load, measure, wait_for_answer
from benchmarks.systems import FLOOR, Place, started
from ops.servers import free_port


def test_the_floor_keeps_each_tile_and_answers_it(tmp_path: Path) -> None:
    """Of its answers none is compared: there is no model. Its image and its answer are on the disk."""
    tile = tmp_path / "tile.jpg"
    tile.write_bytes(b"any bytes will do")
    place = Place(free_port(), tmp_path, tmp_path / "place", free_port(), tmp_path)
    place.folder.mkdir()
    with started(FLOOR, place) as running:
        assert wait_for_answer(FLOOR, running, tile, time.monotonic()) > 0
        measured = measure(FLOOR, running, Load("x", clients=4), [tile], 1.0, [[1.0, 0.0, 0.0]], 1, 224)
    assert measured.is_sound
    assert measured.answered > 0
    assert set(measured.cpu_ms) == {"api", "python", "redis"}, measured.cpu_ms
    images = list((place.folder / "images").iterdir())
    assert len(images) > measured.answered
    assert {image.read_bytes() for image in images} == {tile.read_bytes()}
    log = b"".join(file.read_bytes() for file in (place.folder / "appendonlydir").iterdir())
    assert log.count(b"probabilities") >= measured.answered
