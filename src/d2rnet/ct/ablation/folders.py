"""Where the parts of an ablation's arms lie: ``<part>/<arm>/seed_<n>``, with the first arm that is alike in the part."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2rnet.ct.ablation.design import ArmPlan

STRUCTURES, FEATURES, CELLS = "structures", "features", "cells"


@dataclass(frozen=True)
class Folders:
    """The folders of the arms that are run.

    Attributes:
        root: folder of the ablation.
        plans: of :func:`d2rnet.ct.ablation.design.plan_arms`.
    """

    root: Path
    plans: Mapping[str, ArmPlan]

    def place(self, part: str, arm: str, seed: int | str) -> Path:
        """Return the folder that holds a part of an arm: its structures, features or cells."""
        return self.root / part / getattr(self.plans[arm], part) / f"seed_{seed}"

    def all_of(self, part: str) -> dict[tuple[str, int], Path]:
        """Return arm and seed -> folder of a part: those that any arm asks for, each once."""
        asked = {(getattr(plan, part), seed) for plan in self.plans.values() for seed in plan.seeds}
        order = sorted(asked, key=lambda one: ([*self.plans].index(one[0]), one[1]))
        return {(arm, seed): self.place(part, arm, seed) for arm, seed in order}

    def files(self, part: str, name: str) -> list[str]:
        """Return a file of each folder of a part."""
        return [str(folder / name) for folder in self.all_of(part).values()]

    def of_first(self, part: str, arm: str, name: str) -> str:
        """Return a file of an arm's first seed."""
        return str(self.place(part, arm, self.plans[arm].seeds[0]) / name)

    def of_job(self, part: str, name: str) -> Callable[[Any], str]:
        """Return a function of a job's wildcards ``arm`` and ``seed``: the file of that name that it reads."""
        return lambda wildcards: str(self.place(part, wildcards.arm, wildcards.seed) / name)
