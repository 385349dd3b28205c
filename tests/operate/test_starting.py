"""For how long a start goes on, and what it says of models that are not ready by then."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from real_server import ROOT
from stand_in import standing_in, version

from genserve.operate import starting
from genserve.operate.archive import SHIPPED
from genserve.operate.starting import Starting, limit_s, wait


@pytest.mark.parametrize("mode", ["continuous", "batched"])
def test_the_host_ends_no_worker_that_a_start_still_waits_for(mode: str) -> None:
    settings = yaml.safe_load((ROOT / "handlers" / f"{mode}.yaml").read_text())
    assert limit_s(1) < limit_s(len(SHIPPED)) <= settings["startupTimeout"]


def ended(home: Path, versions: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """Wait for a server that has these models; return how the program ends, and what it prints."""
    answers: dict[str, Any] = {
        "GET /models": (200, {"models": [{"modelName": v["modelName"]} for v in versions]})
    }
    answers |= {f"GET /models/{v['modelName']}/all": (200, [v]) for v in versions}
    with standing_in(answers) as host:
        server = {
            "pid": 1, "port": 8080, "management": int(host.url.rpartition(":")[2]), "log_from": 0,
            "archives": [v["modelName"] for v in versions],
        }  # fmt: skip
        with pytest.raises(SystemExit) as end:
            wait(home, Starting(home, server, {}))
    return end.value.code, capsys.readouterr().err


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a start take no time, of a process that lives."""
    monkeypatch.setattr(starting, "BASE_S", 0.1)
    monkeypatch.setattr(starting, "EACH_S", 0.0)
    monkeypatch.setattr(starting, "alive", lambda pid: True)


@pytest.mark.usefixtures("impatient")
def test_a_start_that_takes_too_long_names_what_is_ready_and_what_still_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [version("a"), version("b", ready=0, loading=1), version("c", ready=0, loading=1)]
    code, text = ended(tmp_path, models, capsys)
    assert code == 3
    assert "still loading after 0 s: b, c (" in text
    assert text.rstrip().endswith("on http://127.0.0.1:8080: a")


@pytest.mark.usefixtures("impatient")
def test_a_start_with_nothing_ready_in_time_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = ended(tmp_path, [version("b", ready=0, loading=1)], capsys)
    assert code == "no model is ready after 0 s; the end of the log:\nno log yet"
    assert "still loading after 0 s: b (" in text


@pytest.mark.usefixtures("impatient")
def test_a_start_that_takes_long_says_what_it_waits_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(starting, "BASE_S", 1.0)
    monkeypatch.setattr(starting, "TELL_S", 0.3)
    printed: list[str] = []
    monkeypatch.setattr("builtins.print", lambda *words, **_: printed.append(" ".join(words)))
    ended(tmp_path, [version("a"), version("b", ready=0, loading=1)], capsys)
    assert printed[0] == "loading b ..."
    assert printed.count("loading b ...") < 4  # not at every look
