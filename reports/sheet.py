"""The picture grid as one PNG, for a README or a paper: a row a prompt, a column a stage, a mark for each verdict."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from reports.grid import Grid, Row

CELL_PX, GAP_PX, PROMPT_PX, HEADER_PX = 96, 6, 250, 26
MARK_PX = 3
PAPER, INK, MUTED = (255, 255, 255), (30, 30, 30), (120, 120, 120)
UNREADABLE = (OSError, SyntaxError)  # what Pillow raises for a damaged picture
ACCEPTED, REFUSED = (30, 140, 60), (200, 40, 40)


def draw_sheet(grid: Grid) -> Image.Image:
    """Prompts on the left, for an edit with its source; pictures the verifier accepts are framed green, others red.

    A picture that cannot be read is left grey.
    """
    pitch = CELL_PX + GAP_PX
    columns = len(grid.columns) + 1  # the sources come first
    sheet = Image.new("RGB", (PROMPT_PX + columns * pitch, HEADER_PX + len(grid.rows) * pitch), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for index, name in enumerate(["source", *(record.label for record in grid.columns)]):
        draw.text((PROMPT_PX + index * pitch, 6), name, fill=INK, font=font)
    for index, row in enumerate(grid.rows):
        y = HEADER_PX + index * pitch
        draw.text((8, y + 4), row.task.replace("_", " "), fill=MUTED, font=font)
        draw.multiline_text((8, y + 24), _wrapped(row.prompt), fill=INK, font=font, spacing=3)
        _draw_row(sheet, draw, row, y, pitch)
    return sheet


def _draw_row(sheet: Image.Image, draw: ImageDraw.ImageDraw, row: Row, y: int, pitch: int) -> None:
    if row.source:
        sheet.paste(_picture(row.source, CELL_PX), (PROMPT_PX, y))
    for column, cell in enumerate(row.cells, start=1):
        if cell is not None:
            x = PROMPT_PX + column * pitch
            draw.rectangle((x, y, x + CELL_PX - 1, y + CELL_PX - 1), fill=ACCEPTED if cell.ok else REFUSED)
            sheet.paste(_picture(cell.file, CELL_PX - 2 * MARK_PX), (x + MARK_PX, y + MARK_PX))


def _picture(path: Path, side_px: int) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB").resize((side_px, side_px), Image.Resampling.LANCZOS)
    except UNREADABLE:
        return Image.new("RGB", (side_px, side_px), MUTED)


def _wrapped(text: str, width: int = 34, lines: int = 4) -> str:
    found = [""]
    for word in text.split():
        if found[-1] and len(found[-1]) + len(word) + 1 > width:
            found.append("")
        found[-1] = f"{found[-1]} {word}".strip()
    return "\n".join(found[:lines])
