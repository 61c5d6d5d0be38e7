"""Loggers of a job: CSV, or Weights & Biases. A tracker that fails is reported once and never fails or loses a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from socket import create_connection
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from actmax.records.store import Record

log = logging.getLogger(__name__)

PATIENCE = 5
"""Seconds that W&B's server has to take a connection, and then to begin a run."""


class Tracker:
    """Takes the measures and the result of a job; this one keeps nothing."""

    @property
    def loggers(self) -> list[Logger]:
        """Loggers for the Lightning trainer."""
        return []

    def publish(self, record: Record, summary: Mapping[str, Any]) -> None:
        """Takes the record and the summary of a complete job."""

    def finish(self, exit_code: int) -> None:
        """Ends the run; called once, also after a failure."""


class CsvTracker(Tracker):
    """Running measures in `logs/version_N/metrics.csv`; a resumed run writes the next N."""

    def __init__(self, record: Record) -> None:
        self._logger = CSVLogger(record.folder, name=record.logs.name)

    @property
    def loggers(self) -> list[Logger]:
        """The CSV logger, for the Lightning trainer."""
        return [self._logger]

    def finish(self, exit_code: int) -> None:  # noqa: ARG002
        """Writes what is still in memory."""
        self._logger.save()


class WandbTracker(Tracker):
    """One Weights & Biases run per job: curves, the token table, the summary, the record as an artifact.

    Args:
        record: the job's record; the run's files lie in its folder.
        project: project of the run.
        entity: user or team; None for the default one.
        group: name of the sweep.
        name: name of the run.
        tags: tags of the run, to filter by.
        job_type: name of the task.
        config: the resolved config, as plain containers.
        state: says in words what a summary holds.
        draw: gives a record's figures as PNG files, which are logged; None logs none.
    """

    def __init__(
        self,
        record: Record,
        *,
        project: str,
        entity: str | None,
        group: str,
        name: str,
        tags: Sequence[str],
        job_type: str,
        config: Mapping[str, Any],
        state: Callable[[Mapping[str, Any]], str],
        draw: Callable[[Record], Sequence[Path]] | None = None,
    ) -> None:
        self._draw, self._state = draw, state
        self.run: Any = None
        self.failed = False
        # artifacts are staged in the user's home unless this is set
        self._data_dir = os.environ.get("WANDB_DATA_DIR")
        os.environ["WANDB_DATA_DIR"] = str(record.folder.resolve() / "wandb")
        settings = {
            "project": project,
            "entity": entity,
            "group": group,
            "name": name,
            "tags": list(tags),
            "config": dict(config),
            "dir": str(record.folder.resolve()),
            "job_type": job_type,
        }
        self._guard("start", lambda: self._start(settings))

    def _start(self, settings: Mapping[str, Any]) -> None:
        import wandb

        if wandb.run is not None:
            wandb.finish()  # a run that somebody left open would swallow this one
        mode, reason = _mode()
        if mode == "online":
            try:
                self.run = wandb.init(**settings, mode=mode, settings=wandb.Settings(init_timeout=PATIENCE))
            except (wandb.Error, OSError) as error:
                mode, reason = "offline", f"W&B could not be reached ({error})"
        if self.run is None:
            (Path(settings["dir"]) / "wandb").mkdir(exist_ok=True)
            self.run = wandb.init(**settings, mode=mode)
        if mode == "offline":
            log.info("W&B is offline: %s. Upload the run later with: wandb sync %s", reason, Path(self.run.dir).parent)

    @property
    def loggers(self) -> list[Logger]:
        """A Lightning logger on the run, if it started."""
        return [] if self.run is None else [_GuardedWandbLogger(self.run, self._guard)]

    def publish(self, record: Record, summary: Mapping[str, Any]) -> None:
        """Logs the summary, the token table and the record."""
        if self.run is not None:
            self._guard("publish", lambda: self._publish(record, summary))

    def _publish(self, record: Record, summary: Mapping[str, Any]) -> None:
        import wandb

        shown = {key: value for key, value in summary.items() if key not in ("versions", "findings")}
        self.run.summary.update({**shown, "statement": self._state(summary)})
        if record.path("tokens.parquet").exists():
            tokens = record.table("tokens").astype({"layer": "object"})
            tokens = tokens.loc[~tokens["control"]] if "control" in tokens else tokens
            self.run.log({"tokens": wandb.Table(dataframe=tokens)})
        if self._draw is not None:
            self.run.log({f"figures/{file.stem}": wandb.Image(str(file)) for file in self._draw(record)})
        artifact = wandb.Artifact(f"record-{summary['job_hash'][:12]}", type="record")
        for file in sorted(record.folder.glob("*.*")):
            if file.is_file() and not file.name.startswith("."):
                artifact.add_file(str(file))
        self.run.log_artifact(artifact)

    def finish(self, exit_code: int) -> None:
        """Ends the run with the job's exit code."""
        if self.run is not None:
            self._guard("finish", lambda: self.run.finish(exit_code=exit_code))
        if self._data_dir is None:
            os.environ.pop("WANDB_DATA_DIR", None)
        else:
            os.environ["WANDB_DATA_DIR"] = self._data_dir

    def _guard(self, what: str, act: Callable[[], None]) -> None:
        """Does something to W&B; whatever goes wrong there is a warning, and the end of tracking."""
        if self.failed and what != "finish":
            return
        try:
            act()
        except Exception as error:  # the one place where any error is right: the job must not feel it
            if self.failed:
                return
            self.failed = True
            log.warning("W&B failed to %s (%s: %s); the job goes on untracked", what, type(error).__name__, error)


class _GuardedWandbLogger(WandbLogger):
    """Lightning's W&B logger, which stops logging at the first error."""

    def __init__(self, run: Any, guard: Callable[[str, Callable[[], None]], None]) -> None:
        super().__init__(experiment=run)
        self._guard = guard

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs running measures; an error ends the tracking."""
        self._guard("log", lambda: super(_GuardedWandbLogger, self).log_metrics(metrics, step))


def _answers(place: str) -> bool:
    """Whether a server, or the proxy before it, takes a connection; W&B itself tries for minutes."""
    asked = urlsplit(place)
    if (proxy := getproxies().get(asked.scheme)) and not proxy_bypass(asked.hostname or ""):
        asked = urlsplit(proxy)
    host, port = asked.hostname or "", asked.port or (443 if asked.scheme == "https" else 80)
    connected = Event()

    def connect() -> None:
        with suppress(OSError), create_connection((host, port), timeout=PATIENCE):
            connected.set()

    asking = Thread(target=connect, daemon=True)  # a name that no server resolves takes as long as it likes
    asking.start()
    asking.join(PATIENCE)
    return connected.is_set()


def _mode() -> tuple[Any, str]:
    """Online or offline, and why."""
    import wandb

    named = os.environ.get("WANDB_MODE")
    place = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    if named and named != "online":
        return named, f"WANDB_MODE={named}"
    if not _answers(place):
        return "offline", f"{place} could not be reached within {PATIENCE} seconds"
    try:
        logged_in = bool(named) or wandb.login(prompt=False)
    except wandb.Error as error:
        return "offline", f"the login was refused ({error})"
    return ("online", "you are logged in") if logged_in else ("offline", "nobody is logged in (run `wandb login`)")
