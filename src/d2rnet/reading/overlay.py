"""The picture of a reading: boxes by class colour on the radiograph, a legend, the findings, the notice.

Boxes are placed in the frame of the original; the picture itself is bounded in size, and small images are enlarged so that
numbers stay legible.
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from d2rnet.cxr.boxes.evidence import BRACKETS, box_numbers, bracketed
from d2rnet.cxr.boxes.geometry import xywh_to_xyxy
from d2rnet.cxr.images.radiograph import reduced_hw, resize_area
from d2rnet.figures.label_places import place_labels
from d2rnet.figures.plots import class_colours
from d2rnet.files.atomic import atomic_path
from d2rnet.reading.content import NOTICE, Content, View

LONGEST_PX = 2000  # of all views side by side
LEAST_PX = 640  # smaller images are enlarged to it
GAP_PX = 12
BACKGROUND = "#101418"
INK = "#f2f2f2"
FAINT = "#a8b0b8"
WARNING = "#ffd060"
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def write_overlay(reading: Content, target: Path) -> None:
    """Write the picture of a reading as PNG, atomically."""
    with atomic_path(target) as temporary:
        draw_overlay(reading).save(temporary, format="PNG", optimize=False)


def draw_overlay(reading: Content) -> Image.Image:
    """Draw the views side by side, each with its boxes, and legend, findings and notice below."""
    share = max(LEAST_PX, LONGEST_PX // len(reading.images))
    panels = [_panel(view, share) for view in reading.images]
    width = sum(panel.width for panel in panels) + GAP_PX * (len(panels) - 1)
    height = max(panel.height for panel in panels)
    size = max(14, min(34, width // 48))
    font = ImageFont.load_default(size)
    for number, panel in enumerate(panels):
        _draw_boxes(panel, reading, number, font)
    lines = overlay_lines(reading, width, font)
    picture = Image.new("RGB", (width, height + (len(lines) + 1) * round(1.4 * size)), BACKGROUND)
    left = 0
    for panel in panels:
        picture.paste(panel, (left, 0))
        left += panel.width + GAP_PX
    _write_lines(picture, lines, height + round(0.7 * size), size, font)
    return picture


def _panel(view: View, longest_px: int) -> Image.Image:
    pixels = resize_area(view.pixels, reduced_hw(view.height, view.width, longest_px))
    panel = Image.fromarray(pixels).convert("RGB")
    scale = LEAST_PX / max(panel.size)
    if scale > 1:
        panel = panel.resize(
            (max(1, round(panel.width * scale)), max(1, round(panel.height * scale))), Image.Resampling.BICUBIC
        )
    return panel


def _draw_boxes(panel: Image.Image, reading: Content, image: int, font: Font) -> None:
    """Draw the boxes of one image, least score first so that the surest lie on top, then their numbers."""
    draw = ImageDraw.Draw(panel)
    colours = class_colours()
    view = reading.images[image]
    scale_x = panel.width / view.width
    scale_y = panel.height / view.height
    line = max(2, max(panel.size) // 320)
    shown = [(str(number), box) for number, box in reading.numbered if box.image == image]
    scales = (scale_x, scale_y, scale_x, scale_y)
    corners = (xywh_to_xyxy([box.xywh for _, box in shown]) * scales).tolist()
    for (_, box), (left, top, right, bottom) in reversed(list(zip(shown, corners, strict=True))):
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colours[box.label], width=line)
    sizes = [(draw.textlength(text, font) + 2 * line + 4, _height(font) + 2) for text, _ in shown]
    places = place_labels(corners, sizes, panel.size)
    for (text, box), (left, top), (width, height) in zip(shown, places, sizes, strict=True):
        draw.rectangle((left, top, left + width, top + height), fill=colours[box.label])
        draw.text((left + line + 2, top), text, fill="black", font=font)


def _height(font: Font) -> float:
    return font.getbbox("0Ag")[3]


def overlay_lines(reading: Content, width: int, font: Font) -> list[tuple[str, str, str]]:
    """Lay out the text below a picture of so many pixels: (text, colour, colour of the chip before it or "") of each line."""
    room = width - 2 * GAP_PX
    warned = (part for warning in reading.warnings for part in wrap(f"Warning: {warning}", room, font))
    lines: list[tuple[str, str, str]] = [(part, WARNING, "") for part in warned]
    for number, box in reading.numbered:
        mine = ", yours" if box.own else ""
        lines.append((f"{number}  {box.label}  {box.score:.2f}{mine}", INK, class_colours()[box.label]))
    if not reading.boxes:
        lines.append(("no box above the threshold", FAINT, ""))
    if reading.weaker_boxes:
        lines += [(part, FAINT, "") for part in wrap(f"{reading.weaker_boxes}: in the JSON file", room, font)]
    for sentence in reading.sentences:
        lines += [(text, INK, "") for text in wrap(sentence.text + bracketed(sentence.linked, ()), room, font)]
        if sentence.attended_alone:
            lines.append((f"    attended: {box_numbers(sentence.attended_alone)}", FAINT, ""))
    if reading.has_brackets:
        lines += [(part, FAINT, "") for part in wrap(BRACKETS, room, font)]
    lines += [(part, FAINT, "") for part in wrap(NOTICE, room, font)]
    return lines


def wrap(text: str, room_px: int, font: Font) -> list[str]:
    """Break text between words so that each line is at most so wide; a word that is wider stands alone."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= room_px:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _write_lines(picture: Image.Image, lines: list[tuple[str, str, str]], top: int, size: int, font: Font) -> None:
    draw = ImageDraw.Draw(picture)
    for text, ink, chip in lines:
        left = GAP_PX
        if chip:
            draw.rectangle((left, top + size // 8, left + size, top + size // 8 + size), fill=chip)
            left += size + GAP_PX
        draw.text((left, top), text, fill=ink, font=font)
        top += round(1.4 * size)
