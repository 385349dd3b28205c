"""`genserve COMMAND`: one program for all that the project does."""

import difflib
import sys
from importlib import import_module

import genserve

COMMANDS = {  # name -> module, and its line in the list; a module is imported when its command is run
    "train": ("genserve.commands.train", "train a model of any family; distill one"),
    "tune": ("genserve.commands.tune", "find noise levels that draw well in few evaluations"),
    "evaluate": ("genserve.commands.evaluate", "measure generated images against real ones"),
    "evaluate-words": ("genserve.commands.evaluate_words", "measure vectors of words"),
    "figures": ("genserve.commands.figures", "draw pictures of the process"),
    "detect": ("genserve.commands.detect", "measure how well an energy tells the unfamiliar"),
    "score": ("genserve.commands.score", "measure how well language models predict a text"),
    "fill": ("genserve.commands.fill", "measure how well masked pictures are completed"),
    "calibrate": ("genserve.commands.calibrate", "fit a classifier's temperatures, and measure it"),
    "changes": ("genserve.commands.changes", "measure what a judge sees of blur, noise and smudges"),
    "generate": ("genserve.commands.generate", "draw many pictures into a folder, from a run or a server"),
    "archive": ("genserve.operate.archive", "pack runs into TorchServe archives"),
    "serve": ("genserve.operate.server", "start, stop and look at the local TorchServe"),
    "models": ("genserve.operate.models", "list, register, scale, roll and delete the models of a server"),
    "health": ("genserve.operate.health", "exit with 0 when every model of the local server is ready"),
    "gateway": ("genserve.commands.gateway", "a page, a proxy and training jobs in front of a server"),
    "page-pictures": ("genserve.commands.page_pictures", "take pictures of the page of a gateway"),
    "chaos": ("genserve.commands.chaos", "trouble a server while clients ask it; let it soak"),
    "bench-step": ("genserve.commands.bench_step", "compare a Langevin step with a forward pass"),
    "simulate": ("genserve.commands.simulate", "simulate servers behind a proxy: load, sizing, autoscaling"),
    "course-page": ("genserve.commands.course_page", "write the answers of a server into docs/course.md"),
    "api-docs": ("genserve.commands.api_docs", "write docs/api.md of a checkout"),
}
EXTRAS = {  # package -> the extra of genserve that brings it; tests compare this with pyproject.toml
    "fastapi": "gateway",
    "fastapi_offline": "gateway",
    "gradio": "gateway",
    "aiohttp": "gateway",
    "huey": "gateway",
    "limits": "gateway",
    "playwright": "dev",
    "prometheus_client": "gateway",
    "uvicorn": "gateway",
    "jsonargparse": "train",
    "matplotlib": "train",
    "requests": "train",
    "simpy": "bench",
    "sklearn": "train",
    "tensorboard": "train",
    "torch_fidelity": "train",
    "torchvision": "train",
    "tqdm": "train",
    "pydantic": "serve",
}


def main(argv: list[str] | None = None) -> None:
    """Run the command that the first word names; without a word, list the commands.

    Raises:
        SystemExit: there is no such command, or a package that it needs is missing.
    """
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help"):
        print(listing())
        return
    if words[0] == "--version":
        print(f"genserve {genserve.__version__}")
        return
    name, *rest = words
    if name not in COMMANDS:
        sys.exit(unknown("command", name, list(COMMANDS), "genserve --help"))
    sys.argv = [f"genserve {name}", *rest]  # as argparse shows it, and as records of evaluations keep it
    try:
        import_module(COMMANDS[name][0]).run(rest)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        sys.exit(f"genserve {name} needs {package}: pip install 'genserve[{EXTRAS[package]}]'")


def listing() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"    {name:{width}}   {line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        ["usage: genserve COMMAND ...", "", *lines, "", "genserve COMMAND --help has the flags of a command."]
    )


def unknown(what: str, name: str, names: list[str], see: str) -> str:
    """Return the error of a name that is none of these, with those that are close to it."""
    close = difflib.get_close_matches(name, names, cutoff=0.7)
    hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)};"
    return f"there is no {what} {name!r}: {hint} ({see} lists them)"


if __name__ == "__main__":
    main()
