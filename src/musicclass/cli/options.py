"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Folder of a saved model, or name of a pretrained model.")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", "-j", min=1, help="Worker processes; by default, one per core.")
]
TimeoutOption = Annotated[float, typer.Option(min=1, help="Seconds allowed per file.")]
MemoryOption = Annotated[
    float, typer.Option("--worker-memory-gb", min=0.3, help="Memory allowed per worker process, in GB.")
]
MinimumOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help='Predict "unknown" below this confidence; by default, below familiarity 0.5.'),
]
SplitOption = Annotated[str, typer.Option(help="auto, random, artist, filtered, or FILE.csv (track, split).")]
KindOption = Annotated[str, typer.Option("--dataset", help="archive, gtzan, folder, labels, or auto.")]
ArtistsOption = Annotated[Path | None, typer.Option(help="CSV (track, artist) for a folder or labels.")]
ConfigOption = Annotated[
    str | None,
    typer.Option("--config", help="Preset (default, transfer, music, gtzan, cnn_lstm, lda, baseline) or TOML file."),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="Override a setting, such as training.epochs=50; repeatable.")
]
DataArgument = Annotated[
    Path,
    typer.Argument(
        help="GTZAN, a folder with one subfolder per genre, a feature archive, or a CSV of labels.", metavar="DATA"
    ),
]
DataArguments = Annotated[
    list[Path],
    typer.Argument(
        help="GTZAN, a folder with one subfolder per genre, a feature archive, or a CSV of labels; several are joined.",
        metavar="DATA...",
    ),
]
