"""Writes a bundle from what stage deploy has made: copies, the exported text encoder, README and checksums."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from compress.artifact import forget_paths
from compress.bundle import text_encoder
from compress.bundle.checksums import write_checksums
from compress.bundle.opening import DESCRIPTION, FORMAT
from compress.bundle.readme import readme
from compress.data.scenes import captions, edits
from compress.generate import levels
from compress.quantization.autoencoder import HALVES
from compress.quantization.halves import has_halves
from compress.quantization.host import IoSpec
from compress.quantization.htp import HtpTarget
from compress.quantization.runtime import QUANTIZED
from compress.stages.parts import copy_parts
from students.system import DiffusionSystem

FOLDER = "bundle"  # in the artefact of stage deploy
IO_SPEC = f"{QUANTIZED}/io_spec.json"
PORTABLE = {"unet": f"{QUANTIZED}/model.onnx"} | {half: f"{QUANTIZED}/{half}.onnx" for half in HALVES}
TEXTS = ("", f"{captions.TAG} a red circle", f"{edits.TAG} remove the red circle")  # the exported encoder is checked on


def write_bundle(artefact: Path, system: DiffusionSystem, target: HtpTarget, out: Path) -> dict[str, float]:
    """Makes the folder `out` from the deployed `artefact`, whose float parts are `system`; returns what it measured.

    Binaries, quantized ONNX files and configurations are copied; the float U-Net is left out, and so is the float
    autoencoder where both its halves are compiled. Raises UserError where the text encoder cannot be exported right.
    """
    out.mkdir()
    graphs = {"unet": compiled_files(artefact, "unet", target)}
    copy_parts(artefact, out, ("tokenizer", "scheduler", "sampling.json"))
    names = ["unet/config.json"]
    if has_halves(artefact):
        graphs |= {half: compiled_files(artefact, half, target) for half in HALVES}
        names.append("vae/config.json")
    else:
        copy_parts(artefact, out, ("vae",))
    for files in graphs.values():
        names += files.values()
    for name in names:
        (out / name).parent.mkdir(exist_ok=True)
        shutil.copy2(artefact / name, out / name)
    IoSpec.load(artefact / IO_SPEC).save(out / IO_SPEC)  # in today's words, whichever version made the artefact
    agreement_db = text_encoder.write_text_encoder(
        system.text_encoder,
        artefact / text_encoder.FOLDER / "config.json",
        out / text_encoder.FOLDER,
        system.tokenize(TEXTS),
    )
    forget_paths(out)  # now, since a file that changes later is a damaged one
    description = describe(out, system, target, graphs)
    (out / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")
    (out / "README.md").write_text(readme(description, system.sampling))
    write_checksums(out)
    size_mb = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    return {"bundle_mb": size_mb, "text_encoder_onnx_vs_torch_sqnr_db": agreement_db}


def compiled_files(artefact: Path, network: str, target: HtpTarget) -> dict[str, str]:
    """The files of one compiled network: the context binary, the ONNX file around it, and the portable QDQ file."""
    (wrapper,) = artefact.glob(f"{network}_{target.soc}_*.onnx")
    return {"binary": wrapper.with_suffix(".bin").name, "wrapper": wrapper.name, "portable": PORTABLE[network]}


def describe(
    out: Path, system: DiffusionSystem, target: HtpTarget, graphs: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """What a program has to know to run the bundle: graphs with inputs and outputs as their files have them."""
    text = {"model": f"{text_encoder.FOLDER}/{text_encoder.MODEL}"}
    guided = system.sampling.guided
    return {
        "format": FORMAT,
        "target": {"soc": target.soc, "soc_model": target.soc_model, "htp_arch": target.arch},
        "image_px": system.image_px,
        "latent_chw": list(system.latent_shape),
        "edits": system.edits,
        "pad_token": system.tokenizer.pad_token,
        "prompt_tags": {"generate": captions.TAG, "edit": edits.TAG},
        "levels": levels(system.sampling),
        "walk": "stochastic" if system.sampling.stochastic else "euler",
        "guidance": {
            "text": system.sampling.guidance_text if guided else 1.0,
            "edit_text": system.sampling.guidance_edit_text if guided else 1.0,
            "image": system.sampling.guidance_image if guided else 1.0,
        },
        "graphs": {
            "text_encoder": {"runs_on": "host CPU, float32", "files": text, **ports(out / text["model"])},
            **{
                name: {"runs_on": f"HTP V{target.arch}, W8A16", "files": files, **ports(out / files["wrapper"])}
                for name, files in graphs.items()
            },
        },
    }


def ports(model: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Inputs and outputs of an ONNX file by name: shape and numpy dtype."""
    import onnx

    graph = onnx.load(model, load_external_data=False).graph

    def described(values: Any) -> dict[str, dict[str, Any]]:
        return {
            value.name: {
                "shape": [dim.dim_value for dim in value.type.tensor_type.shape.dim],
                "dtype": onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
            }
            for value in values
        }

    return {"inputs": described(graph.input), "outputs": described(graph.output)}
