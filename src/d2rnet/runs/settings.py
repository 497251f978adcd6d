"""What never changes a result: where and with how much a run computes."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from d2rnet.settings import Section, each_once, setting


class LoaderRuntime(Section):
    """How images are loaded."""

    place = "runtime"

    loader_workers: int = setting(0, ge=0)
    """Processes that prepare batches; the result does not depend on it."""


class SchedulerSettings(Section):
    """Devices, shards, processes."""

    place = "runtime"

    device: str = setting("auto")
    """auto, cpu, cuda or cuda:N. auto takes a GPU if there is one; with gpus above 0 a job without is an error, as with
    cuda."""
    gpus: int = setting(0, ge=0)
    """GPUs a training job asks the scheduler for; it runs a process on each, which share every batch. Prediction and scoring
    jobs take one at most."""
    training_hours: int = setting(96, ge=1)
    """Hours that a training job asks the scheduler for. One that is stopped at their end has saved its state and goes on at
    the next attempt."""
    conversion_shards: int = setting(1, ge=1)
    """Shards of the conversion of a source's images; each is a job of runtime.workers processes. Another number of shards,
    here and below, counts once the joined result is gone or a setting that decides it has changed."""
    ct_conversion_shards: int = setting(1, ge=1)
    """Shards of the conversion of CT volumes; each is a job of runtime.workers processes."""
    prediction_shards: int = setting(1, ge=1)
    """Shards of predict_boxes."""
    generation_shards: int = setting(1, ge=1)
    """Shards of generate_reports."""
    ct_extraction_shards: int = setting(2, ge=1)
    """Shards of extract_ct_features; each is a job of one CPU thread."""
    ct_generation_shards: int = setting(1, ge=1)
    """Shards of generate_ct_reports."""
    workers: int = setting(2, ge=1)
    """Processes of data rules."""
    threads: int = setting(2, ge=1)
    """CPU threads of training and prediction rules."""
    container: str = setting("")
    """Image that each rule runs in with --sdm apptainer: an image file, or an address such as docker://...; empty for none. A
    path is looked up from the working directory. Another image is another software environment to Snakemake: jobs that
    --sdm apptainer ran are run again."""
    delete_after_success: Annotated[
        tuple[Literal["stale", "finished", "caches", "shards"], ...], AfterValidator(each_once)
    ] = setting((), json_schema_extra={"uniqueItems": True})
    """What a workflow deletes once everything asked for is made, as d2rnet clean does: stale, finished, caches, shards. Empty
    keeps everything, so that a deleted result comes back from its work folder."""

    @property
    def device_of_jobs(self) -> str:
        """What jobs get as their device: one that a GPU was asked for has one or ends with an error, not in weeks."""
        return "cuda" if self.gpus and self.device == "auto" else self.device
