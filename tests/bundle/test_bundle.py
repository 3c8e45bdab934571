"""A bundle of the smallest whole system: it runs wherever it lies, its README tells the truth, and damage is named."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer

from compress import cli
from compress.bundle.checksums import listed, write_checksums
from compress.bundle.opening import DESCRIPTION, open_bundle
from compress.bundle.writing import FOLDER
from compress.commands.checkpoint import open_checkpoint
from compress.config.quantize import DeployConfig, QuantizeConfig
from compress.errors import UserError
from compress.generate import draw_noise, generate
from compress.quantization.runtime import cpu_session
from students.system import SamplingDefaults
from tests.tiny import context, tiny_system

pytestmark = pytest.mark.slow
PROMPT = "[generate] a red circle"
FEW_STEPS = SamplingDefaults(
    steps=2, guidance_text=1.0, guidance_edit_text=1.0, guidance_image=1.0, rungs=(1.0, 0.5), stochastic=True
)


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefact of stage deploy, with its bundle in it."""
    pytest.importorskip("onnxruntime_qnn", reason="the wheel does not exist for this platform")
    from compress.stages import deploy, quantize

    folder = tmp_path_factory.mktemp("deployed")
    tiny_system(sampling=FEW_STEPS).save(folder / "parent")
    first = context(folder / "quantize", parent=folder / "parent")
    quantize.run(QuantizeConfig(generations=3, edits=3), first)
    second = context(folder / "deploy", parent=first.out)
    made = deploy.run(DeployConfig(eval_images=0), second)
    assert made.metrics["text_encoder_onnx_vs_torch_sqnr_db"] > 80
    assert made.metrics["bundle_mb"] == pytest.approx(size_mb(second.out / FOLDER))
    return second.out


def size_mb(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


@pytest.fixture
def bundle(deployed: Path, tmp_path: Path) -> Path:
    """A copy of the bundle alone, somewhere else."""
    return Path(shutil.copytree(deployed / FOLDER, tmp_path / "elsewhere"))


def test_no_float_denoiser_or_autoencoder_is_in_it(bundle: Path) -> None:
    weights = [path for path in bundle.rglob("*") if path.suffix in (".safetensors", ".pt")]
    assert weights == [] and sorted(path.name for path in (bundle / "unet").iterdir()) == ["config.json"]
    files = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert files == {*listed(bundle), "SHA256SUMS"}
    assert len(list(bundle.glob("*.bin"))) == 3


def test_it_makes_and_edits_the_pictures_of_its_artefact(deployed: Path, bundle: Path) -> None:
    """The same integers by the same runtime; only the text encoder is another file, equal up to rounding."""
    source = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    for runtime in ("onnx", "htp"):
        whole, denoiser = open_checkpoint(deployed, runtime, "cpu")
        alone, compiled = open_bundle(bundle, runtime)
        for prompt, sources in ((PROMPT, None), ("[edit] remove the red circle", source)):
            expected = generate(whole, [prompt], sources, denoiser=denoiser, seed=3)
            found = generate(alone, [prompt], sources, denoiser=compiled, seed=3)
            assert expected.std() > 0.01
            assert (found - expected).abs().max() < 0.02


def test_the_command_makes_and_edits(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    assert cli.main(["generate", str(bundle), "a red circle", "--runtime", "htp", "-o", str(first)]) == 0
    assert capsys.readouterr().out.strip() == str(first)
    edit = ["generate", str(bundle), "remove the red circle", "--image", str(first), "--runtime", "onnx"]
    assert cli.main([*edit, "-o", str(second)]) == 0
    pictures = [np.asarray(Image.open(path)) for path in (first, second)]
    assert pictures[0].shape == pictures[1].shape == (64, 64, 3) and (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("name", ["quantized/model.onnx", "tokenizer/tokenizer.json", "*.bin", "bundle.json"])
def test_damage_is_one_message_with_file_and_remedy(
    bundle: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = next(bundle.glob(name))
    for damage in (lambda: path.write_bytes(path.read_bytes()[:-7]), path.unlink):
        damage()
        assert cli.main(["generate", str(bundle), "a red circle", "--runtime", "onnx"]) == 2
        said = capsys.readouterr().err.strip()
        assert said.count("\n") == 0 and said.startswith(f"error: {path}: the file is ")
        assert "Copy the whole bundle again" in said


def test_other_formats_and_runtimes_are_refused(bundle: Path) -> None:
    with pytest.raises(UserError, match=r"no float network for runtime torch.*--runtime htp or onnx"):
        open_checkpoint(bundle, "torch", "cpu")
    described = json.loads((bundle / DESCRIPTION).read_text())
    (bundle / DESCRIPTION).write_text(json.dumps(described | {"format": 99}))
    write_checksums(bundle)
    with pytest.raises(UserError, match="the bundle has format 99"):
        open_bundle(bundle, "onnx")


def test_what_the_readme_says_makes_the_picture(bundle: Path) -> None:
    """The calls of a native program, from the bundle's files with numpy, tokenizers and onnxruntime alone."""
    system, denoiser = open_bundle(bundle, "onnx")
    expected = generate(system, [PROMPT], denoiser=denoiser, seed=5)[0]
    noise = draw_noise(system.latent_shape, 5, [0]).numpy()
    found = native_picture(bundle, PROMPT, noise, torch.Generator().manual_seed(5))
    assert np.abs((2 * found - 1) - expected.numpy()).max() < 0.02
    words = (bundle / "README.md").read_text()
    assert "1.0, 0.5, 0.0" in words and "x0 = x - s v" in words and "No guidance: 2 forwards" in words


def native_picture(bundle: Path, text: str, noise: np.ndarray, generator: torch.Generator) -> np.ndarray:
    """The README's numbered steps; the picture in about [0, 1]."""
    described = json.loads((bundle / DESCRIPTION).read_text())
    host = json.loads((bundle / "quantized" / "io_spec.json").read_text())["host"]
    graphs = described["graphs"]

    def run(name: str, **inputs: np.ndarray) -> np.ndarray:
        for port, wanted in graphs[name]["inputs"].items():
            assert list(inputs[port].shape) == wanted["shape"] and inputs[port].dtype == wanted["dtype"]
        files = graphs[name]["files"]
        session = cpu_session(bundle / files.get("portable", files.get("model")))
        return session.run(list(graphs[name]["outputs"])[:1], inputs)[0].copy()

    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer" / "tokenizer.json"))
    length = graphs["text_encoder"]["inputs"]["input_ids"]["shape"][1]
    pad = described["pad_token"]
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    tokenizer.enable_truncation(length)
    ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
    tokens = run("text_encoder", input_ids=ids)
    x, source = noise, np.zeros((1, *described["latent_chw"]), np.float32)
    side = float(described["image_px"])
    size = sinusoid(host["sinusoid"], [side, side], host["size_sinusoid"]["width"])
    for level, following in pairwise(described["levels"]):
        time = sinusoid(host["sinusoid"], [1000 * level], host["time_sinusoid"]["width"])
        pair = np.concatenate([x, source], axis=3)
        velocity = run("unet", sample=pair, time_sinusoid=time, size_sinusoid=size, tokens=tokens)
        x0 = x - level * velocity[..., : x.shape[3]]
        fresh = torch.randn(x.shape, generator=generator).numpy() if following > 0 else 0.0
        x = ((1 - following) * x0 + following * fresh).astype(np.float32)
    return run("vae_decoder", latent=x / 3)[0]


def sinusoid(recipe: dict[str, Any], values: list[float], width: int) -> np.ndarray:
    """As the formula in io_spec.json says, all values joined, (1, n * width)."""
    k = np.arange(width // 2)
    frequency = recipe["max_period"] ** (-k / (width / 2 - recipe["freq_shift"]))
    waves = {"cos": np.cos, "sin": np.sin}
    rows = [np.concatenate([waves[name](value * frequency) for name in recipe["order"]]) for value in values]
    return np.concatenate(rows)[None].astype(np.float32)


def test_a_float_autoencoder_comes_along_where_it_is_not_quantized(bundle: Path) -> None:
    from compress.bundle.opening import bundled_autoencoder

    assert next(bundled_autoencoder(bundle).parameters()).is_meta
    vae = tiny_system(seed=1).vae
    shutil.rmtree(bundle / "vae")
    vae.save_pretrained(bundle / "vae")
    for half in bundle.glob("quantized/vae_*.onnx"):
        half.unlink()
    loaded = bundled_autoencoder(bundle).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in vae.state_dict().items())
