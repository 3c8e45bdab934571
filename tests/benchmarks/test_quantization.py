"""`pocketdiff bench quantize` on a small network: the same steps as at full size."""

from __future__ import annotations

import json

import pytest

from compress import cli
from compress.benchmarks.quantization import TO_BINARY


@pytest.mark.slow
def test_a_small_network_from_float_to_its_binary(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    assert cli.main(["bench", "quantize", "--scale", "small", "--px", "64", "--emulate", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["nodes_on_htp_percent"] == 100.0
    assert found["float_ops"] == found["unrequested_converts"] == 0
    assert found["sqnr_emulator_simulation_db"] >= 55 and found["sqnr_simulation_float_db"] >= 25
    assert set(TO_BINARY) <= found["steps"].keys()
    spent_s = sum(found["steps"][name]["wall_s"] for name in TO_BINARY)
    assert found["to_binary"]["wall_s"] == pytest.approx(spent_s, abs=0.05)
    assert found["wall_s"] > found["to_binary"]["wall_s"] and found["peak_rss_gb"] > 0.1


@pytest.mark.slow
def test_two_sizes_share_one_binary(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    assert cli.main(["bench", "quantize", "--scale", "small", "--px", "32", "64", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["px"] == [32, 64] and found["nodes_on_htp_percent"] == 100.0
    assert found["float_ops"] == found["unrequested_converts"] == 0
    assert 8 < found["binary_mb"] < 12  # 8.6 M weights once; each by itself takes about 9.5 MB
    assert {f"{name} {px} px" for name in TO_BINARY[1:] for px in (32, 64)} <= found["steps"].keys()


def test_several_sizes_cannot_be_emulated(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "quantize", "--px", "512", "1024", "--emulate"]) == 2
    assert "Give one size with --emulate" in capsys.readouterr().err


def test_a_size_that_the_network_cannot_halve_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "quantize", "--px", "100"]) == 2
    assert "px is 100" in capsys.readouterr().err
