"""Why a worker does not come up, as the log of the host has it."""

from pathlib import Path

from genserve.operate.api import Server
from genserve.operate.reasons import Log

LINE = "2026-01-01T00:00:00,000 [INFO ] W-{worker}-a_1.0-stdout MODEL_LOG - {text}\n"
FAILED = """Torch worker started.
Failed to load model a, exception no such luck
Traceback (most recent call last):
  File "handler.py", line 1, in <module>
    raise RuntimeError("no such luck")
RuntimeError: no such luck
Backend worker process died.
Traceback (most recent call last):
RuntimeError: 500 - Unknown exception"""


def write(path: Path, text: str, worker: int = 9001) -> None:
    with path.open("a") as file:
        file.writelines(LINE.format(worker=worker, text=line) for line in text.splitlines())


def test_the_reason_is_the_exception_of_the_first_traceback_of_this_worker(tmp_path: Path) -> None:
    path, log = tmp_path / "model_log.log", Log(Server(logs=tmp_path))
    write(path, FAILED.replace("no such luck", "of another"), worker=9000)
    write(path, FAILED)
    assert log.reason(9001, "a", "1.0") == "RuntimeError: no such luck"


def test_what_was_logged_before_is_no_reason(tmp_path: Path) -> None:
    path = tmp_path / "model_log.log"
    write(path, FAILED)
    log = Log(Server(logs=tmp_path))
    assert "nothing of this worker" in log.reason(9001, "a", "1.0")
    write(path, FAILED.replace("no such luck", "anything else"))
    assert log.reason(9001, "a", "1.0") == "RuntimeError: anything else"


def test_a_worker_that_ends_without_an_exception_is_quoted(tmp_path: Path) -> None:
    path, log = tmp_path / "model_log.log", Log(Server(logs=tmp_path))
    write(path, "one\ntwo\nthree\nfour")
    assert log.reason(9001, "a", "1.0") == f"the end of {path}: two / three / four"


def test_a_log_that_was_begun_again_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "model_log.log"
    path.write_text("x" * 10_000)
    log = Log(Server(logs=tmp_path))
    path.unlink()
    write(path, FAILED)
    assert log.reason(9001, "a", "1.0") == "RuntimeError: no such luck"


def test_without_the_log_the_reason_is_where_to_look() -> None:
    assert "model_log.log" in Log(Server()).reason(9001, "a", "1.0")
