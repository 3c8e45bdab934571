"""The two stages on the smallest whole system, and their configurations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compress.config.quantize import DeployConfig, QuantizeConfig
from compress.errors import UserError
from compress.quantization.autoencoder import HostAutoencoder
from compress.quantization.halves import with_runtime
from compress.quantization.runtime import open_runtime
from compress.stages.deploy import deployed_scores
from reports.cards import read_verdicts
from students.system import DiffusionSystem, SamplingDefaults
from tests.tiny import context, tiny_system

FEW_STEPS = SamplingDefaults(
    steps=2, guidance_text=1.0, guidance_edit_text=1.0, guidance_image=1.0, rungs=(1.0, 0.5), stochastic=True
)


def test_sound_by_default() -> None:
    assert QuantizeConfig().problems() == [] == DeployConfig().problems()


@pytest.mark.parametrize(
    "config, words",
    [
        (QuantizeConfig(generations=0, edits=0), "Record at least 1"),
        (QuantizeConfig(generations=4, edits=1), "Keep fewer than 1"),
        (QuantizeConfig(headroom_ratio=0.5), "Use 1 (none) to 4"),
        (QuantizeConfig(htp_arch=68), "Use one of 73, 75, 79, 81."),
        (DeployConfig(optimization_mode=1), "Mode 1 computes wrong results"),
        (DeployConfig(soc_model=36), "Use one of 43, 57, 69, 87."),
        (DeployConfig(eval_images=3), "Use 0 (none) or at least 14."),
    ],
)
def test_mistakes_are_named_with_a_remedy(config: QuantizeConfig | DeployConfig, words: str) -> None:
    (problem,) = config.problems()
    assert words in problem.remedy


def test_the_deployed_score_is_the_parents_and_the_paired_difference(tmp_path: Path) -> None:
    card = {"name": "quantize", "stage": "quantize", "key": "k", "metrics": {"overall": 0.90, "overall_low": 0.88}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    found = deployed_scores(tmp_path, {"htp_overall": 0.70, "aimet_overall": 0.71, "htp_t2i": 0.5, "aimet_t2i": 0.5})
    assert found == pytest.approx({"overall": 0.89, "overall_low": 0.87, "t2i": 0.5})
    assert deployed_scores(tmp_path, {}) == pytest.approx({"overall": 0.90, "overall_low": 0.88})
    assert deployed_scores(tmp_path / "unscored", {}) == {}


def test_deploy_without_quantize_is_refused(tmp_path: Path) -> None:
    from compress.stages import deploy

    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    with pytest.raises(UserError, match="Stage deploy follows stage quantize"):
        deploy.run(DeployConfig(), context(tmp_path / "deploy", parent=tmp_path))


def test_a_network_that_only_generates_is_refused(tmp_path: Path) -> None:
    from compress.stages import quantize

    with pytest.raises(UserError, match="only generates"):
        quantize.run(QuantizeConfig(), context(tmp_path, parent=Path("teachers/weights/scenes").resolve()))


@pytest.mark.slow
def test_quantized_deployed_and_opened(tmp_path: Path) -> None:
    """Parent in, artefact out, twice; each loads alone under every runtime it is for."""
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    from compress.stages import deploy, quantize

    parent = tmp_path / "parent"
    tiny_system(sampling=FEW_STEPS).save(parent)
    first = context(tmp_path / "quantize", parent=parent)
    config = QuantizeConfig(generations=3, edits=3, sensitivity=True, wide_weights_mb=0.02, qairt=True)
    made = quantize.run(config, first)
    assert made.metrics["aimet_vs_float_sqnr_db"] > 25 and made.metrics["onnx_vs_aimet_sqnr_db"] > 55
    assert made.metrics["calibration_calls_count"] == (3 + 3 - 2) * 2
    assert len(made.curves["aimet_vs_float_sqnr_db_by_step"]) == 2
    assert sorted(file.name for file in (first.out / "quantized").iterdir()) == [
        "calibration.safetensors",
        "encodings.json",
        "io_spec.json",
        "model.onnx",
        "qairt",
        "rounded.safetensors",
        "sensitivity.json",
        "vae_decoder.encodings.json",
        "vae_decoder.onnx",
        "vae_encoder.encodings.json",
        "vae_encoder.onnx",
    ]
    assert sorted(file.name for file in (first.out / "quantized" / "qairt").iterdir()) == [
        f"{network}{ending}"
        for network in ("unet", "vae_decoder", "vae_encoder")
        for ending in (".onnx", "_encodings_1.0.0.json", "_encodings_2.0.0.json")
    ]
    assert made.metrics["wide_weights_count"] > 0 and made.metrics["weight_noise_share"] > 0
    assert made.metrics["vae_decoder_aimet_vs_float_sqnr_db"] > 25 < made.metrics["vae_encoder_aimet_vs_float_sqnr_db"]

    second = context(tmp_path / "deploy", parent=first.out)
    found = deploy.run(DeployConfig(eval_images=14), second).metrics
    forms = {verdicts.form: verdicts.pictures for verdicts in read_verdicts(second.out)}
    assert forms == {"htp": 7, "aimet": 7, "float": 7} and found["emulated_pictures_count"] == 14
    assert found["htp_vs_aimet_sqnr_db"] > 55
    assert found["float_ops_count"] == found["unrequested_converts_count"] == 0
    assert found["nodes_on_htp_percent"] == 100
    assert found["vae_decoder_htp_vs_aimet_sqnr_db"] > 55 < found["vae_encoder_htp_vs_aimet_sqnr_db"]
    whole = with_runtime(DiffusionSystem.load(second.out), second.out, "htp")
    assert isinstance(whole.vae, HostAutoencoder)
    unet = DiffusionSystem.load(second.out).unet
    for runtime in ("torch", "simulation", "onnx", "htp"):
        open_runtime(second.out, runtime, unet)
    with pytest.raises(UserError, match="no compiled context binary"):
        open_runtime(first.out, "htp", unet)
    with pytest.raises(UserError, match=r"no quantized/io_spec\.json"):
        open_runtime(parent, "onnx", unet)


@pytest.mark.slow
def test_nncf_stands_beside_aimet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command on a quantize artefact: files, and rows with the columns of its card."""
    from compress import cli
    from compress.stages import quantize

    parent = tmp_path / "parent"
    tiny_system(sampling=FEW_STEPS).save(parent)
    stage = context(tmp_path / "quantize", parent=parent)
    made = quantize.run(QuantizeConfig(generations=3, edits=3, autoencoder=False, rounding="nearest"), stage)
    out = tmp_path / "nncf"
    asked = ["nncf", str(stage.out), "--forms", "int8", "--images", "0", "--out", str(out), "--json"]
    assert cli.main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((out / "nncf.json").read_text())
    rows = {row["form"]: row for row in found["rows"]}
    assert list(rows) == ["float", "aimet_w8a16", "nncf_int8"]
    assert rows["aimet_w8a16"]["size_mb"] == pytest.approx(made.metrics["size_mb"])
    assert rows["aimet_w8a16"]["vs_float_sqnr_db"] == pytest.approx(made.metrics["aimet_vs_float_sqnr_db"], abs=0.5)
    assert rows["float"]["vs_float_sqnr_db"] > 90 > rows["nncf_int8"]["vs_float_sqnr_db"] > 25
    assert rows["nncf_int8"]["size_mb"] == (out / "int8.onnx").stat().st_size / 1e6 < rows["float"]["size_mb"] / 2
    assert len(rows["nncf_int8"]["vs_float_sqnr_db_by_step"]) == 2
    assert found["calibration_calls_count"] == made.metrics["calibration_calls_count"]


@pytest.mark.slow
def test_a_binary_that_strays_from_its_simulation_is_refused(tmp_path: Path) -> None:
    from compress.stages.deploy import check_parity

    with pytest.raises(UserError, match=r"12\.0 dB only"):
        check_parity(DeployConfig(), {"htp_vs_aimet_sqnr_db": 12.0}, lambda least_db: f"first behind x at {least_db:g}")
