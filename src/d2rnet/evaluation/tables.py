"""Tables in Markdown that are readable as plain text too, and as a page for a browser."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

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


def _html_table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(str(cell))}</th>' for cell in table.header)
    rows = []
    for name, *cells in table.rows:
        rest = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
        rows.append(f'<tr><th scope="row">{html.escape(str(name))}</th>{rest}</tr>')
    heading = f"<p>{html.escape(table.heading)}</p>\n" if table.heading else ""
    return f"{heading}<table><thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table>"
