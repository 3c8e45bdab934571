"""The text encoder of a bundle: float32 ONNX on the host's CPU.

It is not quantized and not compiled for the HTP: it runs once a picture, where the denoiser runs several times, and an
error of its would enter every step. Shape suffixes: b batch, t text tokens, d width.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig

from compress.errors import UserError
from compress.quantization.parity import sqnr_db
from compress.quantization.runtime import cpu_session

FOLDER, MODEL = "text_encoder", "model.onnx"
INPUT, TOKENS, POOLED = "input_ids", "tokens", "pooled"
LEAST_SQNR_DB = 80.0  # of float32 against float32
PROTOBUF_LIMIT_BYTES = 1_900_000_000  # an ONNX file beyond 2 GB keeps its weights beside it


class _Outputs(nn.Module):
    """Token ids (1, t) to the two tensors that a `Condition` is made of."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        output = self.encoder(input_ids=input_ids)
        return output.last_hidden_state, output.pooler_output


def write_text_encoder(encoder: Any, config: Path, folder: Path, ids_bt: Tensor) -> float:
    """Writes `folder/model.onnx` for one text at a time, and a copy of its `config` beside it.

    Returns the SQNR in dB of the file's token features against the encoder's on the texts `ids_bt`; UserError where
    they are not the same up to rounding.
    """
    folder.mkdir()
    shutil.copy2(config, folder / "config.json")
    size_bytes = sum(tensor.numel() * tensor.element_size() for tensor in encoder.parameters())
    torch.onnx.export(
        _Outputs(encoder).eval(),
        (ids_bt[:1],),
        folder / MODEL,
        input_names=[INPUT],
        output_names=[TOKENS, POOLED],
        dynamo=True,
        external_data=size_bytes > PROTOBUF_LIMIT_BYTES,
        verbose=False,
    )
    with torch.no_grad():
        expected = encoder(input_ids=ids_bt)
    found = OnnxTextEncoder(folder)(ids_bt)
    agreement_db = min(
        sqnr_db(expected.last_hidden_state, found.last_hidden_state),
        sqnr_db(expected.pooler_output, found.pooler_output),
    )
    if not agreement_db >= LEAST_SQNR_DB:
        raise UserError.of(
            f"the exported text encoder agrees with the original to {agreement_db:.0f} dB only",
            str(folder / MODEL),
            "Use a version of torch and onnxscript that exports it right.",
        )
    return agreement_db


class OnnxTextEncoder(nn.Module):
    """Takes the place of CLIPTextModel: the same call and the same two results, computed by onnxruntime."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.config = CLIPTextConfig.from_pretrained(folder)
        self.session = cpu_session(folder / MODEL)

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        """Token features (b, t, d) and pooled text (b, d) of token ids (b, t)."""
        rows = [self._row(row) for row in input_ids.cpu().split(1)]
        tokens, pooled = (torch.cat(parts) for parts in zip(*rows, strict=True))
        return SimpleNamespace(last_hidden_state=tokens, pooler_output=pooled)

    def _row(self, ids_1t: Tensor) -> Sequence[Tensor]:
        results = self.session.run([TOKENS, POOLED], {INPUT: ids_1t.numpy()})
        return [torch.from_numpy(result.copy()) for result in results]  # copied: it may die with the session
