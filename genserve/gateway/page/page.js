// What the page does in the browser beside Gradio: films that a slider turns, lines that are copied.
(() => {
  function turn(film, at) {
    for (const reel of film.querySelectorAll(".reel")) {
      const frames = [...reel.querySelectorAll(".frame")];
      const last = Number(film.dataset.last) || 1;
      const shown = Math.round((at / last) * (frames.length - 1));
      frames.forEach((frame, k) => { frame.hidden = k !== shown; });
      [...reel.querySelectorAll(".strip button")].forEach((button, k) => {
        button.setAttribute("aria-pressed", String(k === shown));
      });
    }
  }
  document.addEventListener("input", (event) => {
    if (!event.target.matches(".film input[type=range]")) return;
    turn(event.target.closest(".film"), Number(event.target.value));
  });
  document.addEventListener("click", async (event) => {
    const thumb = event.target.closest(".strip button");
    if (thumb) {
      const film = thumb.closest(".film");
      const reel = thumb.closest(".reel");
      const frames = reel.querySelectorAll(".frame").length;
      const last = Number(film.dataset.last) || 1;
      const at = Math.round((Number(thumb.dataset.frame) / Math.max(1, frames - 1)) * last);
      film.querySelector("input[type=range]").value = at;
      turn(film, at);
    }
    const copy = event.target.closest(".command .copy");
    if (copy) {
      const text = copy.closest(".command").querySelector("code").textContent;
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(copy.closest(".command").querySelector("code"));
        copy.textContent = "Press Ctrl+C";
      }
      setTimeout(() => { copy.textContent = "Copy"; }, 2000);
    }
  });
})();
