"""The short way, as the student's project had it:

python main.py                      plots of the model: accuracy and loss against epochs, confusion matrix
python main.py --save               the same, written to output_figures/
python main.py --retrain            train your own model on data/genres_original
python main.py --predict song.mp3   tell the genre of a file

Settings can be changed: python main.py --retrain --config student --set training.epochs=30
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from musicclass.bundle import SIDE_NAMES, judged_side, load_bundle
from musicclass.cli import main as musicclass
from musicclass.errors import MusicClassError

DATA = Path("data/genres_original")
OWN_MODEL = Path("models/mine")
FIGURES = Path("output_figures")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help=f"write the plots to {FIGURES}/ instead of showing them")
    parser.add_argument("--retrain", action="store_true", help=f"train on {DATA}")
    parser.add_argument("--predict", metavar="FILE", nargs="+", help="tell the genre of files")
    parser.add_argument("--split", default="random", help="with --retrain: random, artist, filtered or FILE.csv")
    parser.add_argument("--config", default="default", help="with --retrain: default, student or a TOML file")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="with --retrain: a setting")
    options = parser.parse_args()
    if options.retrain:
        status = retrain(options)
        if status:
            return status
    model = str(OWN_MODEL) if (OWN_MODEL / "card.json").exists() else "gtzan"
    if options.predict:
        return run("predict", "--model", model, "--", *options.predict)
    return show(model, options.save)


def run(*arguments: str) -> int:
    """The same as `musicclass …` on the command line."""
    sys.argv = ["musicclass", *arguments]
    return musicclass()


def retrain(options: argparse.Namespace) -> int:
    """Train beside the user's model, and put the new one in its place only when it is whole."""
    fresh, old = OWN_MODEL.with_name("mine.new"), OWN_MODEL.with_name("mine.old")
    if not DATA.is_dir():
        print(f"{DATA}: no such folder; put GTZAN's genres there, or run this where that folder is", file=sys.stderr)
        return 2
    settings = [part for setting in options.set for part in ("--set", setting)]
    resume = ["--resume"] if any(fresh.glob("checkpoint-*.npz")) else []
    if not resume:
        shutil.rmtree(fresh, ignore_errors=True)
    out = ("--out", str(fresh), "--name", OWN_MODEL.name)
    status = run("train", str(DATA), *out, "--split", options.split, "--config", options.config, *settings, *resume)
    if status:
        return status
    shutil.rmtree(old, ignore_errors=True)
    if OWN_MODEL.exists():
        OWN_MODEL.rename(old)
    fresh.rename(OWN_MODEL)
    shutil.rmtree(old, ignore_errors=True)
    print(f"{OWN_MODEL} is the model from now on; delete that folder to go back to the pretrained one")
    return 0


def show(model: str, save: bool) -> int:
    """The plots of a model, in windows or as files."""
    from musicclass import plots

    bundle = load_bundle(model)
    status = run("evaluate", model)
    side = judged_side(bundle.card)
    title = f"{bundle.name}: {SIDE_NAMES[side]} tracks"
    figures = {
        "history.png": plots.history(bundle.card["history"], bundle.name),
        "confusion_matrix.png": plots.confusion_matrix(bundle.card["metrics"][side]["confusion"], bundle.genres, title),
    }
    if save or not plots.in_windows(list(figures.values())):
        if not save:
            print(f"no display here, so the plots go to {FIGURES}/", file=sys.stderr)
        for name, figure in figures.items():
            print(f"{plots.save(figure, FIGURES / name)} written")
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MusicClassError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
