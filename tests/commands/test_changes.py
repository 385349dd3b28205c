"""`genserve changes`: a row for each change, as measured apart from the program, and mistakes in one line."""

import shutil
from pathlib import Path

import pytest
import torch

from genserve.commands import changes
from genserve.files import write_json
from genserve.measure import metrics
from genserve.measure.changes import CHANGES, changed
from genserve.measure.features import features_of, read_stats
from genserve.measure.reference import Reference
from genserve.runs.directory import load_classifier, read_config


@pytest.fixture
def judge(classifier: Path, tmp_path: Path) -> Path:
    """A judge with the weights of the classifier."""
    judge = shutil.copytree(classifier, tmp_path / "judge-digits")
    config = read_config(judge)
    config["model"]["judge"] = True
    write_json(judge / "config.json", config)
    return judge


def test_each_change_has_its_distance_in_both_spaces(
    judge: Path, classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes.run(["--judge", str(judge), "--classifier", str(classifier), "--n", "200"])
    _, _, *lines = capsys.readouterr().out.splitlines()
    cells = (line[2:-2].split(" | ") for line in lines)
    rows = {name: [float(number) for number in numbers] for name, *numbers in cells}
    assert rows.keys() == CHANGES.keys()
    network, train = load_classifier(classifier), read_stats(classifier).train
    held_out = Reference(classifier, None, torch.device("cpu")).held_out(200)
    x, y = held_out["held-out, in fair shares"]
    assert len(y.unique()) == 10
    plain = metrics.frechet_between(metrics.moments(features_of(network, x)), train)
    for name, (by_judge, times, by_classifier, _) in rows.items():
        moments = metrics.moments(features_of(network, changed(x, name)))
        expected = metrics.frechet_between(moments, train)
        assert by_judge == by_classifier == pytest.approx(expected, abs=6e-4)
        assert times == pytest.approx(expected / plain, abs=0.06)
    assert rows["none"][1] == 1
    assert rows["box blur, 3 x 3"][1] > 2


def test_what_is_no_judge_or_has_no_images_is_one_sentence(judge: Path, classifier: Path) -> None:
    with pytest.raises(SystemExit, match="is a classifier that may have chosen"):
        changes.run(["--judge", str(classifier), "--classifier", str(classifier)])
    with pytest.raises(SystemExit, match="n must be above 5"):
        changes.run(["--judge", str(judge), "--n", "5"])
