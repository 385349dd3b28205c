"""The tab Train: a model of your own from a recipe, its loss and its samples while it learns."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import gradio as gr
from starlette.exceptions import HTTPException

from genserve.gateway.jobs import routes
from genserve.gateway.jobs.progress import metrics
from genserve.gateway.jobs.queue import Queue
from genserve.gateway.jobs.record import ENDED, Job, State
from genserve.gateway.jobs.settings import checked, shortened
from genserve.gateway.page import controls, markup
from genserve.gateway.page.asking import Refused
from genserve.gateway.page.context import Context
from genserve.gateway.page.curve import curve
from genserve.serving.fields import BadRequest, parse

LOOK_S = 1.5  # between two looks at a job
POINTS = 200  # of the curve, at most
SHOWN = 460  # pixels of a screen that samples may be wide
NOT_YOURS = "Training needs the admin token: log out at /logout, and open the page with that one."
DRAWN = {"num_samples": 16, "format": "json"}

# what people can train: a name, the program and its configuration
RECIPES: dict[str, tuple[str, str]] = {
    "Small digits, by diffusion": ("diffusion", "diffusion-digits"),
    "MNIST, by diffusion": ("diffusion", "diffusion-mnist"),
    "MNIST, by an energy": ("energy", "energy-mnist"),
    "MNIST, by a GAN": ("gan", "gan-mnist"),
    "MNIST, by a VAE": ("vae", "vae-mnist"),
}
FIRST = next(iter(RECIPES))
WORDS = {
    State.QUEUED: "waits for its turn",
    State.RUNNING: "learns",
    State.EXPORTING: "is being exported",
    State.REGISTERING: "is being put on the server",
    State.DONE: "is done",
    State.FAILED: "has failed",
    State.CANCELLED: "is cancelled",
}


class Train:
    """The tab; `build` makes its components in the block that is open.

    Args:
        context: what the tabs share.
    """

    models: tuple[Any, ...] = ()  # it chooses none of the server

    def __init__(self, context: Context) -> None:
        self._context = context
        self._followed: dict[str, object] = {}  # by session: what follows a job for it now

    @property
    def _queue(self) -> Queue:
        return self._context.jobs

    def build(self) -> None:
        """Make the tab."""
        usual = self._settings(FIRST)
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                recipe = gr.Dropdown(list(RECIPES), value=FIRST, label="Recipe", filterable=False,
                                     info="The small digits need no download.")  # fmt: skip
                epochs = gr.Slider(1, usual["epochs"], min(10, usual["epochs"]), step=1, label="Epochs",
                                   info="Passes over the data.")  # fmt: skip
                batches = gr.Slider(0, 500, 50, step=10, label="Batches an epoch",
                                    info="Cuts each pass short; 0 is all of the data.")  # fmt: skip
                rate = gr.Number(usual["lr"], label="Learning rate", info="Its peak; a cosine to 0 follows.")
                name = gr.Textbox("mine", label="Serve as", max_lines=1,
                                  info="Name of the model on the server; empty: not served.")  # fmt: skip
                start = gr.Button("Train", variant="primary", elem_id="train-start")
                self.job = gr.Dropdown([], label="Job", info="The newest first.", filterable=False)
                with gr.Row(elem_classes="actions"):
                    cancel = gr.Button("Cancel", elem_id="train-cancel")
                    resume = gr.Button("Resume", elem_id="train-resume")
                    draw = gr.Button("Draw with it", elem_id="train-draw")
            with gr.Column(scale=3, min_width=300):
                self._status = gr.HTML(markup.status("A job trains here at low priority, one at a time."))
                self._facts = gr.HTML("")
                self._curve = gr.HTML("")
                self._result = gr.HTML(
                    markup.empty("Samples of the model stand here while it learns."), elem_id="samples"
                )
        form = controls.Form(recipe=recipe, epochs=epochs, batches=batches, lr=rate, serve_as=name)
        self._form = form
        recipe.change(self.suited, recipe, [epochs, rate, batches], show_progress="hidden")
        outputs = [self.job, self._status, *form.components]
        start.click(self.start, form.components, outputs, show_progress="hidden")
        parts = [self._status, self._facts, self._curve, self._result]
        watching: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "multiple"}
        self.job.change(self.follow, self.job, parts, **watching)
        resume.click(self.resume, self.job, parts, **watching)
        cancel.click(self.cancel, self.job, self._status, show_progress="hidden")
        draw.click(self.draw, self.job, [self._status, self._result], show_progress="hidden")

    def _settings(self, recipe: str) -> dict[str, Any]:
        """Return all settings of a recipe, as its program reads them."""
        return checked(self._queue.options, *RECIPES[recipe], {})

    async def suited(self, recipe: str) -> list[Any]:
        """Return epochs, learning rate and batches for a recipe."""
        usual = await asyncio.to_thread(self._settings, recipe)
        most = usual["epochs"]
        return [gr.update(maximum=max(2, most), value=min(10, most)), usual["lr"], 50]

    async def refresh(self, request: gr.Request, current: str | None) -> Any:
        """Return the jobs that there are, to who may administrate."""
        mine = self._context.administers(request)
        jobs = await asyncio.to_thread(self._queue.jobs.all) if mine else []
        names = [job.id for job in jobs]
        return gr.update(choices=names, value=current if current in names else next(iter(names), None))

    async def start(self, request: gr.Request, *values: Any) -> controls.Updates:
        """Put a job into the queue, and choose it."""
        if not self._context.administers(request):
            return self._form.cleared() | self._form.refused(Refused(NOT_YOURS), self._status)
        inputs = self._form.values(values)
        program, config = RECIPES[inputs["recipe"]]
        overrides = {"epochs": int(inputs["epochs"]), "lr": inputs["lr"]}
        if inputs["batches"]:
            overrides["max_batches_per_epoch"] = int(inputs["batches"])
        fields = {"program": program, "config": config, "overrides": shortened(program, overrides)}
        fields |= {"serve_as": inputs["serve_as"].strip()} if inputs["serve_as"].strip() else {}
        try:
            fields_of_job = parse(routes.JobRequest, fields, text=False)
            job = await asyncio.to_thread(routes.add, self._queue, fields_of_job)
        except (BadRequest, HTTPException) as error:
            return self._form.cleared() | self._form.refused(_refused(error), self._status)
        return self._form.cleared() | {
            self.job: await self.refresh(request, job.id),
            self._status: markup.status(f"{job.id} waits for its turn."),
        }

    async def follow(self, request: gr.Request, id: str | None) -> AsyncGenerator[Any, None]:
        """Yield what the page shows of a job, until it has ended or the page follows another one."""
        if not self._context.administers(request):
            yield markup.alert(NOT_YOURS), gr.skip(), gr.skip(), gr.skip()
            return
        session = str(request.session_hash)
        own = self._followed[session] = object()
        try:
            while id and self._followed.get(session) is own:
                try:
                    job = await asyncio.to_thread(self._queue.jobs.get, id)
                    yield await asyncio.to_thread(self._shown, job)
                except BadRequest as error:
                    yield markup.alert(_refused(error).sentence), gr.skip(), gr.skip(), gr.skip()
                    return
                if job.state in ENDED:
                    return
                await asyncio.sleep(LOOK_S)
        finally:
            if self._followed.get(session) is own:
                del self._followed[session]

    def _shown(self, job: Job) -> tuple[Any, Any, Any, Any]:
        """Return status, facts, curve and samples of a job."""
        jobs, id = self._queue.jobs, job.id
        view = routes.view(jobs, job)
        entries = {"Step": f"{view['step']} of {view['steps'] or '?'}"}
        entries |= {"Loss": f"{view['loss']:.4f}"} if view["loss"] is not None else {}
        entries |= {"Images a second": f"{view['images_per_s']:.0f}"} if view["images_per_s"] else {}
        entries |= {"Seconds left": f"{view['seconds_left']:.0f}"} if view["seconds_left"] else {}
        sentence = f"{id} {WORDS[job.state]}{': ' + job.error if job.error else ''}."
        if view["stopping"]:
            sentence = f"{id} stops at its next checkpoint."
        voice = markup.alert if job.state == State.FAILED else markup.status
        samples = jobs.directory(id) / "samples.png"
        picture: Any = gr.skip()
        if samples.is_file():
            picture = markup.sheet(samples.read_bytes(), f"Samples of {id} at step {view['step']}", SHOWN)
        return voice(sentence), markup.facts(entries), _curve(metrics(jobs.directory(id))), picture

    async def cancel(self, request: gr.Request, id: str | None) -> str:
        """Ask a job to end at its next checkpoint."""
        if not self._context.administers(request):
            return markup.alert(NOT_YOURS)
        if not id:
            return markup.alert("Choose a job first.")
        try:
            await asyncio.to_thread(self._queue.jobs.cancel, id)
        except BadRequest as error:
            return markup.alert(_refused(error).sentence)
        except OSError as error:
            return markup.alert(_unwritten(error))
        return markup.status(f"{id} stops at its next checkpoint.")

    async def resume(self, request: gr.Request, id: str | None) -> AsyncGenerator[Any, None]:
        """Have a job go on, and yield what the page shows of it."""
        nothing = (gr.skip(), gr.skip(), gr.skip())
        if not id or not self._context.administers(request):
            yield markup.alert("Choose a job first." if not id else NOT_YOURS), *nothing
            return
        try:
            self._queue.put(await asyncio.to_thread(self._queue.jobs.resume, id))
        except BadRequest as error:
            yield markup.alert(_refused(error).sentence), *nothing
            return
        except OSError as error:
            yield markup.alert(_unwritten(error)), *nothing
            return
        async with aclosing(self.follow(request, id)) as looks:
            async for look in looks:
                yield look

    async def draw(self, request: gr.Request, id: str | None) -> tuple[Any, Any]:
        """Return pictures that the server draws with the model of a job."""
        try:
            if not id:
                raise Refused("Choose a job first.")
            job = await asyncio.to_thread(self._queue.jobs.get, id)
            if not job.serve_as or job.state != State.DONE:
                raise Refused(
                    "It is not served yet: only a job that has ended well, with a name to serve as, is."
                )
            drawn = await self._context.visitor(request).answer(job.serve_as, DRAWN)
        except BadRequest as error:
            return markup.alert(_refused(error).sentence), gr.skip()
        except Refused as refusal:
            return markup.alert(refusal.sentence), gr.skip()
        pngs = [row["png"] for row in drawn["images"]]
        status = f"{len(pngs)} pictures by {job.serve_as}, from the server; it is in the tab Draw, too."
        return markup.status(status), markup.sheet(markup.grid(pngs), f"Pictures by {job.serve_as}", SHOWN)


def _unwritten(error: OSError) -> str:
    return f"The job cannot be written: {error.strerror or error}."


def _refused(error: BadRequest | HTTPException) -> Refused:
    if isinstance(error, HTTPException):
        return Refused(f"{error.detail}.")
    refusal = Refused.of(error.body(), error.status)
    return Refused(refusal.sentence, refusal.field.removeprefix("overrides.").removeprefix("config."))


def _curve(records: list[dict[str, Any]]) -> str:
    """Return the loss of lines of metrics, thinned out."""
    points = [(float(r["step"]), float(r["loss"])) for r in records if r.get("loss") is not None]
    return curve([*points[: -1 : max(1, len(points) // POINTS)], *points[-1:]], "step", "Loss")
