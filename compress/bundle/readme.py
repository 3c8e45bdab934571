"""The README of a bundle: what is in it, and the calls that a native program makes, with this network's own numbers."""

from __future__ import annotations

from typing import Any

from compress.quantization.autoencoder import BOUND
from students.system import SamplingDefaults


def readme(description: dict[str, Any], sampling: SamplingDefaults) -> str:
    """Markdown from what bundle.json says and how the checkpoint wants to be sampled."""
    target = description["target"]
    parts = [
        f"# Pictures on a Snapdragon {target['soc']} (HTP V{target['htp_arch']})",
        f"Makes {'and edits ' if description['edits'] else ''}pictures of {description['image_px']} x "
        f"{description['image_px']} pixels. Everything needed is in this folder; it can be copied anywhere.",
        _files(description),
        _here(),
        _calls(description, sampling),
        _notes(),
    ]
    return "\n\n".join(parts) + "\n"


def _files(description: dict[str, Any]) -> str:
    rows = ["## Files", "", "| network | runs on | files | inputs | outputs |", "|---|---|---|---|---|"]
    for name, graph in description["graphs"].items():
        files = "<br>".join(f"`{file}` ({role})" for role, file in graph["files"].items())
        rows.append(
            f"| {name} | {graph['runs_on']} | {files} | {_ports(graph['inputs'])} | {_ports(graph['outputs'])} |"
        )
    rows += [
        "",
        "`binary` is the QNN context binary, `wrapper` the ONNX file through which onnxruntime's QNN provider loads it "
        "(both in one folder), `portable` the same quantized network for any other machine; a phone does not need it.",
        "`quantized/io_spec.json` says how the U-Net's inputs are made, `bundle.json` holds this page's numbers for "
        "programs, `sampling.json` and `scheduler/` are those of the checkpoint. `unet/` "
        "(and `vae/`, where its halves are compiled) holds a configuration and no weights.",
    ]
    return "\n".join(rows)


def _ports(ports: dict[str, dict[str, Any]]) -> str:
    return "<br>".join(f"`{name}` {port['dtype']} {port['shape']}" for name, port in ports.items())


def _here() -> str:
    return """## Check and try on a computer

```
sha256sum -c SHA256SUMS
pocketdiff generate . "a red circle" --runtime htp -o circle.png       the emulator of the HTP (Linux on x86-64)
pocketdiff generate . "a red circle" --runtime onnx -o circle.png      the same integers by onnxruntime, anywhere
pocketdiff generate . "make the red circle blue" --image circle.png --runtime htp -o blue.png
```

Programs that run the quantized ONNX files by onnxruntime should set `session.qdq_matmulnbits_accuracy_level` to
`1` (`SessionOptions.add_session_config_entry`): by default some processors round 16-bit activations to 8 bits."""


def _calls(description: dict[str, Any], sampling: SamplingDefaults) -> str:
    """The numbered calls of one picture."""
    graphs, tags = description["graphs"], description["prompt_tags"]
    ids_shape = graphs["text_encoder"]["inputs"]["input_ids"]["shape"]
    side, compiled = description["image_px"], "vae_encoder" in graphs
    encode = "in [0, 1] through `vae_encoder`" if compiled else "in [-1, 1] through the float autoencoder in `vae/`"
    decode = (
        f"`vae_decoder` with `latent` = x / {BOUND:g}. `decoded` is RGB in about [0, 1]: clip, times 255."
        if compiled
        else "the float autoencoder in `vae/`; its output is RGB in about [-1, 1]."
    )
    steps = [
        f"Write the text as `{tags['generate']} TEXT` to generate, `{tags['edit']} TEXT` to edit. Tokenize it with "
        f"`tokenizer/tokenizer.json`, cut to {ids_shape[1]} ids and padded to as many with {description['pad_token']}. "
        "Run `text_encoder/model.onnx` on the CPU: `input_ids` to `tokens`.",
        f"To edit: the picture as RGB of shape (1, 3, {side}, {side}), {encode} gives the source latent. "
        "To generate: the source latent is zeros.",
        f"x = standard normal noise of shape {description['latent_chw']}.",
        f"For every two neighbours (s, t) of the levels {description['levels']}: {_inputs(graphs['unet'])} Run `unet`; "
        f"v = the left half of the columns of `velocity`. {_step(sampling)}",
        f"Give x to {decode}",
    ]
    numbered = "\n".join(f"{number}. {step}" for number, step in enumerate(steps, start=1))
    forwards = len(description["levels"]) - 1
    return f"## Calls of a native program\n\n{numbered}\n\n{_guidance(description, forwards)}"


def _inputs(unet: dict[str, Any]) -> str:
    """How the inputs of one call are made, for those that this network has."""
    meanings = {
        "sample": "`sample` = x and the source latent side by side along the columns.",
        "time_sinusoid": "`time_sinusoid` = sinusoid of 1000 s.",
        "size_sinusoid": "`size_sinusoid` = sinusoids of the picture's width and height in pixels, joined (constant).",
        "tokens": "`tokens` from step 1.",
        "text_bias": "`text_bias` = 0 for a text token and the padding value of `io_spec.json` for padding.",
    }
    return " ".join(meaning for name, meaning in meanings.items() if name in unet["inputs"])


def _step(sampling: SamplingDefaults) -> str:
    if sampling.stochastic:
        return "x0 = x - s v; x = (1 - t) x0 + t e with fresh standard normal noise e (none is needed at t = 0)."
    return "x = x + (t - s) v."


def _guidance(description: dict[str, Any], forwards: int) -> str:
    scales = description["guidance"]
    if set(scales.values()) == {1.0}:
        return f"No guidance: {forwards} forwards of `unet` a picture."
    return (
        f"With guidance v is a sum of forwards, where null is the empty text. Generating (g = {scales['text']:g}): "
        f"v = (1 - g) v(null) + g v(text). Editing (g = {scales['edit_text']:g}, i = {scales['image']:g}): "
        "v = (1 - i) v(null, no source) + (i - g) v(null, source) + g v(text, source)."
    )


def _notes() -> str:
    return """## Notes

- Sinusoids: `quantized/io_spec.json` has the formula with this network's constants. They are made on the host because
  sine and cosine of a thousand do not survive 16-bit grids.
- All inputs and outputs are float32 (ids: integers); the graphs quantize and dequantize at their ends by themselves.
- The text encoder is float32 on the CPU: it runs once a picture, and its error would enter every step.
- With onnxruntime's QNN provider: open each `wrapper` with `backend_path` libQnnHtp.so and
  `session.disable_cpu_ep_fallback` 1. With the QNN API: QnnContext_createFromBinary on each `binary`, the graph's name
  and tensors from QnnSystemContext_getBinaryInfo, QnnGraph_execute. The binary fits the QNN version of the
  onnxruntime-qnn that compiled it, and newer ones of the same format; nothing here has been run on a phone."""
