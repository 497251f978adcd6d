"""Boxes and labels as a softcopy presentation state: a viewer lays them over the image, which itself stays as it is.

Graphic coordinates in PIXEL units have 0.0 at the upper left corner of the upper left pixel, as those of the report. Grey
levels are shown as the reading saw them: modality and VOI transformation of the image, MONOCHROME1 inverted. Each class has a
layer of its own in its colour, which viewers can switch off; the notice stands in every picture.

Source: DICOM PS3.3 A.33.1 (grayscale), A.33.2 (colour), C.10.5 (graphic annotation), C.11.6 (presentation LUT).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from highdicom import VOILUT, ModalityLUT, ModalityLUTTransformation, PresentationLUTTransformation
from highdicom.color import CIELabColor
from highdicom.pr import (
    AnnotationUnitsValues,
    ColorSoftcopyPresentationState,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
    SoftcopyVOILUTTransformation,
    TextJustificationValues,
    TextObject,
)
from PIL import ImageCms
from pydicom import Dataset
from pydicom.uid import generate_uid

from d2rnet.cxr.images.dicom_values import whole_number
from d2rnet.cxr.images.grayscale import GrayscaleTransform, LookupTable, read_grayscale
from d2rnet.errors import DatasetError
from d2rnet.figures.plots import class_colours
from d2rnet.findings.classes import CATEGORY_IDS
from d2rnet.reading.content import View
from d2rnet.reading.dicom.software import MANUFACTURER, MODEL, Software
from d2rnet.reading.dicom.source import Source, take_over
from d2rnet.reading.dicom.tracking import Tracked

SERIES_NUMBER = 9902
SHORT_NOTICE = "Research software, not a medical device. Draft, not verified."
_NOTICE_BOX = (0.0, 0.96, 1.0, 1.0)  # of the displayed area: left, top, right, bottom
_NOTICE_COLOUR = "#ffd060"
_LUT_VALUES = 2**16 - 1


def presentation_of(
    view: View, source: Source, tracked: Sequence[Tracked], software: Software, *, series_uid: str, number: int
) -> GrayscaleSoftcopyPresentationState | ColorSoftcopyPresentationState:
    """Return the presentation state of one image.

    Args:
        view: the image.
        source: of it.
        tracked: its boxes.
        software: what made the reading.
        series_uid: of the series of all presentation states of the reading.
        number: of this one within the series, from 1.
    """
    image = _described(view, source)
    layers = _layers(tracked)
    is_coloured = image.SamplesPerPixel == 3
    make: Any = ColorSoftcopyPresentationState if is_coloured else GrayscaleSoftcopyPresentationState
    document = make(
        referenced_images=[image],
        series_instance_uid=series_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(None),
        instance_number=number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=software.versions,
        device_serial_number=software.versions[0],
        content_label="D2RNET BOXES",
        content_description=SHORT_NOTICE,
        series_description="d2rnet boxes, draft, research only",
        graphic_annotations=[*_annotations(image, tracked, layers), _notice(image, layers[""])],
        graphic_layers=list(layers.values()),
        **({"icc_profile": _srgb()} if is_coloured else _grey_levels(image, source)),
    )
    take_over(document, source)
    return document


def _described(view: View, source: Source) -> Dataset:
    """Return what highdicom asks of an image: identity, size, and samples a pixel; its grey levels are handed over apart."""
    image = Dataset()
    image.update(source.identity)
    image.Rows = view.height
    image.Columns = view.width
    image.SamplesPerPixel = whole_number(source.header, "SamplesPerPixel")
    return image


def _layers(tracked: Sequence[Tracked]) -> dict[str, GraphicLayer]:
    """Return a layer a class, in the class's colour, and one of the notice, under ""."""
    colours = class_colours()
    labels = sorted({one.box.label for one in tracked}, key=CATEGORY_IDS.__getitem__)
    layers = {
        label: GraphicLayer(f"CXR{CATEGORY_IDS[label]:02d}", order, label, CIELabColor.from_string(colours[label]))
        for order, label in enumerate(labels, start=1)
    }
    layers[""] = GraphicLayer("NOTICE", len(labels) + 1, SHORT_NOTICE, CIELabColor.from_string(_NOTICE_COLOUR))
    return layers


def _annotations(image: Dataset, tracked: Sequence[Tracked], layers: dict[str, GraphicLayer]) -> list[GraphicAnnotation]:
    """Return each box as its outline and its label at the upper left corner, least score first: the surest lie on top."""
    annotations = []
    for one in reversed(tracked):
        outline = GraphicObject(
            GraphicTypeValues.POLYLINE,
            one.outline,
            AnnotationUnitsValues.PIXEL,
            tracking_id=one.name,
            tracking_uid=one.uid,
        )
        left, top = one.outline[0].tolist()
        label = TextObject(
            one.name if one.box.own else f"{one.name} {one.box.score:.2f}",
            AnnotationUnitsValues.PIXEL,
            anchor_point=(left, top),
            anchor_point_visible=False,
            tracking_id=one.name,
            tracking_uid=one.uid,
        )
        layer = layers[one.box.label]
        annotations.append(GraphicAnnotation([image], layer, graphic_objects=[outline], text_objects=[label]))
    return annotations


def _notice(image: Dataset, layer: GraphicLayer) -> GraphicAnnotation:
    text = TextObject(
        SHORT_NOTICE,
        AnnotationUnitsValues.DISPLAY,
        bounding_box=_NOTICE_BOX,
        text_justification=TextJustificationValues.LEFT,
    )
    return GraphicAnnotation([image], layer, text_objects=[text])


def _grey_levels(image: Dataset, source: Source) -> dict[str, Any]:
    """Return the transformations of grey levels, as the reader of radiographs understands the header.

    An image without VOI LUT and window gets none: viewers show the whole range of its values.

    Raises:
        DatasetError: a look-up table, or a number, that DICOM has no room for.
    """
    header = source.header
    for name in ("BitsStored", "PixelRepresentation"):
        setattr(header, name, whole_number(header, name))
    grey = read_grayscale(header, source.path)
    shape = "INVERSE" if grey.is_inverted else "IDENTITY"
    try:
        voi = _voi(grey)
        return {
            "modality_lut_transformation": _modality(grey),
            "presentation_lut_transformation": PresentationLUTTransformation(presentation_lut_shape=shape),
            **({"voi_lut_transformations": [voi]} if voi else {}),
        }
    except (ValueError, TypeError, OverflowError) as error:  # whose texts may quote values of a header
        raise DatasetError(
            f"{source.path}: got grey levels that no presentation state can hold ({type(error).__name__}); expected those of "
            "a radiograph. Read it without --dicom-sr."
        ) from error


def _modality(grey: GrayscaleTransform) -> ModalityLUTTransformation:
    if grey.modality_table is not None:
        table = grey.modality_table
        return ModalityLUTTransformation(modality_lut=ModalityLUT("US", table.first, table.outputs.astype(np.uint16)))
    return ModalityLUTTransformation(rescale_intercept=grey.intercept, rescale_slope=grey.slope, rescale_type="US")


def _voi(grey: GrayscaleTransform) -> SoftcopyVOILUTTransformation | None:
    if grey.voi_table is not None:
        return SoftcopyVOILUTTransformation(voi_luts=[VOILUT(grey.voi_table.first, _in_16_bits(grey.voi_table))])
    if grey.window is None:
        return None
    window = grey.window
    return SoftcopyVOILUTTransformation(window.center, window.width, voi_lut_function=window.function)


def _in_16_bits(table: LookupTable) -> np.ndarray:
    """Return the outputs of a table over the whole of 16 bits: a table states no other number of bits in highdicom."""
    return np.rint(table.outputs * (_LUT_VALUES / (2**table.bits - 1))).astype(np.uint16)


def _srgb() -> bytes:
    """Return an sRGB profile as one of an input device, as DICOM asks; both kinds have the same tags (ICC.1 8.3, 8.4)."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:12] + b"scnr" + profile[16:]
