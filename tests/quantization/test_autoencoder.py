"""The autoencoder's halves: the graphs are the autoencoder, and quantized ones nearly so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn

from compress.errors import UserError
from compress.quantization.aimet import Simulation
from compress.quantization.autoencoder import (
    DECODER,
    ENCODER,
    OUTPUT_OF,
    HostAutoencoder,
    NamedTensors,
    half_graph,
    latent_input,
    picture_input,
)
from compress.quantization.htp import HtpTarget, session
from compress.quantization.htp_context import compile_context
from compress.quantization.onnx_writer import write_onnx
from compress.quantization.parity import sqnr_db
from compress.quantization.residency import read_residency
from compress.quantization.rules import load_rules
from compress.quantization.runtime import SessionRunner, cpu_session

LATENT = (4, 8, 8)


@pytest.fixture(scope="module")
def vae() -> AutoencoderTiny:
    torch.manual_seed(0)
    blocks = (16, 16, 16, 16)
    return AutoencoderTiny(
        encoder_block_out_channels=blocks,
        decoder_block_out_channels=blocks,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
        latent_channels=4,
    ).eval()


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


def quantized(vae: AutoencoderTiny, half: str, inputs: NamedTensors) -> Simulation:
    simulation = Simulation(half_graph(vae, half, LATENT), load_rules(75))
    simulation.calibrate(inputs, headroom_ratio=1.1)
    return simulation


@torch.no_grad()
def test_host_and_graphs_together_are_the_autoencoder(vae: AutoencoderTiny, pictures: Tensor) -> None:
    encoder, decoder = half_graph(vae, ENCODER, LATENT), half_graph(vae, DECODER, LATENT)
    ours = HostAutoencoder(vae.config, lambda x: encoder(*x.tensors()), lambda x: decoder(*x.tensors()))
    latents = vae.encode(pictures).latents
    assert latents.abs().max() > 0.05
    torch.testing.assert_close(ours.encode(pictures).latents, latents, atol=1e-5, rtol=0)
    for scale in (1.0, 40.0):  # far out, where the bound on latents bites
        expected = vae.decode(scale * latents).sample
        torch.testing.assert_close(ours.decode(scale * latents).sample, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@torch.no_grad()
def test_the_quantized_file_agrees_with_its_simulation(vae: AutoencoderTiny, pictures: Tensor, tmp_path: Path) -> None:
    latents = vae.encode(pictures).latents
    for half, inputs in ((ENCODER, picture_input(pictures)), (DECODER, latent_input(latents))):
        simulation = quantized(vae, half, inputs)
        simulated = simulation(inputs)
        assert sqnr_db(simulation.float_graph(*inputs.tensors()), simulated) > 25
        write_onnx(simulation.float_graph, simulation.encodings(), tmp_path / "half.onnx", output=OUTPUT_OF[half])
        made = SessionRunner(cpu_session(tmp_path / "half.onnx"))(inputs)
        assert sqnr_db(simulated, made) >= 65


@pytest.mark.slow
@torch.no_grad()
def test_both_halves_compile_without_a_float_operator(vae: AutoencoderTiny, pictures: Tensor, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    latents = vae.encode(pictures).latents
    for half, inputs in ((ENCODER, picture_input(pictures)), (DECODER, latent_input(latents))):
        simulation = quantized(vae, half, inputs)
        write_onnx(simulation.float_graph, simulation.encodings(), tmp_path / "half.onnx", output=OUTPUT_OF[half])
        compiled = compile_context(tmp_path / "half.onnx", tmp_path, HtpTarget(), name=half)
        assert compiled.binary.name.startswith(f"{half}_sm8650_")
        residency = read_residency(compiled.graph_json)
        assert residency.float_ops == residency.unrequested_converts == ()
        emulated = SessionRunner(session(compiled.wrapper, HtpTarget()))(inputs[:1])
        assert sqnr_db(simulation(inputs[:1]), emulated) >= 55


def test_another_autoencoder_is_refused() -> None:
    with pytest.raises(UserError, match="the autoencoder is a Linear"):
        half_graph(nn.Linear(2, 2), ENCODER, LATENT)
