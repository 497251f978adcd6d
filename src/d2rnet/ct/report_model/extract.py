"""extract-ct-features: stage 1, frozen and in evaluation mode, looks at every volume once; what stage 2 needs is kept.

Reads: ct_annotation.json, converted volumes, model folder of train-structures. Writes, into one folder: a file a volume below
``features/<key>/`` (features.py), from which an interrupted extraction goes on; the record of each shard, JSON lines ``id,
file_name, sha256`` (of the volume's voxels) with its run record; and, when the shards are joined, ``features.json`` and
``run.json``. The key names weights, configuration, grid and window of stage 1, and what is kept: another one is another
folder, and folders of keys that no run needs any more may be deleted.

A volume is looked at by itself, so neither shard nor batch changes its features.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from d2rnet.ct.annotation.read import load_ct_annotation
from d2rnet.ct.conversion.store import read_array
from d2rnet.ct.report_model.features import (
    FORMAT,
    INDEX,
    FeatureFacts,
    feature_path,
    features_of,
    metadata_of,
    write_features,
)
from d2rnet.ct.report_model.selection import Features
from d2rnet.ct.report_model.settings import CtFeatureSettings
from d2rnet.ct.structure_model.model import LoadedStructures, load_structure_model, volume_tensor
from d2rnet.errors import ConfigError, DatasetError
from d2rnet.files.documents import read_jsonl, write_json, write_jsonl
from d2rnet.files.hashes import fingerprint, sha256_file
from d2rnet.files.names import is_path_below
from d2rnet.files.problems import Problems
from d2rnet.files.write_behind import WriteBehind
from d2rnet.report.annotation_file import Entry
from d2rnet.report.model_files import CONFIG, WEIGHTS
from d2rnet.runs.array_cache import file_state
from d2rnet.runs.device import freed_memory_kept, resolve_device
from d2rnet.runs.progress import track
from d2rnet.runs.provenance import write_run_record
from d2rnet.runs.settings import LoaderRuntime
from d2rnet.runs.shards import advice, check_count, read_records, record_path, remove_record
from d2rnet.training.task import AUTOCAST, make_loader

log = logging.getLogger(__name__)

COMMAND = "extract-ct-features"
SHARD_COMMAND = f"{COMMAND}-shard"
RECIPE = 1  # raise it when the same volume, weights and settings would give other features than before


class _Volumes(Dataset[tuple[Tensor | None, str]]):
    """Converted volumes as stage 1 takes them, each with the SHA-256 of its voxels, or None with a complaint."""

    def __init__(self, paths: Sequence[Path], loaded: LoadedStructures) -> None:
        self._paths = paths
        self._shape = tuple(loaded.conversion.shape_zyx)
        self._window_hu = loaded.conversion.window_hu

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor | None, str]:
        try:
            array = np.ascontiguousarray(read_array(self._paths[index]))
        except (DatasetError, OSError) as error:
            return None, str(error)
        if array.shape != self._shape:
            return None, f"{self._paths[index]}: got shape {array.shape}; expected {self._shape}, on which stage 1 was trained"
        return volume_tensor(array, self._window_hu), hashlib.sha256(array.data).hexdigest()


def extract_ct_features_shard(
    *,
    annotation: Path,
    volumes: Path,
    structures: Path,
    folder: Path,
    shard: int,
    shards: int,
    output: Path,
    device: str,
    settings: CtFeatureSettings,
    runtime: LoaderRuntime = LoaderRuntime(),
) -> None:
    """Extract the features of one shard of the volumes; those that are up to date are kept.

    Args:
        annotation: ct_annotation.json.
        volumes: folder that ``volume_path`` is relative to.
        structures: folder of train-structures.
        folder: folder of the features.
        shard: which shard, 1 to ``shards``.
        shards: number of shards.
        output: record of the shard.
        device: auto, cpu, cuda or cuda:N.
        settings: section ``ct.report.features``.
        runtime: loader processes.

    Raises:
        ConfigError: no such shard or device.
        DatasetError: volumes cannot be read, or are of another shape than stage 1 was trained on; all are listed.
        CheckpointError: the model folder's files do not belong together.
        OSError: features cannot be written (disk full); no half file remains.
    """
    torch_device = resolve_device(device)
    if not 1 <= shard <= shards:
        raise ConfigError(f"--shard {shard} --shards {shards}: expected a shard from 1 to {shards}.")
    extraction = Extraction.of(structures, folder, settings, torch_device)
    entries = [entry for part in load_ct_annotation(annotation).values() for entry in part]
    first, last = (len(entries) * place // shards for place in (shard - 1, shard))
    log.info("shard %d of %d: %d of %d volumes, key %s", shard, shards, last - first, len(entries), extraction.facts.key)
    with freed_memory_kept(torch_device):
        records, kept = extraction.run(entries[first:last], volumes, loader_workers=runtime.loader_workers)
    remove_record(output)
    write_jsonl(output, records)
    write_run_record(
        record_path(output),
        command=SHARD_COMMAND,
        settings=settings,
        inputs={"annotation": annotation, WEIGHTS: structures / WEIGHTS, CONFIG: structures / CONFIG},
        counts={"volumes": len(records), "kept": kept, "listed": len(entries), "shard": shard, "shards": shards},
        extra={"device": str(torch_device), "facts": extraction.facts.to_json()},
    )
    log.info("features of %d volumes extracted, %d kept from before: %s", len(records) - kept, kept, folder)


def extraction_key(structures: Path, settings: CtFeatureSettings) -> str:
    """Return 12 hex digits that name an extraction: weights and configuration of stage 1, grid and window in it, and settings.

    Args:
        structures: folder of train-structures.
        settings: section ``ct.report.features``.
    """
    model = [sha256_file(structures / name) for name in (WEIGHTS, CONFIG)]
    return fingerprint([FORMAT, RECIPE, *model, settings.to_json()])


def facts_of(loaded: LoadedStructures, key: str, settings: CtFeatureSettings) -> FeatureFacts:
    """Return what is the same for all volumes of an extraction."""
    observer = loaded.settings.model.observer
    return FeatureFacts(
        key=key,
        structures=loaded.structures,
        grid_zyx=loaded.model.encoder.grid_zyx,
        queries_per_structure=observer.queries_per_structure,
        width=observer.d_model,
        patches=settings.patches,
        most_per_structure=settings.most_per_structure,
    )


@dataclass(frozen=True)
class Extraction:
    """Stage 1, and where the features that it gives are kept.

    Attributes:
        loaded: stage 1.
        folder: of the extraction.
        facts: what is the same for all volumes.
        settings: section ``ct.report.features``.
        device: where the model is.
    """

    loaded: LoadedStructures
    folder: Path
    facts: FeatureFacts
    settings: CtFeatureSettings
    device: torch.device

    @classmethod
    def of(cls, structures: Path, folder: Path, settings: CtFeatureSettings, device: torch.device) -> "Extraction":
        """Load stage 1 (see :func:`d2rnet.ct.structure_model.model.load_structure_model`)."""
        loaded = load_structure_model(structures, device)
        return cls(loaded, folder, facts_of(loaded, extraction_key(structures, settings), settings), settings, device)

    def run(self, entries: Sequence[Entry], volumes: Path, *, loader_workers: int = 0) -> tuple[list[dict[str, Any]], int]:
        """Extract what is not up to date.

        Args:
            entries: of ct_annotation.json.
            volumes: folder that ``volume_path`` is relative to.
            loader_workers: processes that read volumes.

        Returns:
            A record per entry, and how many files were kept.

        Raises:
            DatasetError: volumes that cannot be used; all are listed.
        """
        sources = [volumes / entry["volume_path"] for entry in entries]
        targets = [feature_path(self.folder, self.facts.key, entry["volume_path"]) for entry in entries]
        hashes = [self._hash_if_up_to_date(*place) for place in zip(sources, targets, strict=True)]
        missing = [place for place, sha256 in enumerate(hashes) if sha256 is None]
        dataset = _Volumes([sources[place] for place in missing], self.loaded)
        loader = make_loader(dataset, [[place] for place in range(len(missing))], _only, workers=loader_workers)
        problems = Problems()
        looked = track(loader, total=len(missing), what="look at volumes", unit="volume")
        with WriteBehind() as write:
            for place, (volume, words) in zip(missing, looked, strict=True):
                complaint = words
                if volume is not None:
                    hashes[place] = words
                    complaint = self._look_and_write(
                        write, volume, words, entries[place]["id"], sources[place], targets[place]
                    )
                if complaint:
                    problems.add(
                        "unusable_volume",
                        file=sources[place],
                        record=entries[place]["id"],
                        got=complaint,
                        expected="a volume of ct_annotation.json that stage 1 can look at",
                        remedy="Mend it, or run 'd2rnet convert-ct-shard' and what follows it again.",
                    )
        problems.raise_if_any()
        lines = [
            {"id": entry["id"], "file_name": str(target.relative_to(self.folder)), "sha256": sha256}
            for entry, target, sha256 in zip(entries, targets, hashes, strict=True)
        ]
        return lines, len(entries) - len(missing)

    def look(self, volume: Tensor, name: str) -> tuple[Features, Tensor]:
        """Look at one volume.

        Args:
            volume: (1, Z, Y, X) in [-1, 1].
            name: of the volume.

        Returns:
            As :func:`d2rnet.ct.report_model.features.features_of`.

        Raises:
            DatasetError: as there.
        """
        dtype = AUTOCAST.get(self.settings.precision)
        with torch.no_grad(), torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            observation = self.loaded.model.observe(volume[None].to(self.device))
        return features_of(observation, self.settings, name=name)

    def _look_and_write(self, write: WriteBehind, volume: Tensor, sha256: str, name: str, source: Path, target: Path) -> str:
        """Look at a volume and have its features written; return a complaint, "" if there is none."""
        stamp = _stamp(source)
        try:
            features, attention = self.look(volume, name)
        except DatasetError as error:
            return str(error)
        metadata = {"key": self.facts.key, "volume": stamp, "sha256": sha256}
        write(write_features, target, features, attention, metadata=metadata)
        return ""

    def _hash_if_up_to_date(self, source: Path, target: Path) -> str | None:
        """Return the SHA-256 of the voxels that features were made from, if they are whole and of this file; None if not."""
        metadata = metadata_of(target) if target.is_file() else None
        if metadata is None or metadata.get("key") != self.facts.key or metadata.get("volume") != _stamp(source):
            return None
        return metadata.get("sha256")


def _stamp(source: Path) -> str:
    """Return what tells that a file has not changed: its size and last change."""
    size, changed = file_state(source)
    return f"{size}:{changed}"


def _only(samples: Sequence[tuple[Tensor | None, str]]) -> tuple[Tensor | None, str]:
    """Return the one sample of a batch."""
    (sample,) = samples
    return sample


def extract_ct_features(*, annotation: Path, shards: Sequence[Path], output: Path, settings: CtFeatureSettings) -> None:
    """Prove that the shards hold every volume once, and say what the features are: ``features.json``.

    Args:
        annotation: ct_annotation.json.
        shards: record of every shard.
        output: folder of the features.
        settings: section ``ct.report.features``.

    Raises:
        DatasetError: a shard is missing, there twice, cut, or of another run, model, annotation or setting; a volume is in
            none of them, or its features are no longer there.
    """
    runs = read_records(
        shards,
        command=SHARD_COMMAND,
        settings=settings,
        files={"annotation": sha256_file(annotation)},
        alike=(WEIGHTS, CONFIG),
        counted="volumes",
    )
    hashes: dict[str, str] = {}
    for path, run in zip(shards, runs, strict=True):
        before = len(hashes)
        for name, file_name, sha256 in _lines(path):
            if not (output / file_name).is_file():
                raise DatasetError(
                    f"{path}: volume {name}: {output / file_name} is not there any more. {advice(SHARD_COMMAND)}"
                )
            hashes[name] = sha256
        check_count(path, run, "volumes", len(hashes) - before)
    wanted = [entry["id"] for part in load_ct_annotation(annotation).values() for entry in part]
    if set(hashes) != set(wanted):
        lost = [name for name in wanted if name not in hashes]
        raise DatasetError(
            f"{annotation}: {len(lost)} of its {len(wanted)} volumes are in none of {len(shards)} shard(s)"
            f"{f', the first {lost[0]}' if lost else ''}, and {len(set(hashes) - set(wanted))} in the shards are not in it. "
            f"{advice(SHARD_COMMAND)}"
        )
    facts = _facts_of_record(runs[0], shards[0])
    digest = hashlib.sha256("".join(hashes[name] for name in wanted).encode()).hexdigest()
    write_json(output / INDEX, {"format": FORMAT, "facts": facts.to_json(), "volumes": len(wanted), "volumes_sha256": digest})
    write_run_record(
        output / "run.json",
        command=COMMAND,
        settings=settings,
        inputs={"annotation": annotation, **{f"shard_{number}": path for number, path in enumerate(shards, start=1)}},
        counts={"volumes": len(wanted), "shards": len(shards)},
    )
    log.info("features of %d volumes from %d shard(s), key %s: %s", len(wanted), len(shards), facts.key, output)


def _facts_of_record(run: Mapping[str, Any], path: Path) -> FeatureFacts:
    try:
        return FeatureFacts.of(run.get("facts"))
    except ValueError as error:
        raise DatasetError(f"{record_path(path)}: {error}. {advice(SHARD_COMMAND)}") from error


def _lines(path: Path) -> Iterator[tuple[str, str, str]]:
    """Yield id, file name and hash of the volumes of a shard.

    Raises:
        DatasetError: a line lacks one.
    """
    for number, line in enumerate(read_jsonl(path), start=1):
        values = [line.get(key) for key in ("id", "file_name", "sha256")]
        if not all(isinstance(value, str) for value in values) or not is_path_below(line["file_name"]):
            raise DatasetError(f"{path}: line {number}: expected id, file_name and sha256. {advice(SHARD_COMMAND)}")
        yield line["id"], line["file_name"], line["sha256"]
