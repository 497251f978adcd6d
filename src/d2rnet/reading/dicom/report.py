"""A reading as a measurement report (TID 1500) in a Comprehensive SR: boxes with class and score, findings, notice, warnings.

A box is a planar region (TID 1410): a closed polyline in its image. SCOORD coordinates of an image have 0.0 at the upper left
corner of the upper left pixel and (columns, rows) at the lower right corner of the last one, as boxes in this package have:
numbers are taken over as they are. Findings are qualitative evaluations (rows 12 and 14 of TID 1500): a text each, of a CT
with the structure that it speaks of. Templates are extensible; what goes beyond TID 1500: notice and warnings as comments, the
algorithm and the structure of a text.

Comprehensive SR, not Comprehensive 3D SR: nothing has coordinates of the patient, and more archives know the former.

Source: DICOM PS3.3 A.35.3 (Comprehensive SR), C.18.6.1.1 (SCOORD); PS3.16 TID 1500, 1410, 4019, 1204, 1001.
"""

from collections.abc import Iterable, Iterator, Sequence

from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ComprehensiveSR,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    GraphicTypeValues,
    ImageRegion,
    LanguageOfContentItemAndDescendants,
    Measurement,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    RelationshipTypeValues,
    SourceImageForRegion,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from d2rnet.reading.content import NOTICE
from d2rnet.reading.ct_result import CtReading
from d2rnet.reading.dicom import codes as own
from d2rnet.reading.dicom.software import DETECTOR, MANUFACTURER, MODEL, WRITER, Software
from d2rnet.reading.dicom.source import Source, take_over
from d2rnet.reading.dicom.tracking import Tracked
from d2rnet.reading.result import Reading

DRAFT = "Draft of research software. Not verified by a person."
SERIES_NUMBER = 9901
Statement = tuple[str, CodedConcept | None]  # text, and the site that it speaks of


def radiograph_report(reading: Reading, sources: Sequence[Source], tracked: Sequence[Tracked]) -> ComprehensiveSR:
    """Return the report of a reading of one or more radiographs.

    Args:
        reading: with at least one image.
        sources: of its images, in their order.
        tracked: its boxes, with what follows them from document to document.
    """
    software = Software.of(reading.origin)
    groups = [_group(one, sources[one.box.image], software) for one in tracked]
    statements: list[Statement] = [(reading.findings, None)] if reading.findings else []
    content = _content(own.RADIOGRAPHY, software, reading.warnings, groups, statements)
    return _report(sources, software, content)


def ct_report(reading: CtReading, sources: Sequence[Source]) -> ComprehensiveSR:
    """Return the report of the reading of a CT: a text for each structure that it speaks of; no measurement, no coordinate.

    Args:
        reading: of a DICOM series.
        sources: the slices that were read.
    """
    statements: list[Statement] = [
        (" ".join(sentence.text for sentence in sentences), own.structure_concept(name))
        for name, sentences in reading.by_structure().items()
        if sentences
    ]
    software = Software.of(reading.origin)
    return _report(sources, software, _content(own.CT, software, reading.warnings, [], statements))


def _report(sources: Sequence[Source], software: Software, content: Iterable[ContentItem]) -> ComprehensiveSR:
    """Return the document in the study of its sources, with new identifiers, unverified."""
    root = ContainerContentItem(own.MEASUREMENT_REPORT, template_id="1500")
    root.ContentSequence = ContentSequence(list(content))
    document = ComprehensiveSR(
        evidence=[source.identity for source in sources],
        content=root,
        series_instance_uid=generate_uid(None),
        series_number=SERIES_NUMBER,
        sop_instance_uid=generate_uid(None),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MODEL,
        software_versions=software.versions,
        series_description="d2rnet draft, research only",
        coding_schemes=[own.OWN_SCHEME],
        is_complete=False,
        is_final=False,
        is_verified=False,
    )
    document.CompletionFlagDescription = DRAFT
    take_over(document, sources[0])
    return document


def _content(
    procedure: CodedConcept,
    software: Software,
    warnings: Sequence[str],
    groups: Sequence[PlanarROIMeasurementsAndQualitativeEvaluations],
    statements: Sequence[Statement],
) -> Iterator[ContentItem]:
    """Yield what stands below the title, in the order of TID 1500."""
    device = DeviceObserverIdentifyingAttributes(
        uid=software.uid, name=MODEL, manufacturer_name=MANUFACTURER, model_name=MODEL, serial_number=software.versions[0]
    )
    yield from LanguageOfContentItemAndDescendants(own.ENGLISH)
    yield from ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))
    yield CodeContentItem(own.PROCEDURE_REPORTED, procedure, RelationshipTypeValues.HAS_CONCEPT_MOD)
    for comment in (f"{DRAFT} {NOTICE}", *(f"Warning: {warning}" for warning in warnings)):
        yield TextContentItem(own.COMMENT, comment, RelationshipTypeValues.CONTAINS)
    if groups:
        yield _container(own.IMAGING_MEASUREMENTS, (item for group in groups for item in group))
    if statements:
        yield _container(own.QUALITATIVE_EVALUATIONS, (_text(*statement, software) for statement in statements))


def _container(name: CodedConcept, items: Iterable[ContentItem]) -> ContainerContentItem:
    container = ContainerContentItem(name, relationship_type=RelationshipTypeValues.CONTAINS)
    container.ContentSequence = ContentSequence(list(items))
    return container


def _text(text: str, site: CodedConcept | None, software: Software) -> TextContentItem:
    """Return a finding as text, with its site and what wrote it."""
    item = TextContentItem(own.FINDING, text, RelationshipTypeValues.CONTAINS)
    item.ContentSequence = ContentSequence(software.identification(WRITER))
    if site is not None:
        item.ContentSequence.append(CodeContentItem(own.FINDING_SITE, site, RelationshipTypeValues.HAS_CONCEPT_MOD))
    return item


def _group(tracked: Tracked, source: Source, software: Software) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """Return a box with its class, and the detector's with its score; one that a person drew is none of the detector's."""
    identity = source.identity
    image = SourceImageForRegion(identity.SOPClassUID, identity.SOPInstanceUID)
    own_box = tracked.box.own
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(tracked.uid, tracked.name),
        referenced_region=ImageRegion(GraphicTypeValues.POLYLINE, tracked.outline, image),
        finding_type=own.class_concept(tracked.box.label),
        algorithm_id=None if own_box else software.identification(DETECTOR),
        measurements=None if own_box else [Measurement(own.SCORE, tracked.box.score, own.NO_UNIT)],
    )
