"""What a page of ``snakemake --report`` must hold: the items of a wing's rules, each with its caption."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def report_items(wing: str) -> list[tuple[str, Path]]:
    """Return file and caption of each item of the tables that ``in_report`` takes."""
    rules = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflow/rules" / wing).glob("*.smk"))
    captions = ROOT / "workflow/report" / wing
    items = []
    for folder, table in re.findall(r'\*\*in_report\("([^"]+)", (\w+)\)', rules):
        names = re.search(rf"^{table} = {{(.*?)^}}", rules, re.MULTILINE | re.DOTALL)[1]
        items += [(f"{folder}/{name}", captions / f"{Path(name).stem}.rst") for name in re.findall(r'"([\w.]+)": \(', names)]
    return items


def assert_report_holds(page: Path, items: list[tuple[str, Path]]) -> None:
    """Assert that a page holds items with the first words of their captions, and loads nothing."""
    text = page.read_text(encoding="utf-8")
    for file, caption in items:
        assert f'"{file}"' in text, f"{file} is not in the report"
        words = caption.read_text(encoding="utf-8").split()[:6]
        assert " ".join(words) in text.replace("\\n", " ").replace("\n", " "), f"caption of {file}"
    assert "fetch(" not in text or "https://cdn" not in text
