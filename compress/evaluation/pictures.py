"""Pictures to look at: samples with their verdicts, in the files that reports read, and contact sheets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from compress.evaluation.scenes_bench import Judged

SCALE = 3
CAPTION_PX = 30
GREEN, RED, INK, PAPER = (30, 140, 60), (200, 40, 40), (30, 30, 30), (255, 255, 255)


def save_samples(folder: Path, judged: Sequence[Judged]) -> None:
    """Writes `folder/samples/`: one PNG a picture (and a source), and `samples.json` with prompts and verdicts."""
    target = folder / "samples"
    target.mkdir(parents=True, exist_ok=True)
    rows = []
    for index, one in enumerate(judged):
        name, source = f"{index:03d}.png", None
        Image.fromarray(one.picture).save(target / name)
        if one.source is not None:
            source = f"{index:03d}_src.png"
            Image.fromarray(one.source).save(target / source)
        rows.append(
            {
                "prompt": one.text,
                "task": one.task,
                "kind": "t2i" if source is None else "edit",
                "file": name,
                "source": source,
                "ok": one.verdict.ok,
                "reason": one.verdict.reason,
            }
        )
    (target / "samples.json").write_text(json.dumps(rows, indent=1) + "\n")


def contact_sheet(judged: Sequence[Judged], columns: int = 6) -> Image.Image:
    """Pictures (sources to their left) with prompt and verdict under each; green for accepted, red for the reason."""
    wide = any(one.source is not None for one in judged)
    side = judged[0].picture.shape[0] * SCALE
    width, height = side * (2 if wide else 1) + 8, side + CAPTION_PX + 8
    rows = -(-len(judged) // columns)
    sheet = Image.new("RGB", (width * columns, height * rows), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, one in enumerate(judged):
        x, y = index % columns * width + 4, index // columns * height + 4
        panels = [one.picture] if not wide else [one.source if one.source is not None else one.picture, one.picture]
        for panel in panels:
            sheet.paste(_enlarged(panel), (x, y))
            x += side
        x -= side * len(panels)
        draw.text((x, y + side + 1), one.text[: width // 6], fill=INK)
        verdict = "accepted" if one.verdict.ok else one.verdict.reason
        draw.text((x, y + side + 14), verdict[: width // 6], fill=GREEN if one.verdict.ok else RED)
    return sheet


def _enlarged(picture: np.ndarray) -> Image.Image:
    side = picture.shape[0] * SCALE
    return Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
