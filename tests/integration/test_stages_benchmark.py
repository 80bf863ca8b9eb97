from pathlib import Path

import pytest

from benchmarks.stages import main


def test_every_step_of_a_tile_is_booked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the names that the code has now: of the ledger, the object store and the engine."""
    main(f"--tiles 8 --runtime onnxruntime --data {tmp_path / 'none'} --cache {tmp_path}".split())
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    booked = {row[1].strip(): row[2].strip() for row in rows}
    for step in ("ledger.create", "ledger.claim_all", "objects.get", "ledger.end_all"):
        assert booked[step] == "1.00"
    for step in ("decode_picture", "resize_for_measuring", "measure_view", "preprocess_measured"):
        assert booked[step] == "1.00"
    assert booked["model.predict"] == "0.12"
