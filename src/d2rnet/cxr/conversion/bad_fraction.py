"""How much of a source may be left out before the run stops: ``cxr.data.conversion.max_bad_fraction``.

A few damaged files or boxes are listed and left out; many of them have one cause that a person should see first.
"""

import logging
from pathlib import Path

from d2rnet.cxr.conversion.absent import SHOWN_FOLDERS, absent_folders
from d2rnet.cxr.conversion.box_limits import CheckedBoxes
from d2rnet.files.problems import Problems

log = logging.getLogger(__name__)


def limit_bad(
    bad: list[dict[str, str]], total: int, *, what: str, name: str, root: str, most: float, problems: Problems
) -> None:
    """Make problems of the unreadable files of a source that has too many of them.

    Args:
        bad: one record a file, with ``path`` and ``reason``.
        total: files of the source, bad ones included.
        what: ``images`` or ``reports``.
        name: of the source, its key under ``cxr.data``.
        root: folder that the files lie in.
        most: share of the total that may be bad.
        problems: grows by one for each file; missing ones in many folders by one for each folder.
    """
    if bad:
        also = " or no chest radiographs" if what == "images" else ""
        log.warning("cxr.data.%s: %d of %d %s are unreadable%s and left out", name, len(bad), total, what, also)
    found = len(bad)
    if found <= most * total:
        return
    gone = [record["path"] for record in bad if not Path(record["path"]).exists()]
    if len(gone) > SHOWN_FOLDERS:  # a folder that was not fetched is one thing, however many files it would hold
        folders = absent_folders(gone, root).items()
        bad = [record for record in bad if Path(record["path"]).exists()]
        bad += [{"path": folder, "reason": f"{number} {what} that are not there"} for folder, number in folders]
    partly = f"; cxr.data.{name}.require_all: false takes a part of a data set as it is" if gone else ""
    for record in bad:
        problems.add(
            f"too_many_unreadable_{what}",
            file=record["path"],
            record=f"cxr.data.{name}",
            got=record["reason"],
            expected=f"at most {most:.2%} of {total} {what} unreadable, not {found}",
            remedy=f"Mend or remove them, or raise cxr.data.conversion.max_bad_fraction{partly}.",
        )


def limit_listed(checked: CheckedBoxes, problems: Problems, *, root: str, most: float) -> None:
    """Make one problem of the listed boxes where they are too many.

    Args:
        checked: boxes compared with their images.
        problems: grows by at most one.
        root: of the labelled source, named in the problem.
        most: share of the boxes that may be listed.
    """
    listed = len(checked.listed)
    total = listed + checked.counts["boxes_kept"]
    if listed:
        log.warning("cxr.data.labelled: %d of %d boxes lie outside their images and are left out", listed, total)
    if listed <= most * total:
        return
    first = checked.listed[0]
    problems.add(
        "too_many_listed_boxes",
        file=root,
        record="cxr.data.labelled",
        got=f"{listed} of {total} boxes outside their images; the first is {first['origin']} of image {first['source_id']}",
        expected=f"at most {most:.2%}",
        remedy="Boxes of another frame, such as those of resized copies, need cxr.data.labelled.size_table; else mend the "
        "rows, or raise cxr.data.conversion.max_bad_fraction.",
    )
