"""Tables of structures: which groups of anatomy a structure covers, by which words a sentence names it, its normal sentence.

A table is a YAML file; three are shipped in the folder ``tables``: ten, radgenome, fvlm. ``tables/anatomy.yaml`` holds the
words for the groups of anatomy that tables are made of; a structure may bring words of its own besides.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from d2rnet.errors import ConfigError
from d2rnet.findings.ct_classes import CT_ABNORMALITIES
from d2rnet.findings.phrases import PhraseIndex
from d2rnet.settings import Section, read_overlay, setting

FOLDER = Path(__file__).with_name("tables")
SHIPPED = ("ten", "radgenome", "fvlm")
IGNORED = "ignored"  # meaning of phrases that name no anatomy


class AnatomyGroup(Section):
    """Words for a group of anatomy."""

    cues: tuple[str, ...] = setting(())
    """Phrases that name it wherever they stand."""
    findings: tuple[str, ...] = setting(())
    """Phrases that name it in a sentence that holds no cue of any group."""
    labels: tuple[str, ...] = setting(())
    """Which of the 18 abnormalities may lie in it."""


class Anatomy(Section):
    """The file anatomy.yaml."""

    ignored: tuple[str, ...] = setting(())
    """Phrases that name no anatomy, though a word of theirs does."""
    groups: dict[str, AnatomyGroup] = setting({})
    """Name -> group; where one finding would name several, the first."""


class Structure(AnatomyGroup):
    """One structure of a table. Its labels are those of its groups and its own."""

    anatomy: tuple[str, ...] = setting(())
    """Groups of anatomy.yaml that it covers."""
    normal: str = setting("", min_length=1)
    """The sentence that says that nothing is wrong with it."""
    radgenome: tuple[str, ...] = setting(())
    """Regions of RadGenome-ChestCT that it covers: it gets their texts where the source is radgenome."""


class TableFile(Section):
    """A file of structures."""

    rest: str = setting("", min_length=1)
    """The structure that takes every sentence that names none."""
    ignored: tuple[str, ...] = setting(())
    """Phrases that name no structure, though a word of theirs does."""
    structures: dict[str, Structure] = setting({}, min_length=1)
    """Name -> structure."""


@dataclass(frozen=True, eq=False)
class StructureTable:
    """A table of structures, ready to read sentences.

    Attributes:
        name: of the table.
        structures: name -> structure, in the order of the file.
        rest: the structure that takes every sentence that names none.
        structures_of_group: group of anatomy -> structures that cover it.
        groups_of_label: label -> groups that it may lie in.
        cues: phrases that name groups wherever they stand.
        findings: phrases that name groups where the sentence holds no cue.
    """

    name: str
    structures: Mapping[str, Structure]
    rest: str
    structures_of_group: Mapping[str, tuple[str, ...]]
    groups_of_label: Mapping[str, tuple[str, ...]]
    cues: PhraseIndex
    findings: PhraseIndex

    def structures_for(self, groups: Iterable[str]) -> tuple[str, ...]:
        """Return the structures that cover groups of anatomy, in the order of the table; the rest for groups of none."""
        named = {name for group in groups for name in self.structures_of_group.get(group, (self.rest,))}
        return tuple(name for name in self.structures if name in named)


def structure_title(name: str) -> str:
    """Return a structure's name as a heading: ``breast_axilla_chest_wall`` is "Breast axilla chest wall"."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]


@lru_cache(maxsize=8)
def load_table(name: str) -> StructureTable:
    """Load a table of structures.

    Args:
        name: of a shipped table, or the path of a YAML file.

    Raises:
        ConfigError: no such table, an unknown key, group or label, words that are no phrases, or nothing that takes the rest.
    """
    path = FOLDER / f"{name}.yaml" if name in SHIPPED else Path(name)
    if not path.is_file():
        raise ConfigError(
            f"ct.structures.table: {name}: no such file; expected {', '.join(SHIPPED)}, or the path of a YAML file."
        )
    source = str(path) if name not in SHIPPED else path.name
    anatomy = Anatomy.read(read_overlay(FOLDER / "anatomy.yaml"), source="anatomy.yaml")
    table = TableFile.read(read_overlay(path), source=source)
    _check(table, anatomy, source)
    groups: dict[str, AnatomyGroup] = dict(anatomy.groups)
    covering: dict[str, list[str]] = {}
    for name_of_structure, entry in table.structures.items():
        covered = list(entry.anatomy)
        if entry.cues or entry.findings:
            covered.append(f"words of {name_of_structure}")  # no group has a space in its name
            groups[covered[-1]] = entry
        for group in covered:
            covering.setdefault(group, []).append(name_of_structure)
    return StructureTable(
        name=name if name in SHIPPED else path.stem,
        structures={name: _whole(entry, anatomy) for name, entry in table.structures.items()},
        rest=table.rest,
        structures_of_group={group: tuple(names) for group, names in covering.items()},
        groups_of_label={
            label: tuple(name for name, entry in groups.items() if label in entry.labels) for label in CT_ABNORMALITIES
        },
        cues=_index(source, {name: entry.cues for name, entry in groups.items()} | {IGNORED: anatomy.ignored + table.ignored}),
        findings=_index(source, {name: entry.findings for name, entry in groups.items()}),
    )


def _check(table: TableFile, anatomy: Anatomy, source: str) -> None:
    """Raise for names that are not known.

    Raises:
        ConfigError: a group or label that does not exist, or a rest that is no structure.
    """
    if table.rest not in table.structures:
        raise ConfigError(f"{source}: rest: '{table.rest}'; expected one of its structures: {', '.join(table.structures)}.")
    for kind, entries in (("structure", table.structures), ("group", anatomy.groups)):
        for name, entry in entries.items():
            unknown = [label for label in entry.labels if label not in CT_ABNORMALITIES]
            if unknown:
                raise ConfigError(
                    f"{source}: {kind} {name}: label '{unknown[0]}'; expected of: {', '.join(CT_ABNORMALITIES)}."
                )
    for name, structure in table.structures.items():
        unknown = [group for group in structure.anatomy if group not in anatomy.groups]
        if unknown:
            raise ConfigError(f"{source}: structure {name}: group '{unknown[0]}'; expected of: {', '.join(anatomy.groups)}.")


def _whole(entry: Structure, anatomy: Anatomy) -> Structure:
    """Return a structure with the labels of its groups, too, in the order of the 18."""
    parts: list[AnatomyGroup] = [*(anatomy.groups[group] for group in entry.anatomy), entry]
    labels = {label for part in parts for label in part.labels}
    return entry.model_copy(update={"labels": tuple(label for label in CT_ABNORMALITIES if label in labels)})


def _index(source: str, phrases: Mapping[str, Iterable[str]]) -> PhraseIndex:
    try:
        return PhraseIndex(phrases)
    except ValueError as error:
        raise ConfigError(f"{source}: {error}") from error
