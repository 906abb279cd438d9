"""Settings of the CNN-LSTM, tuned by its loss on the validation tracks with Optuna (Akiba et al. 2019).

Trials that are worse than the median of earlier ones at the same epoch are pruned. The study, a SQLite file, can be
resumed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musicclass.config import Config, from_dict, to_dict
from musicclass.datasets import Dataset
from musicclass.datasets.splits import Split
from musicclass.errors import ConfigError, import_optional
from musicclass.files import write_text
from musicclass.progress import ProgressFn, no_progress
from musicclass.training.networks import Monitor, Step, train_networks
from musicclass.training.tracks import LabelledTracks

if TYPE_CHECKING:
    from optuna import Study, Trial

STUDY, TRIALS, BEST, WORK = "study.db", "trials.csv", "best.toml", "work"
SPACE: dict[str, dict[str, Any]] = {  # setting -> arguments of Optuna's distribution
    "training.learning_rate": {"low": 3e-4, "high": 1e-2, "log": True},
    "training.weight_decay": {"low": 1e-5, "high": 1e-1, "log": True},
    "training.label_smoothing": {"low": 0.0, "high": 0.2},
    "model.dropout": {"low": 0.0, "high": 0.6},
    "model.lstm_units": {"choices": (32, 64, 128)},
    "augment.pitch_semitones": {"low": 0.0, "high": 4.0},
    "augment.time_stretch": {"low": 0.0, "high": 0.3},
    "augment.random_eq_db": {"low": 0.0, "high": 12.0},
    "augment.noise_std_db": {"low": 0.0, "high": 6.0},
    "augment.mixup": {"low": 0.0, "high": 0.4},
}
MIN_TRIALS, MIN_EPOCHS = 5, 3  # before the first trial is pruned


def tune(
    dataset: Dataset,
    split: Split,
    config: Config,
    out: Path,
    n_trials: int,
    names: Sequence[str] = (),
    monitor: Monitor | None = None,
    progress: ProgressFn = no_progress,
) -> Study:
    """Train until `n_trials` have been completed or pruned, with those of an earlier call in `out`.

    `names` are the settings of SPACE to tune; empty: all. Writes the study, a table of the trials and, as best.toml,
    the configuration of the best one. Test tracks aren't used. Raises ConfigError for a setting that isn't in SPACE, a
    configuration without a CNN-LSTM, and an `out` with a study of other settings or tracks.
    """
    optuna, network = import_optional("optuna", "tune"), _network(config, names)
    run = {"config": to_dict(config), "search": list(names), "train": list(split.train), "valid": list(split.valid)}
    study = _open_study(out, config, run)
    tracks = LabelledTracks.load(dataset, (*split.train, *split.valid), config, progress)
    training, valid = tracks.subset(split.train, "training"), tracks.subset(split.valid, "validation")
    monitor = monitor or Monitor()

    def objective(trial: Trial) -> float:
        alone = suggest(trial, config, names)
        alone = replace(alone, model=replace(alone.model, architecture=network, ensemble_size=1))

        def report(step: Step) -> None:
            monitor.report(step)
            if "val_loss" in step.metrics:
                trial.report(step.metrics["val_loss"], int(step.metrics["epoch"]))
                if trial.should_prune():
                    raise optuna.TrialPruned

        work = out / WORK
        shutil.rmtree(work, ignore_errors=True)  # of an interrupted trial, whose settings are lost
        try:
            name = f"trial {len(finished_trials(study)) + 1} of {n_trials}: "
            trained = train_networks(alone, training, valid, work, monitor._replace(report=report, prefix=name))
        except ConfigError:  # the loss became NaN
            raise optuna.TrialPruned from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return trained[network][0].history[-1]["val_loss"]

    while len(finished := finished_trials(study)) < n_trials:
        study.optimize(objective, n_trials=1, callbacks=[lambda study, _: _write_results(study, config, names, out)])
    if not any(trial.value is not None for trial in finished):
        raise ConfigError(f"{out}: the loss of no trial is finite; try a lower training.learning_rate")
    _write_results(study, config, names, out)
    return study


def _network(config: Config, names: Sequence[str]) -> str:
    """The branch that is tuned. Raises ConfigError without one, and for a name that isn't in SPACE."""
    if unknown := sorted(set(names) - set(SPACE)):
        raise ConfigError(f"{unknown[0]} can't be tuned; choose from {', '.join(SPACE)}")
    for branch in config.model.branches:
        if branch in ("cnn_lstm", "baseline"):
            return branch
    raise ConfigError(f"{config.model.architecture} has no CNN-LSTM to tune; choose --config default or baseline")


def _open_study(out: Path, config: Config, run: dict[str, Any]) -> Study:
    """A study in the folder, new or the one there. Raises ConfigError where that is of another `run`."""
    optuna = import_optional("optuna", "tune")
    out.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study: Study = optuna.create_study(
        storage=f"sqlite:///{(out / STUDY).resolve()}",
        study_name="musicclass",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=config.training.seed),
        pruner=optuna.pruners.MedianPruner(MIN_TRIALS, MIN_EPOCHS),
    )
    if study.user_attrs.get("run", run) != run:
        raise ConfigError(f"{out / STUDY}: has other settings or tracks; use these again, or choose another --out")
    study.set_user_attr("run", run)
    return study


def suggest(trial: Trial, config: Config, names: Sequence[str] = ()) -> Config:
    """The configuration with values that the trial suggests, or has."""
    sections: dict[str, dict[str, Any]] = {}
    for name in names or SPACE:
        options = SPACE[name]
        value = (trial.suggest_categorical if "choices" in options else trial.suggest_float)(name, **options)
        section, key = name.split(".")
        sections.setdefault(section, {})[key] = value
    return from_dict(Config, sections, config)


def finished_trials(study: Study) -> list[Any]:
    """The trials that were completed or pruned; those that were interrupted don't count."""
    return [trial for trial in study.trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _write_results(study: Study, config: Config, names: Sequence[str], out: Path) -> None:
    """trials.csv, and best.toml once a trial is complete."""
    optuna = import_optional("optuna", "tune")
    names = names or tuple(SPACE)
    rows = [["trial", "state", "epochs", "validation_loss", *names]]
    for trial in finished_trials(study):
        loss = trial.value if trial.value is not None else trial.intermediate_values.get(trial.last_step, "")
        values = [trial.number + 1, trial.state.name.lower(), trial.last_step or 0, loss]
        rows.append([str(value) for value in (*values, *(trial.params.get(name, "") for name in names))])
    write_text(out / TRIALS, "".join(",".join(row) + "\n" for row in rows))
    if any(trial.state.name == "COMPLETE" for trial in study.trials):
        best = suggest(optuna.trial.FixedTrial(study.best_params), config, names)
        write_text(out / BEST, to_toml(best))


def to_toml(config: Config) -> str:
    """A configuration that `load_config` reads."""
    sections = []
    for section, settings in to_dict(config).items():
        lines = (f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in settings.items())
        sections.append(f"[{section}]\n" + "".join(lines))
    return "\n".join(sections)
