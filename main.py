"""The short way: the student's four commands, which call the command line `musicclass`.

python main.py                      metrics and plots of the model: accuracy and loss against epochs, confusion matrix
python main.py --save               the same, with the plots written to output_figures/
python main.py --retrain            train a model on data/genres_original, used from then on
python main.py --predict song.mp3   predict the genre of files

--retrain takes the options of `musicclass train`: python main.py --retrain --config baseline --set training.epochs=30
"""

import argparse
import sys
from pathlib import Path

from musicclass import load_model, plots
from musicclass.cli.app import main as musicclass
from musicclass.cli.evaluations import stored_evaluations
from musicclass.evaluation.report import summarize_accuracy

DATA, MODELS, FIGURES = Path("data/genres_original"), Path("models"), Path("output_figures")


def run(*arguments: str) -> int:
    sys.argv = ["musicclass", *arguments]
    return musicclass()


def show(name: str, save: bool) -> int:
    model = load_model(name)
    *_, last = evaluations = stored_evaluations(model)
    title = f"{model.name}: {summarize_accuracy(evaluations[0])}"
    matrix = plots.confusion_matrix(last.metrics["confusion_matrix"], model.genres, f"{title}\n{last.title}")
    history = plots.history(model.read_table("history.csv"), title, last.metrics)
    figures = {"history.png": history, "confusion_matrix.png": matrix}
    if save or not plots.show(list(figures.values())):
        for file, figure in figures.items():
            print(f"{plots.save(figure, FIGURES / file)} written")
    return 0


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--save", action="store_true", help=f"write the plots to {FIGURES}/ instead of showing them")
parser.add_argument("--retrain", action="store_true", help=f"train on {DATA}")
parser.add_argument("--predict", metavar="FILE", nargs="+", help="predict the genre of files")
options, train_options = parser.parse_known_args()
trained = sorted(path.parent for path in MODELS.glob("mine-*/card.json"))
if options.retrain:
    out = MODELS / f"mine-{int(trained[-1].name[5:]) + 1 if trained else 1:03}"
    resume = ["--resume"] if out.exists() else []
    sys.exit(run("train", str(DATA), "--out", str(out), *resume, *train_options) or show(str(out), options.save))
elif train_options:
    parser.error(f"{train_options[0]} is for --retrain")
model = str(trained[-1]) if trained else "gtzan"
if options.predict:
    sys.exit(run("predict", "--model", model, "--", *options.predict))
sys.exit(run("evaluate", model) or show(model, options.save))
