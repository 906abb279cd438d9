"""`musicclass train`, `musicclass tune`, `musicclass cross-validate` and `musicclass extract-features`."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from musicclass.cli.options import ArtistsOption, ConfigOption, DataArguments, KindOption, SetOption, SplitOption
from musicclass.errors import import_optional

if TYPE_CHECKING:
    from musicclass.config import Config
    from musicclass.datasets import Dataset
    from musicclass.datasets.splits import Split
    from musicclass.training.networks import Monitor, Step

SplitSeedOption = Annotated[int, typer.Option(help="Seed of a random or artist split.")]
TestSizeOption = Annotated[
    float | None,
    typer.Option(
        min=0, max=0.4, help="Share of tracks for testing; 0: all are trained on. Default: 0 with folds, else 0.15."
    ),
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")]
ByOption = Annotated[
    Literal["artist", "track", "source"],
    typer.Option(
        help="Keep each artist in one fold, or only each track (to measure leakage); or leave out each source."
    ),
]


def train(
    data: DataArguments,
    out: Annotated[Path, typer.Option(help="Folder for the model, its card and its plots.")],
    split: SplitOption = "auto",
    split_seed: SplitSeedOption = 42,
    config: ConfigOption = None,
    settings: SetOption = None,
    resume: ResumeOption = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write logs into OUT/tensorboard.")] = False,
    dataset: KindOption = "auto",
    artists: ArtistsOption = None,
    name: Annotated[str, typer.Option(help="The model's name; by default, that of its folder.")] = "",
    test_size: TestSizeOption = None,
    n_seeds: Annotated[int, typer.Option(min=1, help="Train this many models, with other seeds, below OUT.")] = 1,
) -> None:
    """Train a model, and evaluate it once on its test tracks."""
    _check_writable(out)
    chosen, tracks, parts = _open(data, dataset, artists, split, split_seed, test_size, config, settings)
    runs = {out: chosen}
    if n_seeds > 1:  # networks of different models have different seeds
        seeds = range(1, 1 + n_seeds * chosen.model.ensemble_size, chosen.model.ensemble_size)
        runs = {out / f"seed-{i}": replace(chosen, training=replace(chosen.training, seed=i)) for i in seeds}
    with _training(chosen, out, out / "tensorboard" if tensorboard else None) as monitor:
        from musicclass.cli.evaluations import show_evaluations, stored_evaluations
        from musicclass.progress import progress_bar
        from musicclass.training.train import train as train_model

        for folder, config_of_run in runs.items():
            if n_seeds > 1 and resume and (folder / "card.json").exists():
                continue
            saved = train_model(tracks, parts, config_of_run, folder, name, resume, monitor, progress_bar)
            show_evaluations(saved, stored_evaluations(saved))
    print(branch_summary(saved.card), file=sys.stderr)
    hint = f"evaluate {out}" if n_seeds > 1 else f"predict --model {out.resolve()} FILE"
    print(f"{out} written; try: musicclass {hint}", file=sys.stderr)


def tune(
    data: DataArguments,
    out: Annotated[Path, typer.Option(help="Folder for the study, a table of its trials, and best.toml.")],
    trials: Annotated[int, typer.Option(min=1, help="Trials in all; those in OUT count.")] = 30,
    search: Annotated[
        list[str] | None,
        typer.Option(help="A setting to tune, such as training.learning_rate; repeatable. Default: ten of them."),
    ] = None,
    split: SplitOption = "auto",
    split_seed: SplitSeedOption = 42,
    config: ConfigOption = "default",
    settings: SetOption = None,
    dataset: KindOption = "auto",
    artists: ArtistsOption = None,
) -> None:
    """Tune settings of the CNN-LSTM on the validation tracks, with early pruning. The same command resumes it."""
    import_optional("optuna", "tune")
    _check_writable(out)
    from musicclass.datasets.splits import TEST_SIZE

    chosen, tracks, parts = _open(data, dataset, artists, split, split_seed, TEST_SIZE, config, settings)
    with _training(chosen, out, resume="repeat the command") as monitor:
        from musicclass.progress import progress_bar
        from musicclass.training import tune as tuning

        study = tuning.tune(tracks, parts, chosen, out, trials, search or (), monitor, progress_bar)
    for name, value in study.best_params.items():
        print(f"{name} = {value}")
    print(f"trial {study.best_trial.number + 1} of {trials}: validation loss {study.best_value:.3f}")
    print(f"{out} written; try: musicclass train DATA --config {shlex.quote(str(out / tuning.BEST))}", file=sys.stderr)


def cross_validate(
    data: DataArguments,
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv and metrics.json.")],
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    by: ByOption = "artist",
    leave_out: Annotated[str | None, typer.Option(metavar="GENRE", help="Exclude a genre: is it unfamiliar?")] = None,
    split: SplitOption = "auto",
    split_seed: SplitSeedOption = 42,
    config: ConfigOption = None,
    settings: SetOption = None,
    resume: ResumeOption = False,
    dataset: KindOption = "auto",
    artists: ArtistsOption = None,
) -> None:
    """Evaluate a configuration by cross-validation. The folds consist of a split's training and validation tracks."""
    _check_writable(out)
    chosen, tracks, parts = _open(data, dataset, artists, split, split_seed, 0, config, settings)
    with _training(chosen, out) as monitor:
        from musicclass.progress import progress_bar
        from musicclass.training import cross_validation

        ids = (*parts.train, *parts.valid)
        options = (resume, monitor, progress_bar, leave_out)
        result = cross_validation.run(tracks, ids, folds, by, chosen, out, *options)
    from musicclass.cli.evaluations import evaluation_table
    from musicclass.evaluation.report import Evaluation, summarize_accuracy

    name = chosen.model.architecture
    title = f"{name}: cross-validation by {by}, {folds} folds of {tracks.name}"
    evaluation_table(Evaluation(title, "cv", result.metrics[name], result.records), result.genres)
    for source, metrics in result.metrics[name].get("sources", {}).items():
        print(f"{source}: {summarize_accuracy(Evaluation(source, 'cv', metrics, []))}")
    for branch, metrics in list(result.metrics.items())[1:]:
        weight = f"; weight {result.branch_weights[branch]:.2f}" if branch in result.branch_weights else ""
        print(f"{branch} alone: {summarize_accuracy(Evaluation(branch, 'cv', metrics, []))}{weight}")
    if result.auroc is not None:
        print(f"familiarity, held-out tracks against {leave_out}, which isn't in training: AUROC {result.auroc:.2f}")
    print(f"{out} written", file=sys.stderr)


def extract_features(
    data: DataArguments,
    out: Annotated[Path, typer.Option("--out", "-o", help="The archive (.npz) to write.")],
    config: ConfigOption = None,
    settings: SetOption = None,
    dataset: KindOption = "auto",
    artists: ArtistsOption = None,
) -> None:
    """Write the features of data sets to an archive. `train` and `evaluate` read it instead of the audio."""
    from musicclass.cli.evaluations import open_data
    from musicclass.config import load_config
    from musicclass.datasets import feature_archive
    from musicclass.progress import progress_bar

    if out.suffix != ".npz":
        raise typer.BadParameter(f"{out}: the archive's name must end in .npz")
    chosen = load_config(config, tuple(settings or ()))
    tracks = open_data(data, dataset, artists)
    bar = progress_bar(tracks.tracks, "Features")
    written = tracks.iter_features(bar, chosen.features, chosen.model.uses_tagger)
    count = feature_archive.write(out, written, chosen.features)
    print(f"{out}: {count} of {len(tracks.tracks)} tracks", file=sys.stderr)
    if count < len(tracks.tracks):
        raise typer.Exit(1)


def _check_writable(out: Path) -> None:
    """Raise BadParameter where the folder `out` can't be written, before hours of training."""
    existing = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise typer.BadParameter(f"--out {out}: can't be written ({error.strerror}); choose another folder") from None


def _open(
    data: list[Path],
    kind: str,
    artists: Path | None,
    split: str,
    seed: int,
    test_size: float | None,
    preset: str | None,
    settings: list[str] | None,
) -> tuple[Config, Dataset, Split]:
    """The configuration (by default that of `_default_preset`), the data sets as one, and its split."""
    from musicclass.cli.evaluations import open_data
    from musicclass.config import load_config, presets
    from musicclass.datasets import keep_genres
    from musicclass.datasets.splits import TEST_SIZE, make_split

    config = load_config(preset, tuple(settings or ()))  # an invalid one is found before files are read
    tracks = open_data(data, kind, artists)
    if preset is None:
        preset, reason = _default_preset(tracks)
        print(f"configuration {preset}, {reason}; --config has others: {', '.join(presets())}", file=sys.stderr)
        config = load_config(preset, tuple(settings or ()))
    tracks = keep_genres(tracks, config.training.genres)
    if test_size is None:
        test_size = 0 if config.training.calibration_folds else TEST_SIZE
    parts = make_split(tracks, split, seed, test_size)
    counts = ", ".join(f"{len(ids)} {subset}" for subset, ids in parts.subsets().items())
    print(f"{tracks.name}: {len(tracks.genres)} genres; {parts.name} split: {counts}", file=sys.stderr)
    return config, tracks, parts


def _default_preset(dataset: Dataset) -> tuple[str, str]:
    """The preset for a data set, and why."""
    from musicclass.datasets import gtzan
    from musicclass.saved_model import BACKBONE, BASE_MODEL, PRETRAINED

    if any(track.id in gtzan.index() for track in dataset.tracks):
        return "default", "as the data include GTZAN"
    if not (PRETRAINED / BASE_MODEL / BACKBONE).exists():
        return "default", f"as the pretrained model {BASE_MODEL} has no {BACKBONE} here"
    return "transfer", f"classifiers of musicnn's embeddings and of the CNN-LSTM of {BASE_MODEL}, for few clips as well"


def branch_summary(card: dict[str, Any]) -> str:
    """The branches, how they were chosen, and what each reaches alone.

    "branches: lda 0.21, tagger 0.79 (C 0.01); weights fitted on 60 …", then "in cross-validation: lda alone 45.0%, …".
    """
    penalties = {member["architecture"]: f" (C {member['c']:g})" for member in card["members"] if "c" in member}
    weights = card["calibration"]["branch_weights"].items()
    branches = ", ".join(f"{name} {weight:.2f}{penalties.get(name, '')}" for name, weight in weights)
    chosen = "; C chosen by cross-validation" if penalties and not card["config"]["model"]["tagger_c"] else ""
    text = f"branches: {branches}; weights fitted on {card['calibration']['data']}{chosen}"
    if not (alone := card["calibration"].get("branches_alone")):
        return text
    results = {**{f"{branch} alone": metrics for branch, metrics in alone.items()}, "together": card["metrics"]["cv"]}
    compared = (f"{name} {item['accuracy']:.1%}, log loss {item['log_loss']:.3f}" for name, item in results.items())
    return f"{text}\nin cross-validation: {'; '.join(compared)}"


def _prepare(config: Config) -> None:
    """Check what training needs; set up Keras on TensorFlow, unless $KERAS_BACKEND has another, without its log."""
    for module in ("scipy", "sklearn", "matplotlib", "onnx"):
        if importlib.util.find_spec(module) is None:
            import_optional(module, "transfer")
    if not config.model.uses_keras:
        return
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    for module in ("tf2onnx", "tensorflow"):
        if importlib.util.find_spec(module) is None:
            import_optional(module, "train")
    import_optional("keras", "train")


@contextlib.contextmanager
def _training(
    config: Config, out: Path, tensorboard: Path | None = None, resume: str = "add --resume to the same command"
) -> Iterator[Monitor]:
    """Show a progress bar for each network and a line for each epoch; say how to resume."""
    _prepare(config)
    from musicclass.progress import make_progress
    from musicclass.training.networks import Monitor

    shown = ""

    def report(step: Step) -> None:
        nonlocal shown
        if step.network != shown:
            bar.reset(task, description=step.network, total=step.total)
            shown = step.network
        bar.update(task, completed=step.done, visible=True)
        if step.metrics:
            bar.console.print(_epoch_line(step), soft_wrap=True, markup=False, highlight=False)

    try:
        with make_progress() as bar:
            task = bar.add_task("", visible=False)
            yield Monitor(report, tensorboard, history=out / "history.png")
    except (KeyboardInterrupt, RuntimeError) as error:
        if "KeyboardInterrupt" not in repr(error):  # TensorFlow may wrap it in an error of its own
            raise
        print(f"interrupted; {resume} to continue with {out}", file=sys.stderr)
        raise KeyboardInterrupt from None


def _epoch_line(step: Step) -> str:
    epoch, *metrics = step.metrics.items()
    values = ", ".join(f"{name.replace('val_', 'validation ')} {value:.3f}" for name, value in sorted(metrics))
    return f"{step.network}: epoch {epoch[1]:g}: {values}"
