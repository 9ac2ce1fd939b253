// -- putting it together --------------------------------------------------------------------------------------------
function skeleton() {
  const choice = make("select", { id: "model", on: { change: (event) => { Object.assign(state, { model: Number(event.target.value), score: 0, head: null, minus: null }); location.hash = ""; recallModel(); } } },
    page.models.map((own, at) => make("option", { value: at }, own.shown)));
  const controls = make("div", { class: "controls" },
    make("label", null, "Model", choice),
    make("label", { class: "mapped" }, "Colour by", make("select", { id: "what", on: { change: (event) => colour(kinds()[event.target.value].numbers[0]) } })),
    make("label", { class: "mapped" }, "Statistic", make("select", { id: "which", on: { change: (event) => colour(Number(event.target.value)) } })),
    make("label", { class: "mapped" }, "Minus", make("select", { id: "minus", on: { change: (event) => { state.minus = event.target.value === "" ? null : Number(event.target.value); colour(state.score); } } })));
  const grid = make("div", { id: "grid", class: "map", role: "grid", "aria-label": "heads: a row for each layer, layer 0 at the top", on: {
    keydown: onGridKey, click: (event) => { const cell = event.target.closest("[data-head]"); if (cell) choose(Number(cell.dataset.head), event.detail === 0 || innerWidth <= 900, score().unit); },
    mouseover: (event) => { const cell = event.target.closest("[data-head]"); if (cell) hint(describe(score(), Number(cell.dataset.head)), event.clientX, event.clientY); },
    mouseleave: unhint, focusout: unhint,
    focusin: (event) => { const cell = event.target.closest("[data-head]"); if (cell && cell.matches(":focus-visible")) { const box = cell.getBoundingClientRect(); hint(describe(score(), Number(cell.dataset.head)), box.left, box.bottom - 10); } },
  } });
  const only = make("label", { class: "quiet" }, make("input", { type: "checkbox", id: "only", on: { change: drawHeads } }), " beyond chance only");
  app.replaceChildren(make("div", { class: "columns" },
    make("div", null,
      make("section", { class: "panel" }, controls,
        make("div", { class: "mapped" }, make("h2", { id: "coloured" }), make("p", { id: "about", class: "quiet" }), make("div", { class: "scroll" }, grid), make("div", { id: "legend", class: "legend" }))),
      make("section", { class: "panel mapped", id: "revisions", hidden: true }), make("section", { class: "panel mapped", id: "types" }), make("section", { class: "panel", id: "knockouts", hidden: true }),
      make("section", { class: "panel mapped", id: "several", hidden: true }),
      make("section", { class: "panel mapped" }, heading("All heads", only), make("div", { id: "heads" })),
      make("section", { class: "panel", id: "overlap", hidden: true }), make("section", { class: "panel", id: "stability", hidden: true }),
      make("section", { class: "panel", id: "results", hidden: true })),
    make("aside", { class: "panel card mapped", id: "card", "aria-label": "card of a head" })), drawRuns());
}
function recallModel() {
  recall();
  drawModel();
}
function drawModel() {
  document.getElementById("model").value = String(state.model);
  drawKnockouts();
  drawResults();
  const bare = model().scores.length === 0; // of this model there are lists that were knocked out, and no map
  app.querySelectorAll(".mapped").forEach((element) => { element.hidden = bare || ["revisions", "several"].includes(element.id); });
  if (bare) return;
  fillKinds();
  drawMap();
  drawTypes();
  drawSeveral();
  const { head, unit } = state;
  colour(state.score);
  if (head !== null) choose(head, false, unit);
  else drawCard();
}
document.addEventListener("keydown", (event) => { if (event.key === "Escape") { unhint(); close(); } });
let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; if (raw()) drawMap(); } });
addEventListener("scroll", unhint, { passive: true });
if (page.models.length) {
  skeleton();
  drawOverlap();
  drawStability();
  recallModel();
} else app.replaceChildren(drawRuns());
document.documentElement.dataset.ready = "yes";
