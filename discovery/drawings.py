"""Pictures that are drawn for a dataset version: its lineage, and a sheet of its members; each one PNG, so that one file is sent."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

# MLflow shows pictures at their own size, in a column that is 830 px wide on a screen of 1,400 px, so no picture is wider
BOX_W, BOX_H, GAP_X, GAP_Y, MARGIN = 192, 64, 12, 30, 8
PAPER, INK, FAINT, LINE = "#ffffff", "#1f2328", "#59636e", "#8c959f"
FILL = {"input": "#ddf4ff", "step": "#f6f8fa", "result": "#dafbe1", "warning": "#fff8c5"}
SPLIT_COLOURS = ("#0969da", "#bf8700", "#8250df", "#1a7f37", "#cf222e", "#57606a")
CELL_PX, SHEET_COLUMNS, STRIP_PX = 111, 7, 5


@dataclass(frozen=True, slots=True)
class Box:
    """A record in a lineage picture: what it is, its id, and a line of counts."""

    title: str
    record_id: str
    line: str
    kind: str = "step"  # of FILL


@dataclass(frozen=True, slots=True)
class Member:
    """A member on a sheet: its thumbnail (any format that Pillow reads; empty when it was lost) and its split."""

    picture: bytes
    split: str


def lineage_png(rows: Sequence[Sequence[Box]], edges: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> bytes:
    """Boxes in rows, from the sources at the top to the version at the bottom. edges: (row, place) of a box, and of one made from it."""
    widest = max((len(row) for row in rows), default=1)
    width = 2 * MARGIN + widest * BOX_W + (widest - 1) * GAP_X
    height = 2 * MARGIN + len(rows) * BOX_H + (len(rows) - 1) * GAP_Y
    image = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(image)
    places = [[_place(width, len(row), number, place) for place in range(len(row))] for number, row in enumerate(rows)]
    for (row, place), (lower, below) in edges:
        (x0, y0), (x1, y1) = places[row][place], places[lower][below]
        _arrow(draw, x0 + BOX_W / 2, y0 + BOX_H, x1 + BOX_W / 2, y1)
    for boxes, corners in zip(rows, places, strict=True):
        for box, (x, y) in zip(boxes, corners, strict=True):
            _draw_box(draw, box, x, y)
    return _png(image)


def sheet_png(members: Sequence[Member], splits: Sequence[str]) -> bytes:
    """A grid of pictures, each with a strip in the colour of its split, and the colours named below."""
    rows = max(1, -(-len(members) // SHEET_COLUMNS))
    step = CELL_PX + 6
    legend = 26
    image = Image.new("RGB", (SHEET_COLUMNS * step + 6, rows * (step + STRIP_PX) + legend), PAPER)
    draw = ImageDraw.Draw(image)
    colours = {split: SPLIT_COLOURS[number % len(SPLIT_COLOURS)] for number, split in enumerate(splits)}
    for number, member in enumerate(members):
        x, y = 6 + number % SHEET_COLUMNS * step, 6 + number // SHEET_COLUMNS * (step + STRIP_PX)
        draw.rectangle((x, y, x + CELL_PX - 1, y + CELL_PX - 1), fill="#f6f8fa")
        thumbnail = _opened(member.picture)
        if thumbnail is None:
            draw.text((x + 8, y + CELL_PX // 2 - 6), "no thumbnail", fill=FAINT, font=ImageFont.load_default(11))
        else:
            image.paste(thumbnail, (x + (CELL_PX - thumbnail.width) // 2, y + (CELL_PX - thumbnail.height) // 2))
        draw.rectangle((x, y + CELL_PX, x + CELL_PX - 1, y + CELL_PX + STRIP_PX - 2), fill=colours.get(member.split, LINE))
    x, y = 6, image.height - legend + 6
    for split, colour in colours.items():
        draw.rectangle((x, y + 2, x + 12, y + 12), fill=colour)
        draw.text((x + 18, y), split, fill=INK, font=ImageFont.load_default(12))
        x += 18 + int(draw.textlength(split, font=ImageFont.load_default(12))) + 22
    return _png(image)


def _place(width: int, count: int, row: int, place: int) -> tuple[float, float]:
    used = count * BOX_W + (count - 1) * GAP_X
    return (width - used) / 2 + place * (BOX_W + GAP_X), MARGIN + row * (BOX_H + GAP_Y)


def _arrow(draw: ImageDraw.ImageDraw, x0: float, y0: float, x1: float, y1: float) -> None:
    middle = y1 - GAP_Y / 2 - 2
    draw.line([(x0, y0), (x0, middle), (x1, middle), (x1, y1)], fill=LINE, width=1)
    draw.polygon([(x1, y1), (x1 - 4, y1 - 7), (x1 + 4, y1 - 7)], fill=LINE)


def _draw_box(draw: ImageDraw.ImageDraw, box: Box, x: float, y: float) -> None:
    draw.rounded_rectangle((x, y, x + BOX_W, y + BOX_H), radius=7, fill=FILL[box.kind], outline=LINE, width=1)
    for text, size, colour, top in ((box.title, 14, INK, 6), (box.record_id, 12, FAINT, 25), (box.line, 12, INK, 42)):
        font = ImageFont.load_default(size)
        draw.text((x + 9, y + top), _fitting(draw, text, font, BOX_W - 18), fill=colour, font=font)


def _fitting(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: float) -> str:
    shown = " ".join(text.split())
    if draw.textlength(shown, font=font) <= width:
        return shown
    while shown and draw.textlength(shown + "…", font=font) > width:
        shown = shown[:-1]
    return shown + "…"


def _opened(data: bytes) -> Image.Image | None:
    if not data:
        return None
    with Image.open(io.BytesIO(data)) as opened:
        made = opened.convert("RGB")
    made.thumbnail((CELL_PX, CELL_PX))
    return made


def _png(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG", optimize=True)
    return sink.getvalue()
