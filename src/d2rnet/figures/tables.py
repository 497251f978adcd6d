"""Tables in Markdown that are readable as plain text too; tables and pictures as a page for a browser."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>
 body {{ font: 14px/1.45 system-ui, sans-serif; margin: 1rem; color: #1b1f24; background: #fff; }}
 h1 {{ font-size: 1.4rem; }}
 table {{ border-collapse: collapse; margin: .5rem 0 1rem; font-variant-numeric: tabular-nums; }}
 th, td {{ border-bottom: 1px solid #d8dee4; padding: .3rem .8rem; text-align: left; vertical-align: top; }}
 thead th {{ border-bottom: 2px solid #57606a; }}
 tbody tr:hover {{ background: #eef3f8; }}
 p {{ max-width: 60rem; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


@dataclass(frozen=True)
class Table:
    """A table with the sentence above it; the first cell of a row names the row."""

    heading: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out a table with aligned columns; return its lines."""
    cells = [[str(cell).replace("|", "/") for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def html_page(title: str, tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """Lay out tables and notes as a self-contained page; all text is escaped, a table without rows is left out."""
    body = [_html_table(table) for table in tables if table.rows]
    body += [f"<p>{html.escape(note)}</p>" for note in notes]
    return PAGE.format(title=html.escape(title), body="\n".join(body))


def picture_page(title: str, picture: Path) -> str:
    """Return a self-contained page of a PNG, no wider than the window; it can be scrolled where a bare picture cannot."""
    data = base64.b64encode(picture.read_bytes()).decode()
    name = html.escape(title)
    return PAGE.format(title=name, body=f'<img src="data:image/png;base64,{data}" alt="{name}" style="max-width: 100%">')


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(str(cell))}</th>' for cell in table.header)
    rows = []
    for name, *cells in table.rows:
        rest = "".join(f"<td>{html.escape(_unbroken(str(cell)))}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{html.escape(str(name))}</th>{rest}</tr>')
    heading = f"<p>{html.escape(table.heading)}</p>\n" if table.heading else ""
    return f"{heading}<table><thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table>"


def _unbroken(cell: str) -> str:
    """Keep the numbers in brackets, such as an interval, on one line."""
    return re.sub(r"[\[(][-+\d][^\])]*", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), cell)
