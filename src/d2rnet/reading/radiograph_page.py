"""The page of radiographs that were read: images with boxes as SVG, findings, boxes.

Hovering a sentence lights up the boxes linked to it, and shows grey those that it merely attended to; hovering a box lights up
its sentences; the keyboard does the same. Weak boxes that no sentence speaks of are hidden until they are asked for.
"""

from html import escape

from d2rnet.cxr.boxes.evidence import BRACKETS, box_numbers, bracketed
from d2rnet.cxr.boxes.geometry import xywh_to_xyxy
from d2rnet.cxr.images.radiograph import reduced_hw, resize_area
from d2rnet.figures.label_places import place_labels
from d2rnet.figures.plots import class_colours
from d2rnet.reading.content import Box, Content, Sentence, View
from d2rnet.reading.page import fill_page, jpeg_url, origin_facts

LONGEST_PX = 1600
JPEG_QUALITY = 90
NUMBERS_A_SIDE = 26  # the longer side of a radiograph is that many times as long as a number is high


def page_text(reading: Content) -> str:
    """Return the page of a reading."""
    files = (f"{view.path.name}: {view.width} x {view.height} px{view.view and f', {view.view}'}" for view in reading.images)
    sentences = "\n".join(map(_sentence, reading.sentences)) or "<li>No findings were written.</li>"
    texts = reading.own_box_texts()
    mine = "\n".join(_said_of(number, text) for number, said in texts.items() for text in said)
    own = f'\n<h2>For your boxes</h2>\n<ol id="own">\n{mine}\n</ol>' if texts else ""
    findings = f'<h2>Findings</h2>\n<ol id="sentences">\n{sentences}\n</ol>'
    note = f'\n<p class="note">{escape(BRACKETS)}</p>' if reading.has_brackets else ""
    boxes = "\n".join(_row(*one) for one in _marked(reading)) or "<li>No box above the threshold.</li>"
    weaker = reading.weaker_boxes
    ask = f'\n<label><input type="checkbox" id="weaker"> {escape(weaker)}</label>' if weaker else ""
    return fill_page(
        title=reading.name,
        warnings=reading.warnings,
        images="\n".join(_figure(reading, number, view) for number, view in enumerate(reading.images)),
        text=f'{findings}{note}{own}\n<h2>Boxes</h2>\n<ol id="boxes">\n{boxes}\n</ol>{ask}',
        facts=[*files, *origin_facts(reading.origin, reading.seconds)],
        style="boxes.css",
        script="boxes.js",
    )


def _marked(reading: Content) -> list[tuple[int, Box, str]]:
    """Return place and box of each box, and what its elements' class has more: of those hidden until they are asked for."""
    shown = set(reading.shown)
    return [(number, box, "" if number in shown else " weak") for number, box in enumerate(reading.boxes)]


def _figure(reading: Content, image: int, view: View) -> str:
    """Return a radiograph with its boxes as SVG in original pixels."""
    drawn = [one for one in _marked(reading) if one[1].image == image]
    drawn.sort(key=lambda one: one[2])  # the numbers of weak ones make way
    size = max(view.width, view.height) / NUMBERS_A_SIDE
    corners = xywh_to_xyxy([box.xywh for _, box, _ in drawn]).tolist()
    sizes = [(size * (0.3 + 0.65 * len(str(number + 1))), 1.25 * size) for number, *_ in drawn]
    places = place_labels(corners, sizes, (view.width, view.height))
    numbers = [_number(*one, *place, *wide) for one, place, wide in zip(drawn, places, sizes, strict=True)]
    shapes = "\n".join([*(_shape(*one) for one in drawn), *numbers])  # no line runs through a number
    return (
        f'<figure><svg viewBox="0 0 {view.width} {view.height}" role="img" aria-label="radiograph {image + 1} with boxes">\n'
        f'<image width="{view.width}" height="{view.height}" preserveAspectRatio="none" href="{_address(view)}"/>\n'
        f"{shapes}\n</svg></figure>"
    )


def _shape(number: int, box: Box, mark: str) -> str:
    """Return a box in original pixels."""
    x, y, width, height = box.xywh
    label = f"{number + 1} {box.label} {box.score:.2f}"
    colour = class_colours()[box.label]
    return (
        f'<g class="box{mark}" data-box="{number}" style="--colour: {colour}"><title>{escape(label)}</title>'
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}"/></g>'
    )


def _number(number: int, box: Box, mark: str, left: float, top: float, width: float, height: float) -> str:
    """Return the number of a box on a chip of its colour, as in the list beside it, in original pixels."""
    return (
        f'<g class="number{mark}" data-box="{number}" style="--colour: {class_colours()[box.label]}">'
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}"/>'
        f'<text x="{left + width / 2:.1f}" y="{top + 0.8 * height:.1f}" font-size="{0.8 * height:.1f}">{number + 1}</text></g>'
    )


def _address(view: View) -> str:
    return jpeg_url(resize_area(view.pixels, reduced_hw(view.height, view.width, LONGEST_PX)), quality=JPEG_QUALITY)


def _sentence(sentence: Sentence) -> str:
    attended = sentence.attended_alone
    shown = f' <small class="linked">{bracketed(sentence.linked, ()).strip()}</small>' if sentence.linked else ""
    shown += f' <small class="attended">attended: {box_numbers(attended)}</small>' if attended else ""
    boxes, others = (" ".join(map(str, places)) for places in (sentence.linked, attended))
    return f'<li tabindex="0" data-boxes="{boxes}" data-attended="{others}">{escape(sentence.text)}{shown}</li>'


def _said_of(number: int, text: str) -> str:
    return f'<li tabindex="0" data-boxes="{number}">{number + 1} <small>{escape(text)}</small></li>'


def _row(number: int, box: Box, mark: str) -> str:
    colour = class_colours()[box.label]
    return (
        f'<li class="a-box{mark}" tabindex="0" data-boxes="{number}">'
        f'<span class="chip" style="background: {colour}">{number + 1}</span> '
        f"{escape(box.label)} <small>{box.score:.2f}{', yours' if box.own else ''}</small></li>"
    )
