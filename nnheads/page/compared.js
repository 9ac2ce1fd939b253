// -- scores side by side --------------------------------------------------------------------------------------------
function goTo(at, number) { // show a score of any model on the map
  if (state.model !== at) {
    Object.assign(state, { model: at, score: number, head: null, minus: null });
    drawModel();
  } else colour(number);
}
const several = (places) => new Set(places.map((one) => one.model)).size > 1;
function typeNames(places) { // scores as the rest of the page calls them
  const names = new Map();
  return places.map((one) => {
    const own = page.models[one.model];
    if (!names.has(own)) names.set(own, new Map(kinds(own).map((kind) => [kind.key, kind.shown])));
    return names.get(own).get(keyOf(own.scores[one.score]));
  });
}
const scoreNames = (places) => typeNames(places).map((name, at) => (several(places) ? `${page.models[places[at].model].shown}: ${name}` : name));
const isShown = (one) => one.model === state.model && one.score === state.score;

// -- which scores share heads ---------------------------------------------------------------------------------------
const ALIKE = {
  jaccard: ["Jaccard beyond chance", (pair) => (pair.jaccard_top === null ? null : pair.jaccard_top - pair.jaccard_chance)],
  spearman: ["Spearman over all heads", (pair) => pair.spearman],
  flagged: ["Jaccard of heads beyond chance", (pair) => pair.jaccard_flagged],
  profile: ["profiles over depth", (pair) => pair.profile],
};
let overlapCells = [], overlapBy = "jaccard", overlapAt = null;
function pairOf(i, j) { // of two scores; files hold what lies below the diagonal
  const found = page.overlap, [row, column] = i > j ? [i, j] : [j, i];
  const names = ["jaccard_top", "jaccard_chance", "jaccard_flagged", "spearman", "profile", "profile_shifted", "shift"];
  return Object.fromEntries(names.map((name) => [name, found[name][row][column]]));
}
const signed = (value) => (value === null ? "–" : `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`);
const two = (value) => (value === null ? "–" : value.toFixed(2));
function pairLines(i, j) {
  const names = overlapNames(), pair = pairOf(i, j), lines = [`${names[i]} | ${names[j]}`];
  if (pair.jaccard_top !== null) lines.push(`Jaccard of the top ${page.overlap.top}: ${two(pair.jaccard_top)}, by chance ${two(pair.jaccard_chance)}: ${signed(pair.jaccard_top - pair.jaccard_chance)}`);
  if (pair.jaccard_flagged !== null) lines.push(`Jaccard of heads beyond chance: ${two(pair.jaccard_flagged)}`);
  if (pair.spearman !== null) lines.push(`Spearman over all heads: ${two(pair.spearman)}`);
  if (pair.jaccard_top === null && pair.spearman === null) lines.push("single heads cannot be compared: other heads, or too few");
  if (pair.profile !== null) lines.push(`profiles over relative depth: ${two(pair.profile)}, ${two(pair.profile_shifted)} once moved by ${two(pair.shift)}`);
  return lines;
}
const overlapNames = () => scoreNames(page.overlap.entries);
function drawOverlap() {
  const panel = document.getElementById("overlap"), found = page.overlap;
  panel.hidden = found === null;
  if (!found) return;
  const n = found.entries.length, names = overlapNames(), types = typeNames(found.entries), apart = several(found.entries);
  const pairs = found.entries.flatMap((_, i) => Array.from({ length: i }, (_, j) => [i, j]));
  const possible = Object.keys(ALIKE).filter((by) => pairs.some(([i, j]) => ALIKE[by][1](pairOf(i, j)) !== null));
  if (!possible.includes(overlapBy)) overlapBy = possible[0] ?? "jaccard";
  const by = make("select", { id: "alike", on: { change: (event) => { overlapBy = event.target.value; paintOverlap(); } } }, possible.map((one) => make("option", { value: one }, one === "jaccard" ? `Jaccard of the top ${found.top}, beyond chance` : ALIKE[one][0])));
  const save = button("Download CSV", () => download("overlap.csv", [["score", "other", "top", "jaccard_top", "jaccard_chance", "jaccard_flagged", "spearman", "profile", "profile_shifted", "shift"],
    ...pairs.map(([i, j]) => { const pair = pairOf(i, j); return [names[i], names[j], found.top, pair.jaccard_top, pair.jaccard_chance, pair.jaccard_flagged, pair.spearman, pair.profile, pair.profile_shifted, pair.shift]; })]));
  overlapCells = names.map((_, i) => names.map((_, j) => (i === j ? null : make("button", { type: "button", tabindex: -1, "data-pair": `${i} ${j}` }))));
  const groups = [...new Set(found.entries.map((one) => one.model))].map((at) => ({ own: page.models[at], members: names.map((_, i) => i).filter((i) => found.entries[i].model === at) }));
  const rowOf = (i) => make("tr", null, make("th", { scope: "row", title: names[i], "data-entry": i }, make("button", { type: "button", class: "plain", tabindex: -1, on: { click: () => goTo(found.entries[i].model, found.entries[i].score) } }, types[i])),
    overlapCells[i].map((cell) => make("td", null, cell ?? make("span", { "aria-hidden": "true" }, "·"))));
  const bodies = groups.map(({ own, members }) => make("tbody", null, apart ? make("tr", null, make("th", { scope: "rowgroup", class: "group", colspan: n + 1 }, make("span", null, own.shown))) : null, members.map(rowOf)));
  const heads = [apart ? make("tr", null, make("td"), groups.map(({ own, members }) => make("th", { scope: "colgroup", class: "group", colspan: members.length, title: own.shown }, make("span", null, own.shown)))) : null,
    make("tr", { class: "types" }, make("td"), names.map((name, j) => make("th", { scope: "col", title: name, "data-entry": j }, make("span", null, types[j]))))];
  const over = (run) => (event) => { const cell = event.target.closest("[data-pair]"); if (cell) run(cell, ...cell.dataset.pair.split(" ").map(Number), event); };
  const grid = make("table", { class: "matrix", on: {
    keydown: onOverlapKey, click: over((cell, i, j) => choosePair(i, j)), mouseleave: unhint, focusout: unhint,
    mouseover: over((cell, i, j, event) => hint(pairLines(i, j).join("\n"), event.clientX, event.clientY)),
    focusin: over((cell, i, j) => { if (cell.matches(":focus-visible")) { const box = cell.getBoundingClientRect(); hint(pairLines(i, j).join("\n"), box.left, box.bottom - 10); } }),
  } }, make("caption", { class: "unseen" }, "How alike scores are, two by two"), make("thead", null, heads), bodies);
  panel.replaceChildren(heading("Which scores share heads", save),
    make("p", { class: "quiet" }, `Click a cell for the heads that two scores share. Jaccard: heads in both lists of ${found.top}, over heads in either.`),
    found.total > n ? make("p", { class: "warn" }, `The first ${n} of ${found.total} scores; nnheads atlas compares all.`) : "",
    make("div", { class: "controls" }, make("label", null, "Compare by", by)),
    make("div", { class: "tall", role: "region", tabindex: 0, "aria-label": "overlap of scores" }, grid),
    make("div", { class: "bar" }, make("div", { class: "strip", style: { background: strip(RDBU) } }), make("div", { class: "ends" }, make("span", null, "−1"), make("span", null, "0"), make("span", null, "1"))),
    make("div", { id: "pair", role: "status" }));
  paintOverlap();
}
function paintOverlap() {
  const of = ALIKE[overlapBy][1], at = overlapAt ?? [1, 0];
  document.getElementById("alike").value = overlapBy;
  overlapCells.forEach((row, i) => row.forEach((cell, j) => {
    if (!cell) return;
    const value = of(pairOf(i, j)), rgb = value === null ? null : mix(RDBU, 0.5 + value / 2);
    cell.className = value === null ? "none" : "";
    cell.style.backgroundColor = rgb ? `rgb(${rgb.join(",")})` : "";
    cell.style.color = rgb ? (bright(rgb) ? "#111" : "#fff") : "";
    cell.textContent = value === null ? "–" : value.toFixed(2).replace(/^(-?)0\./, "$1.").replace("-", "−");
    cell.setAttribute("aria-label", pairLines(i, j).join(", "));
    cell.setAttribute("aria-pressed", String(overlapAt !== null && overlapAt[0] === i && overlapAt[1] === j));
    cell.tabIndex = at[0] === i && at[1] === j ? 0 : -1;
  }));
  markOverlap();
}
function onOverlapKey(event) {
  const cell = event.target.closest("[data-pair]"), move = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!cell || !move) return;
  event.preventDefault();
  let [i, j] = cell.dataset.pair.split(" ").map(Number);
  do { i += move[0]; j += move[1]; } while (i === j); // the diagonal is no cell
  const to = overlapCells[i]?.[j];
  if (!to) return;
  cell.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}
function choosePair(i, j) {
  overlapAt = [i, j];
  paintOverlap();
  drawPair();
  goTo(page.overlap.entries[i].model, page.overlap.entries[i].score);
}
function topOf(one, other) { // the first heads of a score, of those that the other has, too
  const own = page.models[one.model], two_ = page.models[other.model];
  const value = ([layer, head]) => (layer < two_.layers && head < two_.heads ? two_.scores[other.score].values[layer * two_.heads + head] : null);
  return one.order.filter((head) => value(head) !== null).slice(0, page.overlap.top).map(([layer, head]) => layer * own.heads + head);
}
function drawPair() {
  const [i, j] = overlapAt, [one, other] = overlapAt.map((at) => page.overlap.entries[at]), names = overlapNames();
  const [, ...lines] = pairLines(i, j), own = page.models[one.model], next = page.models[other.model];
  const parts = [make("p", null, make("b", null, names[i]), " and ", make("b", null, names[j])), ...lines.map((line) => make("p", { class: "quiet" }, line))];
  if (pairOf(i, j).jaccard_top !== null && own.heads === next.heads) {
    const first = topOf(one, other), second = topOf(other, one), both = first.filter((head) => second.includes(head));
    const list = (title, heads, from) => (heads.length ? make("p", null, make("span", { class: "quiet" }, `${title}: `), heads.map((head) => make("button", { type: "button", class: "chip", on: { click: () => { goTo(from.model, from.score); choose(head, true); } } }, nameIn(page.models[from.model], head)))) : null);
    parts.push(list(`in the top ${page.overlap.top} of both`, both, one) ?? make("p", { class: "quiet" }, `No head is in the top ${page.overlap.top} of both.`),
      list(`of ${names[i]} alone`, first.filter((head) => !both.includes(head)), one), list(`of ${names[j]} alone`, second.filter((head) => !both.includes(head)), other));
  }
  document.getElementById("pair").replaceChildren(...parts.filter(Boolean));
}
const nameIn = (own, index) => `L${Math.floor(index / own.heads)}H${index % own.heads}`;
function markOverlap() { // the score that is on the map
  document.querySelectorAll("#overlap [data-entry]").forEach((head) => head.classList.toggle("on", isShown(page.overlap.entries[Number(head.dataset.entry)])));
}

// -- would other prompts name the same heads ------------------------------------------------------------------------
function drawStability() {
  const panel = document.getElementById("stability"), all = page.stability;
  panel.hidden = all.length + page.unstable.length === 0;
  if (panel.hidden) return;
  const names = new Map(all.map((one, at) => [one, scoreNames(all)[at]])), types = new Map(all.map((one, at) => [one, typeNames(all)[at]]));
  const apart = several(all), targets = [...new Set(all.flatMap((one) => one.target))].sort((a, b) => a - b);
  const last = (one, name) => one[name][one.n.length - 1], most = (one) => one.n[one.n.length - 1];
  const needed = (one, target) => one.needed[one.target.indexOf(target)] ?? null;
  const columns = [
    { name: "score", get: (one) => types.get(one), show: (one) => [make("button", { type: "button", class: "link", on: { click: () => { goTo(one.model, one.score); plot(one); } } }, types.get(one)), apart ? make("div", { class: "quiet" }, page.models[one.model].shown) : ""] },
    { name: "model", hidden: true, get: (one) => page.models[one.model].shown },
    { name: "prompts", number: true, get: (one) => one.prompts, show: (one) => String(one.prompts) },
    { name: "heads in list", number: true, get: (one) => one.top, show: (one) => String(one.top) },
    { name: "Jaccard of two halves", number: true, get: (one) => last(one, "jaccard"), show: (one) => [two(last(one, "jaccard")), make("div", { class: "quiet" }, interval2(last(one, "jaccard_low"), last(one, "jaccard_high")))] },
    { name: "low", hidden: true, get: (one) => last(one, "jaccard_low") }, { name: "high", hidden: true, get: (one) => last(one, "jaccard_high") },
    { name: "by chance", number: true, get: (one) => one.jaccard_chance, show: (one) => two(one.jaccard_chance) },
    ...targets.map((target) => ({ name: `prompts for ${target}`, number: true, get: (one) => needed(one, target), show: (one) => (needed(one, target) === null ? (last(one, "jaccard") === null ? "–" : `> ${most(one)}`) : String(needed(one, target))) })),
    { name: "rank correlation", number: true, get: (one) => one.reliability_all, show: (one) => two(one.reliability_all) },
  ];
  const made = table(columns, all, { label: "Stability of lists of heads", file: "stability.csv" });
  const whole = button("By number of prompts as CSV", () => download("stability-by-n.csv", [["score", "top", "n", "jaccard", "jaccard_low", "jaccard_high", "jaccard_chance", "spearman", "spearman_low", "spearman_high", "draws"],
    ...all.flatMap((one) => one.n.map((n, at) => [names.get(one), one.top, n, one.jaccard[at], one.jaccard_low[at], one.jaccard_high[at], one.jaccard_chance, one.spearman[at], one.spearman_low[at], one.spearman_high[at], one.draws]))]));
  const figure = make("figure", { id: "again" });
  function plot(one) {
    const rows = one.n.map((n, at) => at), lines = table([
      { name: "prompts in each sample", number: true, get: (at) => one.n[at], show: (at) => String(one.n[at]) },
      ...["jaccard", "spearman"].flatMap((name) => [{ name: words(name), number: true, get: (at) => one[name][at], show: (at) => `${two(one[name][at])} ${interval2(one[`${name}_low`][at], one[`${name}_high`][at])}` },
        { name: `${name}_low`, hidden: true, get: (at) => one[`${name}_low`][at] }, { name: `${name}_high`, hidden: true, get: (at) => one[`${name}_high`][at] }]),
    ], rows, { label: `Lists of ${names.get(one)} from two samples`, file: `stability-${names.get(one)}.csv` });
    figure.replaceChildren(make("figcaption", null, make("b", null, names.get(one)), `: lists of ${one.top} heads by two samples of n prompts that share none; mean and 95% of ${one.draws} draws. Dashed: random lists.`), againCurve(one, names.get(one)), make("details", null, make("summary", { class: "quiet" }, "Numbers"), lines.save, lines.box, lines.more));
  }
  const refused = page.unstable.map((one) => make("p", { class: "quiet" }, `${one.name}: ${one.reason}`));
  panel.replaceChildren(heading("Would other prompts name the same heads?", make("span", null, all.length ? made.save : "", " ", all.length ? whole : "")),
    make("p", { class: "quiet" }, "How alike are the lists of the strongest heads by two samples of prompts that share none?"),
    make("details", null, make("summary", { class: "quiet" }, "How to read this"), make("p", { class: "quiet" }, "A list holds as many heads as are beyond chance, or as the overlap compares where none are. Jaccard: heads in both lists, over heads in either; mean and 95% of draws, with half of the prompts in each sample. Prompts for 0.8, 0.9: how many a sample needs until two lists are so alike; > is more than half of the prompts can show. Rank correlation: of all heads, between two sets of as many prompts as there were (Spearman and Brown).")),
    ...(all.length ? [made.box, made.more, figure] : []), ...refused);
  if (all.length) plot(all.find(isShown) ?? all[0]);
}
const interval2 = (low, high) => (low === null || high === null ? "" : `[${two(low)}, ${two(high)}]`);
function againCurve(one, name) {
  const W = 460, H = 200, left = 40, bottom = 34, top = 10, n = one.n, from = Math.log(n[0]), to = Math.log(n[n.length - 1]);
  const x = (at) => left + 6 + (to > from ? ((Math.log(n[at]) - from) / (to - from)) * (W - left - 26) : 0), y = (value) => H - bottom - value * (H - bottom - top);
  const path = (values) => values.map((value, at) => (value === null ? "" : `${at && values[at - 1] !== null ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`)).join("");
  const label = (text, place_, anchor) => { const made = drawn("text", { ...place_, "text-anchor": anchor }); made.textContent = text; return made; };
  const svg = drawn("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", width: "100%", "aria-label": `Jaccard of ${name} by prompts in a sample: ${n.map((each, at) => `${each}: ${two(one.jaccard[at])}`).join(", ")}` });
  svg.append(...[0, 0.5, 1].flatMap((value) => [drawn("line", { x1: left, x2: W - 16, y1: y(value), y2: y(value), stroke: "var(--line)" }), label(String(value), { x: left - 6, y: y(value) + 4 }, "end")]));
  if (one.jaccard_chance !== null) svg.append(drawn("line", { x1: left, x2: W - 16, y1: y(one.jaccard_chance), y2: y(one.jaccard_chance), stroke: "var(--quiet)", "stroke-dasharray": "5 4" }));
  if (!one.jaccard_low.includes(null)) svg.append(drawn("path", { d: `${path(one.jaccard_high)}L${one.jaccard_low.map((value, at) => `${x(at).toFixed(1)} ${y(value).toFixed(1)}`).reverse().join("L")}Z`, fill: "var(--accent)", opacity: 0.2 }));
  svg.append(drawn("path", { d: path(one.jaccard), fill: "none", stroke: "var(--accent)", "stroke-width": 2.5 }));
  one.jaccard.forEach((value, at) => { if (value !== null) svg.append(drawn("circle", { cx: x(at), cy: y(value), r: 3.5, fill: "var(--accent)" })); });
  let right = -Infinity; // of the last number on the axis
  n.forEach((each, at) => { if (x(at) - right > 26) { right = x(at); svg.append(label(String(each), { x: x(at), y: H - bottom + 16 }, "middle")); } });
  svg.append(label("prompts in each of two samples (log)", { x: (W + left) / 2, y: H - 4 }, "middle"));
  return svg;
}
