"""`pocketdiff generate CKPT "a red circle"`: pictures from a checkpoint, new ones or edits of a given one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from compress.commands.checkpoint import open_checkpoint, own_stdout
from compress.data.scenes import captions, edits
from compress.errors import UserError
from compress.generate import generate
from students.system import DiffusionSystem, to_pixels, to_tensor


def main(options: argparse.Namespace) -> int:
    """Writes the pictures and prints their paths."""
    if options.n < 1:
        raise UserError.of(f"-n is {options.n}", "command line", "Ask for at least 1 picture.")
    targets = output_paths(Path(options.output), options.n)
    with own_stdout():
        pictures = make(options)
    for path, pixels in zip(targets, pictures, strict=True):
        Image.fromarray(pixels).save(path)
        print(path)
    return 0


def make(options: argparse.Namespace) -> np.ndarray:
    """The pictures asked for, (n, h, w, 3) uint8."""
    system, denoiser = open_checkpoint(Path(options.checkpoint), options.runtime, options.device)
    sources = None
    if options.image is not None:
        if not system.edits:
            remedy = "Use a student's checkpoint, for example runs/scenes/40-joint."
            raise UserError.of("it makes pictures but cannot edit them", options.checkpoint, remedy)
        source_bhwc = read_picture(Path(options.image), system.image_px)[None]
        sources = to_tensor(np.repeat(source_bhwc, options.n, axis=0))
    prompt = tagged(options.prompt, editing=sources is not None)
    if unknown := unknown_words(system, prompt):
        print(f"note: the text encoder does not know {', '.join(unknown)}", file=sys.stderr)
    return to_pixels(generate(system, [prompt] * options.n, sources, denoiser=denoiser, seed=options.seed))


def tagged(prompt: str, editing: bool) -> str:
    """The prompt with its task tag, added where the user left it out."""
    if prompt.startswith((captions.TAG, edits.TAG)):
        return prompt
    return f"{edits.TAG if editing else captions.TAG} {prompt}"


def unknown_words(system: DiffusionSystem, prompt: str) -> list[str]:
    """Words of the prompt that the tokenizer maps to its unknown token."""
    ids = {word: system.tokenizer.convert_tokens_to_ids(word) for word in prompt.split()}
    return [word for word, token in ids.items() if token in (None, system.tokenizer.unk_token_id)]


def output_paths(output: Path, count: int) -> list[Path]:
    """One path a picture: the given one, or numbered ones beside it. UserError where they cannot be written."""
    if not output.parent.is_dir():
        raise UserError.of("there is no such folder", str(output.parent), "Create it, or give another path with -o.")
    if output.suffix.lower() not in Image.registered_extensions():
        remedy = "Give a path that ends in .png, .jpg or another picture format."
        raise UserError.of(f"{output.suffix!r} is no kind of picture", f"-o {output}", remedy)
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{index + 1}") for index in range(count)]


def read_picture(path: Path, side_px: int) -> np.ndarray:
    """An RGB picture (h, w, 3) uint8 of side_px x side_px; UserError if it is missing, damaged or of another size."""
    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise UserError.of("there is no such file", f"--image {path}", "Give the path of a picture.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        remedy = "Give a whole PNG or JPEG file."
        raise UserError.of(f"the picture cannot be read ({error})", f"--image {path}", remedy) from None
    height, width = pixels.shape[:2]
    if (height, width) != (side_px, side_px):
        remedy = f"Scale or cut it to {side_px} x {side_px} pixels, the size this checkpoint was trained on."
        raise UserError.of(f"the picture is {width} x {height} pixels", f"--image {path}", remedy)
    return pixels
