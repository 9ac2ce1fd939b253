"use strict";
// Everything that came from a file is set as text or as an attribute of a fixed name, never as markup.
const page = JSON.parse(document.getElementById("data").textContent);
const app = document.getElementById("app"), tip = document.getElementById("tip"), said = document.getElementById("said");
const SHOWN = 100; // rows of a table before it is asked for all
const VIRIDIS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725"];
const RDBU = ["67001f", "b2182b", "d6604d", "f4a582", "fddbc7", "f7f7f7", "d1e5f0", "92c5de", "4393c3", "2166ac", "053061"];
const GROUPS = { looks: "What it looks at", effects: "What it does to the answer", writes: "What it writes", other: "Other scores" };
const state = { model: 0, score: 0, head: null, unit: "head", minus: null }; // unit: what `head` counts, heads or key/value heads

// -- making elements ------------------------------------------------------------------------------------------------
function make(tag, options, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "class") element.className = value;
    else if (name === "on") for (const [event, run] of Object.entries(value)) element.addEventListener(event, run);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}
function drawn(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
const button = (text, run, options) => make("button", { type: "button", class: "button", ...options, on: { click: run } }, text);
const heading = (text, ...more) => make("div", { class: "top" }, make("h2", null, text), ...more);

// -- words and numbers ----------------------------------------------------------------------------------------------
function shown(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 0.001) return value.toExponential(1);
  return size >= 1000 ? String(Math.round(value)) : size >= 100 ? value.toFixed(1) : value.toFixed(size >= 10 ? 2 : 3);
}
const words = (name) => String(name).replaceAll("_", " ");
const interval = (low, high) => (low === null || high === null ? "" : `[${shown(low)}, ${shown(high)}]`);
const model = () => page.models[state.model];
const raw = () => model().scores[state.score];
const like = (other, one) => other.scores.find((each) => each.kind === one.kind && each.name === one.name && each.unit === one.unit);
const wide = (own, unit) => (unit === "kv_head" ? own.kv_heads : own.heads);
const alike = (other, own, unit) => other.layers === own.layers && wide(other, unit) === wide(own, unit);
const differences = new Map();
function score() { // what the map shows: a score, or how it differs from another model's
  const one = raw();
  if (state.minus === null) return one;
  const key = `${state.model} ${state.score} ${state.minus}`, other = page.models[state.minus];
  if (!differences.has(key)) {
    const values = like(other, one).values.map((value, i) => (value === null || one.values[i] === null ? null : Number((one.values[i] - value).toPrecision(4))));
    differences.set(key, { ...one, meaning: `${one.meaning}, minus that of ${other.shown}`, values, signed: true, low: null, high: null, null: null, q: null, flag: null });
  }
  return differences.get(key);
}
const place = (own, index, unit) => [Math.floor(index / wide(own, unit)), index % wide(own, unit)];
const nameOf = (index, unit = "head") => { const [layer, number] = place(model(), index, unit); return `L${layer}${unit === "kv_head" ? "KV" : "H"}${number}`; };
const depth = (own, index, unit) => (own.layers > 1 ? place(own, index, unit)[0] / (own.layers - 1) : 0);
const groupSize = (own) => (own.heads && own.kv_heads && own.heads % own.kv_heads === 0 ? own.heads / own.kv_heads : null); // query heads of a key/value head
const kvOf = (own, index) => Math.floor(index / own.heads) * own.kv_heads + Math.floor((index % own.heads) / groupSize(own));
function queriesOf(own, index) { // of a key/value head
  const size = groupSize(own), [layer, number] = place(own, index, "kv_head");
  return size === null ? [] : Array.from({ length: size }, (_, i) => layer * own.heads + number * size + i);
}
const many = (unit) => (unit === "kv_head" ? "key/value heads" : "heads");
const part = (one, name, index) => (one[name] ? one[name][index] : null);
const flagged = (one, index) => part(one, "flag", index) === 1;
const titleOf = (one) => `${words(one.kind)}: ${one.meaning}`;

const orders = new Map();
const strength = (one, index) => (one.first === "size" ? Math.abs(one.values[index]) : one.first === "lowest" ? -one.values[index] : one.values[index]);
function order(one) { // heads by strength, the strongest first; of equals the first
  if (!orders.has(one)) {
    const known = one.values.map((value, index) => index).filter((index) => one.values[index] !== null);
    orders.set(one, known.sort((a, b) => strength(one, b) - strength(one, a) || a - b));
  }
  return orders.get(one);
}
const ranks = new Map();
function rank(one, index) {
  if (!ranks.has(one)) ranks.set(one, new Map(order(one).map((head, at) => [head, at + 1])));
  return ranks.get(one).get(index) ?? null;
}
function describe(one, index) {
  const value = one.values[index];
  const lines = [`${nameOf(index, one.unit)}  ${value === null ? "not measured" : shown(value)} ${interval(part(one, "low", index), part(one, "high", index))}`];
  if (part(one, "null", index) !== null) lines.push(`null ${shown(one.null[index])}`);
  if (one.q && one.q[index] !== null) lines.push(`q ${shown(one.q[index])}`);
  if (one.flag) lines.push(flagged(one, index) ? "beyond chance" : "not beyond chance");
  if (one.unit === "kv_head" && queriesOf(model(), index).length) lines.push(`keys and values of ${queriesOf(model(), index).map((i) => nameOf(i)).join(", ")}`);
  return lines.join("\n");
}

// -- colours --------------------------------------------------------------------------------------------------------
function mix(stops, at) {
  const where = Math.min(0.999999, Math.max(0, at)) * (stops.length - 1), left = Math.floor(where), share = where - left;
  return [0, 2, 4].map((i) => Math.round(parseInt(stops[left].slice(i, i + 2), 16) * (1 - share) + parseInt(stops[left + 1].slice(i, i + 2), 16) * share));
}
const reach = (one) => one.values.reduce((most, value) => Math.max(most, Math.abs(value ?? 0)), 0) || 1;
const scaled = (one, value, most) => (one.signed ? 0.5 + value / most / 2 : value / most);
const bright = (rgb) => 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] > 140;
const strip = (stops) => `linear-gradient(to right, ${stops.map((stop) => `#${stop}`).join(", ")})`;

// -- hints ----------------------------------------------------------------------------------------------------------
function hint(text, x, y) {
  tip.textContent = text;
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 6))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 12) : y + 18}px`;
}
const unhint = () => { tip.hidden = true; };

// -- the map --------------------------------------------------------------------------------------------------------
let cells = [];
function drawMap() {
  const own = model(), unit = score().unit, width = wide(own, unit), grid = document.getElementById("grid");
  const room = Math.max(220, grid.parentElement.clientWidth - (innerWidth <= 900 ? 34 : 46));
  const size = Math.max(8, Math.min(46, Math.floor(room / width) - 1));
  const row = Math.max(innerWidth <= 900 ? 14 : 12, Math.min(size, own.layers > 24 ? 17 : 34));
  grid.style.setProperty("--columns", width);
  grid.style.setProperty("--cell", `${size}px`);
  grid.style.setProperty("--row", `${row}px`);
  grid.classList.toggle("small", size < 24);
  grid.setAttribute("aria-rowcount", own.layers);
  grid.setAttribute("aria-colcount", width);
  grid.setAttribute("aria-label", `${many(unit)}: a row for each layer, layer 0 at the top`);
  const step = size >= 17 ? 1 : size >= 12 ? 2 : 4;
  const top = [make("span", { class: "axis left" }, ""), ...Array.from({ length: width }, (_, head) => make("span", { class: "axis" }, head % step ? "" : String(head)))];
  cells = [];
  const rows = Array.from({ length: own.layers }, (_, layer) => {
    const each = Array.from({ length: width }, (_, head) => {
      const index = layer * width + head;
      const cell = make("button", { type: "button", class: "cell", role: "gridcell", tabindex: -1, "data-head": index });
      cells[index] = cell;
      return cell;
    });
    const name = own.layers <= 24 || layer % 2 === 0 ? String(layer) : "";
    return make("div", { role: "row" }, make("span", { class: "axis left", role: "rowheader", "aria-label": `layer ${layer}` }, name), each);
  });
  grid.replaceChildren(make("div", { role: "row", "aria-hidden": "true" }, top), ...rows);
  grid.dataset.size = size;
  grid.dataset.unit = unit;
  paint();
}
function paint() {
  const one = score(), most = reach(one), size = Number(document.getElementById("grid").dataset.size);
  cells.forEach((cell, index) => {
    const value = one.values[index], known = value !== null;
    const rgb = known ? mix(one.signed ? RDBU : VIRIDIS, scaled(one, value, most)) : null;
    cell.className = `cell${known ? "" : " none"}${flagged(one, index) ? " flagged" : ""}`;
    cell.style.backgroundColor = known ? `rgb(${rgb.join(",")})` : "";
    cell.style.color = known && bright(rgb) ? "#111" : "#fff";
    cell.textContent = known && size >= 30 ? value.toFixed(2).replace(/^(-?)0\./, "$1.").replace("-.00", ".00") : "";
    cell.setAttribute("aria-label", describe(one, index).replaceAll("\n", ", "));
    cell.setAttribute("aria-selected", String(isChosen(index, one.unit)));
  });
  const chosen = cells.findIndex((_, index) => isChosen(index, one.unit)), start = chosen >= 0 ? chosen : order(one)[0] ?? 0;
  cells.forEach((cell, index) => { cell.tabIndex = index === start ? 0 : -1; });
  drawLegend(one, most);
}
function isChosen(index, unit) { // a head is also shown where its keys and values are, and the other way round
  if (state.head === null || state.unit === unit) return state.head === index;
  if (groupSize(model()) === null) return false;
  return unit === "kv_head" ? kvOf(model(), state.head) === index : kvOf(model(), index) === state.head;
}
function drawLegend(one, most) {
  const known = one.null ? one.null.filter((value) => value !== null) : [];
  const null_ = known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
  const at = null_ === null ? null : Math.min(1, Math.max(0, scaled(one, null_, most)));
  const bar = make("div", { class: "bar" },
    make("div", null, `${one.meaning} [${one.units}]`),
    make("div", { style: { position: "relative" } },
      make("div", { class: "strip", style: { background: strip(one.signed ? RDBU : VIRIDIS) } }),
      at === null ? null : make("span", { class: "null", title: "mean null", style: { left: `calc(${(100 * at).toFixed(2)}% - 1px)` } })),
    make("div", { class: "ends" }, make("span", null, one.signed ? shown(-most) : "0"), make("span", null, one.signed ? "0" : shown(most / 2)), make("span", null, shown(most))));
  const keys = [];
  if (one.flag) keys.push(make("span", { class: "key" }, make("span", { class: "cell flagged", style: { background: "#26828e" } }), "beyond chance (false discovery rate 5% over all heads)"));
  if (null_ !== null) keys.push(make("span", { class: "key" }, `mark on the bar: mean null, ${shown(null_)}`));
  if (one.values.includes(null)) keys.push(make("span", { class: "key" }, make("span", { class: "cell none" }), "not measured"));
  document.getElementById("legend").replaceChildren(bar, make("div", null, keys.map((key) => make("div", null, key))));
  const count = one.flag ? one.flag.filter((flag) => flag === 1).length : null;
  document.getElementById("about").replaceChildren(
    one.unit === "kv_head" ? `${sharing(model())} ` : "", count === null ? "" : `${count} of ${order(one).length} ${many(one.unit)} beyond chance. `, runLink(one.run), ` · ${page.runs[one.run].count ? `n = ${page.runs[one.run].count}` : ""}`);
  document.getElementById("coloured").textContent = titleOf(one);
}
function sharing(own) { // what a column stands for where heads have keys and values in common
  const size = groupSize(own);
  const whose = size === null ? "Several query heads can share one." : size === 1 ? "Each query head has its own." : `Each is shared by ${size} query heads: L0KV0 by ${queriesOf(own, 0).map((i) => nameOf(i)).join(", ")}.`;
  return `A column is a key/value head. ${whose}`;
}
function runLink(number) {
  return make("button", { type: "button", class: "link", title: page.runs[number].command, on: { click: () => openRun(number) } }, `run ${number + 1}`);
}
function openRun(number) {
  const details = document.getElementById(`run-${number}`);
  details.open = true;
  close();
  details.scrollIntoView({ block: "center" });
  details.querySelector("summary").focus();
}
function onGridKey(event) {
  const own = model(), index = cells.indexOf(document.activeElement);
  if (index < 0) return;
  const width = wide(own, score().unit), column = index % width, first = index - column, last = own.layers * width - 1;
  const to = { ArrowLeft: column ? index - 1 : index, ArrowRight: column < width - 1 ? index + 1 : index,
    ArrowUp: index - width, ArrowDown: index + width, Home: event.ctrlKey ? 0 : first,
    End: event.ctrlKey ? last : first + width - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  if (to < 0 || to > last) return;
  cells[index].tabIndex = -1;
  cells[to].tabIndex = 0;
  cells[to].focus();
}

// -- choosing -------------------------------------------------------------------------------------------------------
function choose(index, focus, unit = "head") {
  Object.assign(state, { head: index, unit });
  unhint();
  cells.forEach((cell, at) => cell.setAttribute("aria-selected", String(isChosen(at, score().unit))));
  drawCard();
  drawRevisions();
  const card = document.getElementById("card");
  card.classList.add("open");
  if (focus) card.querySelector("h2").focus({ preventScroll: innerWidth > 900 });
  remember();
}
function close() {
  document.getElementById("card")?.classList.remove("open");
  if (state.head !== null && innerWidth <= 900) cells.find((_, at) => isChosen(at, score().unit))?.focus();
}
function colour(number) {
  state.score = number;
  const one = score();
  const what = document.getElementById("what"), which = document.getElementById("which");
  what.value = String(kinds().findIndex((kind) => kind.key === keyOf(one)));
  fillStatistics();
  which.value = String(number);
  fillMinus();
  if (document.getElementById("grid").dataset.unit === one.unit && cells.length === score().values.length) paint();
  else drawMap();
  drawHeads();
  drawRevisions();
  markTypes();
  markOverlap();
  if (state.head !== null) drawCard();
  said.textContent = `coloured by ${titleOf(one)}`;
  remember();
}
const keyOf = (one) => `${one.run} ${one.unit} ${one.kind}`;
function kinds(own = model()) {
  const found = [];
  own.scores.forEach((one, number) => {
    let kind = found.find((other) => other.key === keyOf(one));
    if (!kind) found.push((kind = { key: keyOf(one), name: one.unit === "kv_head" ? `${one.kind} (key/value heads)` : one.kind, group: one.group, run: one.run, numbers: [] }));
    kind.numbers.push(number);
  });
  const twice = (kind) => found.filter((other) => other.name === kind.name).length > 1;
  for (const kind of found) kind.shown = twice(kind) ? `${words(kind.name)} (run ${kind.run + 1})` : words(kind.name);
  return found;
}
function fillStatistics() {
  const own = kinds().find((kind) => kind.numbers.includes(state.score));
  document.getElementById("which").replaceChildren(...own.numbers.map((number) => make("option", { value: number }, model().scores[number].meaning)));
}
function comparable() { // models whose heads are the same places, with the same score
  const own = model();
  return page.models.map((other, at) => [other, at]).filter(([other, at]) => at !== state.model && alike(other, own, raw().unit) && like(other, raw()));
}
function fillMinus() {
  const select = document.getElementById("minus"), others = comparable();
  if (!others.some(([, at]) => at === state.minus)) state.minus = null;
  select.parentElement.hidden = others.length === 0;
  select.replaceChildren(make("option", { value: "" }, "nothing"), ...others.map(([other, at]) => make("option", { value: at }, other.shown)));
  select.value = state.minus === null ? "" : String(state.minus);
}
function fillKinds() {
  const all = kinds();
  document.getElementById("what").replaceChildren(...Object.entries(GROUPS).map(([group, title]) => {
    const own = all.map((kind, at) => [kind, at]).filter(([kind]) => kind.group === group);
    return own.length ? make("optgroup", { label: title }, own.map(([kind, at]) => make("option", { value: at }, kind.shown))) : null;
  }).filter(Boolean));
}
function remember() {
  const one = score(), facts = { m: state.model, k: one.kind, r: one.run, s: one.name };
  if (state.head !== null) facts.h = nameOf(state.head, state.unit);
  if (state.minus !== null) facts.d = state.minus;
  try { history.replaceState(null, "", `#${new URLSearchParams(facts)}`); } catch { /* a page in a frame may not */ }
}
// what a page opens on: what heads do to the answer; else where few of them look; what most of them do says least
const selective = (one) => !one.flag || one.flag.filter((flag) => flag === 1).length <= one.flag.length / 2;
function first(own) {
  const told = (one) => one.headline && one.flag && one.flag.includes(1);
  const tries = [(one) => one.headline && one.group === "effects", (one) => told(one) && selective(one), told, (one) => one.headline];
  return Math.max(0, tries.map((fits) => own.scores.findIndex(fits)).find((at) => at >= 0) ?? 0);
}
function recall() {
  const facts = new URLSearchParams(location.hash.slice(1)), number = Number(facts.get("m"));
  if (facts.has("m") && page.models[number]) state.model = number;
  const own = model(), found = own.scores.findIndex((one) => one.kind === facts.get("k") && one.name === facts.get("s") && String(one.run) === facts.get("r"));
  state.score = found >= 0 ? found : first(own);
  state.minus = facts.has("d") && raw() && comparable().some(([, at]) => at === Number(facts.get("d"))) ? Number(facts.get("d")) : null;
  const head = /^L(\d+)(H|KV)(\d+)$/.exec(facts.get("h") || "");
  state.unit = head && head[2] === "KV" ? "kv_head" : "head";
  state.head = head && Number(head[1]) < own.layers && Number(head[3]) < wide(own, state.unit) ? Number(head[1]) * wide(own, state.unit) + Number(head[3]) : null;
}

// -- tables ---------------------------------------------------------------------------------------------------------
// columns: { name, get(row), show?(row) -> text or elements, number?, broad? (sentences), hidden? (in the CSV alone) }
function table(all, rows, options) {
  const columns = all.filter((column) => !column.hidden);
  const body = make("tbody"), box = make("div", { class: "tall", tabindex: 0, role: "region", "aria-label": options.label });
  const more = button("", () => { limit = Infinity; fill(); });
  let by = options.by ?? null, down = options.down ?? true, limit = SHOWN, sorted = rows;
  const heads = columns.map((column, at) => make("th", { scope: "col", class: column.number ? "n" : null },
    make("button", { type: "button", on: { click: () => { down = by === at ? !down : Boolean(column.number); by = at; fill(); } } }, column.name)));
  function fill() {
    sorted = rows.slice();
    if (by !== null) sorted.sort((a, b) => compare(columns[by].get(a), columns[by].get(b), down));
    heads.forEach((head, at) => (at === by ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort")));
    body.replaceChildren(...sorted.slice(0, limit).map((row) => make("tr", { class: options.on?.(row) ? "on" : null, ...(options.mark?.(row) || {}) },
      columns.map((column) => make("td", { class: column.number ? "n" : column.broad ? "sentence" : null }, column.show ? [column.show(row)].flat() : column.number ? shown(column.get(row)) : String(column.get(row) ?? ""))))));
    more.hidden = sorted.length <= limit;
    more.textContent = `Show all ${sorted.length}`;
  }
  fill();
  box.append(make("table", null, make("caption", { class: "unseen" }, options.label), make("thead", null, make("tr", null, heads)), body));
  const save = button("Download CSV", () => download(options.file, [all.map((column) => column.name), ...sorted.map((row) => all.map((column) => column.get(row)))]));
  return { box, save, more };
}
function compare(a, b, down) { // what is not known comes last, whichever way
  if (a === null || a === undefined || b === null || b === undefined) return (a ?? null) === (b ?? null) ? 0 : (a ?? null) === null ? 1 : -1;
  const way = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  return down ? -way : way;
}
function field(value) { // a spreadsheet must not run what a file said
  const text = value === null || value === undefined ? "" : String(value);
  const safe = typeof value !== "number" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
const download = (name, rows) => save(new Blob([rows.map((row) => row.map(field).join(",")).join("\r\n") + "\r\n"], { type: "text/csv" }), name);
function save(blob, name) {
  const link = make("a", { href: URL.createObjectURL(blob), download: name.replace(/[^\w.-]+/g, "-") });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
const headButton = (index, unit = "head") => make("button", { type: "button", class: "link head", on: { click: () => choose(index, true, unit) } }, nameOf(index, unit));

function drawHeads() {
  const own = model(), one = score(), run = page.runs[one.run];
  const columns = [
    { name: "head", get: (i) => nameOf(i, one.unit), show: (i) => headButton(i, one.unit) },
    { name: "query heads", get: (i) => queriesOf(own, i).map((head) => nameOf(head)).join(" ") },
    { name: "rank", get: (i) => rank(one, i), number: true, show: (i) => String(rank(one, i) ?? "–") },
    { name: "depth", get: (i) => Number(depth(own, i, one.unit).toFixed(3)), number: true, show: (i) => depth(own, i, one.unit).toFixed(2) },
    { name: "value", get: (i) => one.values[i], number: true },
    { name: "low", get: (i) => part(one, "low", i), number: true }, { name: "high", get: (i) => part(one, "high", i), number: true },
    { name: "null", get: (i) => part(one, "null", i), number: true }, { name: "q", get: (i) => part(one, "q", i), number: true },
    { name: "beyond chance", get: (i) => part(one, "flag", i), show: (i) => (one.flag ? (flagged(one, i) ? "yes" : "no") : "") },
  ].filter((column) => !["low", "high", "null", "q"].includes(column.name) || one[column.name])
    .filter((column) => (column.name !== "beyond chance" || one.flag) && (column.name !== "query heads" || one.unit === "kv_head"));
  const rows = document.getElementById("only").checked ? order(one).filter((i) => flagged(one, i)) : one.values.map((_, i) => i);
  const made = table(columns, rows, { label: `${many(one.unit)} by ${titleOf(one)}`, by: columns.findIndex((column) => column.name === (one.first === "highest" ? "value" : "rank")), down: one.first === "highest", file: `${own.name}-${one.kind}-${one.name}.csv` });
  const all = button("All scores as CSV", () => download(`${own.name}-scores.csv`, longRows(own)));
  document.getElementById("heads").replaceChildren(
    make("div", { class: "top" }, make("p", { class: "quiet" }, `${titleOf(one)} [${one.units}]; `, make("code", null, run.command)), make("span", null, made.save, " ", all)), made.box, made.more);
}
function longRows(own) {
  const rows = [["model", "revision", "weights", "layer", "head", "type", "unit", "statistic", "meaning", "units", "value", "low", "high", "null", "q", "beyond_chance", "n", "command", "date", "nnheads_commit"]];
  for (const one of own.scores) {
    const run = page.runs[one.run];
    one.values.forEach((value, i) => rows.push([own.name, own.revision, own.commit, ...place(own, i, one.unit), one.kind, one.unit, one.name, one.meaning, one.units, value,
      part(one, "low", i), part(one, "high", i), part(one, "null", i), part(one, "q", i), part(one, "flag", i), run.count, run.command, run.date, run.code]));
  }
  return rows;
}

// -- the panels below -----------------------------------------------------------------------------------------------
const groupOf = ({ one }) => Object.keys(GROUPS).indexOf(one.group);
const headlines = () => model().scores.map((one, number) => ({ one, number })).filter(({ one }) => one.headline).sort((a, b) => groupOf(a) - groupOf(b));
function roleNames(index, unit = "head") { // types that flag a head, and roles that a study gives it
  const flags = headlines().filter(({ one }) => one.unit === unit && selective(one) && flagged(one, index)).map(({ one }) => one.kind);
  const given = unit === "kv_head" ? [] : model().roles.filter(({ head }) => head[0] * model().heads + head[1] === index).map(({ role }) => role);
  return [...new Set([...flags, ...given])].map(words);
}
let typesTable = null;
function drawTypes() {
  const names = new Map(kinds().map((kind) => [kind.key, kind.shown]));
  const columns = [
    { name: "score", get: ({ one }) => names.get(keyOf(one)), show: ({ one, number }) => make("div", { class: "what" }, make("button", { type: "button", class: "link", on: { click: () => { colour(number); document.getElementById("coloured").scrollIntoView({ block: "nearest" }); } } }, names.get(keyOf(one))), make("div", { class: "quiet" }, one.meaning)) },
    { name: "beyond chance", number: true, get: ({ one }) => (one.flag ? one.flag.filter((flag) => flag === 1).length : null), show: ({ one }) => (one.flag ? String(one.flag.filter((flag) => flag === 1).length) : "–") },
    { name: "first", number: true, get: ({ one }) => (order(one).length ? one.values[order(one)[0]] : null) },
    { name: "strongest heads", get: ({ one }) => order(one).slice(0, 5).map((i) => nameOf(i, one.unit)).join(" "), show: ({ one }) => make("span", { class: "chips row" }, order(one).slice(0, 3).map((i) => chip(i, one))) },
  ];
  const made = table(columns, headlines(), { label: "Scores", file: `${model().name}-types.csv`, mark: ({ number }) => ({ "data-score": number }) });
  typesTable = made.box;
  document.getElementById("types").replaceChildren(heading("What was measured", made.save), made.box, made.more);
  markTypes();
}
const markTypes = () => typesTable?.querySelectorAll("tr[data-score]").forEach((row) => row.classList.toggle("on", Number(row.dataset.score) === state.score));
const chip = (i, one) => make("button", { type: "button", class: `chip${flagged(one, i) ? " flagged" : ""}`, title: describe(one, i), on: { click: () => choose(i, true, one.unit) } }, `${nameOf(i, one.unit)} ${shown(one.values[i])}`);
function drawSeveral() {
  const own = model(), rows = [];
  for (let i = 0; i < own.layers * own.heads; i++) { const names = roleNames(i); if (names.length > 1) rows.push({ i, names }); }
  const panel = document.getElementById("several");
  panel.hidden = rows.length === 0;
  if (!rows.length) return;
  const made = table([
    { name: "head", get: ({ i }) => nameOf(i), show: ({ i }) => headButton(i) },
    { name: "roles", number: true, get: ({ names }) => names.length, show: ({ names }) => String(names.length) },
    { name: "which", get: ({ names }) => names.join("; "), show: ({ names }) => make("span", { class: "chips" }, names.map((name) => make("span", { class: "chip plain" }, name))) },
  ], rows, { label: "Heads with several roles", by: 1, file: `${own.name}-roles.csv` });
  panel.replaceChildren(heading("Heads with several roles", made.save), made.box, made.more);
}
function curve(knock) {
  const W = 420, H = 210, left = 44, bottom = 34, top = 10, lines = knock.lines;
  const all = [0, ...Object.entries(lines).filter(([name]) => name !== "p").flatMap(([, values]) => values), knock.base[0]].filter((value) => value !== null);
  const low = Math.min(...all), high = Math.max(...all), span = high - low || 1;
  const x = (i) => left + (i * (W - left - 12)) / Math.max(1, knock.k.length - 1), y = (value) => H - bottom - ((value - low) / span) * (H - bottom - top);
  const path = (values) => values.map((value, i) => (value === null ? "" : `${i && values[i - 1] !== null ? "L" : "M"}${x(i).toFixed(1)} ${y(value).toFixed(1)}`)).join("");
  const area = (a, b) => `${path(a)}L${b.map((value, i) => `${x(i).toFixed(1)} ${y(value ?? low).toFixed(1)}`).reverse().join("L")}Z`;
  const svg = drawn("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", width: "100%", "aria-label": `${knock.metric} without the first K heads: ${knock.k.map((k, i) => `${k}: ${shown(lines.value[i])}`).join(", ")}` });
  svg.append(...[low, (low + high) / 2, high].map((value) => { const text = drawn("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }); text.textContent = shown(value); return text; }));
  svg.append(...[low, high].map((value) => drawn("line", { x1: left, x2: W - 12, y1: y(value), y2: y(value), stroke: "var(--line)" })));
  if (lines.random_low) svg.append(drawn("path", { d: area(lines.random_high, lines.random_low), fill: "var(--quiet)", opacity: 0.18 }));
  if (lines.random) svg.append(drawn("path", { d: path(lines.random), fill: "none", stroke: "var(--quiet)", "stroke-dasharray": "5 4", "stroke-width": 1.5 }));
  if (lines.low) svg.append(drawn("path", { d: area(lines.high, lines.low), fill: "var(--accent)", opacity: 0.2 }));
  svg.append(drawn("path", { d: path(lines.value), fill: "none", stroke: "var(--accent)", "stroke-width": 2.5 }));
  const step = Math.ceil(knock.k.length / 10);
  knock.k.forEach((k, i) => {
    if (lines.value[i] === null) return;
    const dot = drawn("circle", { cx: x(i), cy: y(lines.value[i]), r: 4, fill: "var(--accent)" }), name = drawn("title", {});
    name.textContent = `${k} heads: ${shown(lines.value[i])} ${lines.low ? interval(lines.low[i], lines.high[i]) : ""}`;
    dot.append(name);
    svg.append(dot);
    if (i % step === 0) { const text = drawn("text", { x: x(i), y: H - bottom + 16, "text-anchor": "middle" }); text.textContent = k; svg.append(text); }
  });
  const axis = drawn("text", { x: (W + left) / 2, y: H - 4, "text-anchor": "middle" });
  axis.textContent = "heads knocked out";
  svg.append(axis);
  return svg;
}
function drawKnockouts() {
  const panel = document.getElementById("knockouts"), all = model().knockouts;
  panel.hidden = all.length === 0;
  panel.replaceChildren(heading("What knocking them out does"), make("div", { class: "plots" }, all.map((knock) => make("figure", null,
    make("figcaption", null, make("b", null, knock.metric), ` [${knock.units}]: ${knock.behaviour}; ${knock.ablation} ablation, `, runLink(knock.run)), curve(knock),
    make("p", { class: "quiet" }, "Blue: the list, with its 95% interval", knock.lines.random ? "; grey: as many random heads of the same layers." : "."),
    make("p", { class: "chips" }, knock.members.map((name) => { const i = indexOf(name); return i === null ? make("span", { class: "chip plain" }, name) : make("button", { type: "button", class: "chip", on: { click: () => choose(i, true) } }, name); })),
    knock.warning ? make("p", { class: "warn" }, knock.warning) : null))));
}
function indexOf(name) {
  const match = /^L(\d+)H(\d+)$/.exec(name), own = model();
  return match && Number(match[1]) < own.layers && Number(match[2]) < own.heads ? Number(match[1]) * own.heads + Number(match[2]) : null;
}
// -- over revisions -------------------------------------------------------------------------------------------------
const stepOf = (revision) => { const found = /step[-_]?(\d{1,12})/.exec(revision); return found ? Number(found[1]) : null; };
function series(one) { // the same score of all revisions of this model, in the order of their steps
  const own = model();
  const found = page.models.filter((other) => other.name === own.name && alike(other, own, one.unit))
    .map((other) => ({ other, score: like(other, one) })).filter(({ score }) => score);
  const stepped = found.every(({ other }) => stepOf(other.revision) !== null);
  return stepped ? found.sort((a, b) => stepOf(a.other.revision) - stepOf(b.other.revision)) : found;
}
const LINES = ["#2f6fde", "#e07b00", "#1f9e63", "#c23b5a", "#8a5cd6", "#7a6a58"];
function drawRevisions() {
  const one = raw(), all = series(one), panel = document.getElementById("revisions");
  panel.hidden = all.length < 2;
  if (panel.hidden) return;
  const most = one.values.map((_, i) => Math.max(...all.map(({ score }) => score.values[i] ?? -Infinity)));
  const heads = most.map((_, i) => i).filter((i) => most[i] > -Infinity).sort((a, b) => most[b] - most[a] || a - b).slice(0, LINES.length);
  if (state.head !== null && state.unit === one.unit && !heads.includes(state.head)) heads[LINES.length - 1] = state.head;
  const W = 620, H = 240, left = 46, bottom = 30, top = 10, values = heads.flatMap((i) => all.map(({ score }) => score.values[i])).filter((value) => value !== null);
  const low = Math.min(0, ...values), high = Math.max(...values, 0) || 1;
  const x = (at) => left + (at * (W - left - 20)) / (all.length - 1), y = (value) => H - bottom - ((value - low) / (high - low || 1)) * (H - bottom - top);
  const label = (text, place, anchor) => { const made = drawn("text", { ...place, "text-anchor": anchor }); made.textContent = text; return made; };
  const svg = drawn("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", width: "100%", "aria-label": `${titleOf(one)} of the strongest heads over revisions; the table below has the numbers` });
  svg.append(...[low, (low + high) / 2, high].flatMap((value) => [drawn("line", { x1: left, x2: W - 20, y1: y(value), y2: y(value), stroke: "var(--line)" }), label(shown(value), { x: left - 6, y: y(value) + 4 }, "end")]));
  const step = Math.ceil(all.length / 8);
  all.forEach(({ other }, at) => { if (at % step === 0) svg.append(label(other.revision.slice(0, 14), { x: x(at), y: H - 8 }, at ? (at === all.length - 1 ? "end" : "middle") : "start")); });
  heads.forEach((i, number) => {
    const line = all.map(({ score }) => score.values[i]);
    svg.append(drawn("path", { d: line.map((value, at) => (value === null ? "" : `${at && line[at - 1] !== null ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`)).join(""), fill: "none", stroke: LINES[number], "stroke-width": i === state.head ? 3.5 : 2 }));
    line.forEach((value, at) => {
      if (value === null) return;
      const dot = drawn("circle", { cx: x(at), cy: y(value), r: 4, fill: LINES[number] }), name = drawn("title", {});
      name.textContent = `${nameOf(i, one.unit)} at ${all[at].other.revision}: ${shown(value)} ${interval(part(all[at].score, "low", i), part(all[at].score, "high", i))}`;
      dot.append(name);
      svg.append(dot);
    });
  });
  const made = table([
    { name: "head", get: (i) => nameOf(i, one.unit), show: (i) => make("span", null, make("i", { class: "swatch", style: { background: LINES[heads.indexOf(i)] } }), headButton(i, one.unit)) },
    ...all.map(({ other, score }) => ({ name: other.revision, number: true, get: (i) => score.values[i] })),
  ], heads, { label: `${titleOf(one)} over revisions`, file: `${model().name}-${one.kind}-revisions.csv` });
  panel.replaceChildren(heading("Over revisions", made.save), make("p", { class: "quiet" }, titleOf(one)), svg, made.box);
}
function drawRuns() {
  const list = page.runs.map((run, number) => make("details", { class: "run", id: `run-${number}` },
    make("summary", null, make("b", null, `${number + 1}. ${words(run.kind)}`), ` · ${run.model} ${run.revision} · `, make("code", null, run.command)),
    make("dl", null, [
      ["command", make("code", null, run.command)], ["date", run.date], ["model", `${run.model} ${run.revision}`], ["weights", run.weights],
      ["computed in", [run.dtype, run.attention].filter(Boolean).join(", ")], ["nnheads commit", run.code ? run.code + (run.changed ? " with changes" : "") : ""],
      ["versions", Object.entries(run.packages).map(([name, version]) => `${name} ${version}`).join(", ")], ["prompts", [run.count, run.prompts_sha256 && `sha256 ${run.prompts_sha256}`].filter(Boolean).join("; ")],
      ["tokenizer", run.tokenizer_sha256 && `sha256 ${run.tokenizer_sha256}`], ["seed", run.seed], ["method", run.references], ["folder", run.folder], ["files", run.files.join(", ")],
      ["on this page", [run.shown && "numbers by head", run.more && "tables and pictures under More results"].filter(Boolean).join("; ") || "nothing; see its files"],
    ].filter(([, value]) => value).flatMap(([name, value]) => [make("dt", null, name), make("dd", null, value)]))));
  const left = page.unfinished.length ? make("p", { class: "warn" }, `Left out, not finished: ${page.unfinished.join(", ")}`) : null;
  return make("section", { class: "panel", id: "runs" }, heading("Where every number comes from"), left, list);
}

// -- the card of a head ---------------------------------------------------------------------------------------------
function drawCard() {
  const card = document.getElementById("card"), own = model(), i = state.head;
  if (i === null) {
    card.replaceChildren(heading("A head"), make("p", { class: "quiet" }, "Click a head, or reach one with Tab and the arrow keys and press Enter. Its card says what it looks at, what it writes, and what happens without it."));
    return;
  }
  const unit = state.unit, [layer] = place(own, i, unit), roles = roleNames(i, unit);
  const top = make("div", { class: "top" }, make("h2", { class: "big", tabindex: -1 }, nameOf(i, unit)), make("span", null, button("Close", close, { class: "button close", "aria-label": "Close the card" })));
  card.replaceChildren(top, make("p", { class: "quiet" }, `${own.shown}; layer ${layer} of ${own.layers}, relative depth ${depth(own, i, unit).toFixed(2)}`),
    roles.length ? make("p", { class: "chips", "aria-label": "roles" }, roles.map((name) => make("span", { class: "chip flagged plain" }, name))) : make("p", { class: "quiet" }, "No score flags it."),
    ...(unit === "kv_head" ? [cardQueries(i)] : []), ...cardScores(i, headlines().filter(({ one }) => one.unit === unit)),
    ...(unit === "kv_head" ? [] : [...cardShared(i), ...cardKnockouts(i), ...cardTexts(i)]), cardRest(i, unit));
}
function cardQueries(i) {
  const heads = queriesOf(model(), i);
  return make("p", null, "A key/value head: ", heads.length > 1 ? "its keys and values are shared by the query heads " : heads.length ? "its keys and values are those of the query head " : "its query heads are not known here.", heads.flatMap((head) => [headButton(head), " "]));
}
function cardShared(i) { // what is known of a head's keys and values, which it may share
  const own = model(), list = groupSize(own) === null ? [] : headlines().filter(({ one }) => one.unit === "kv_head" && one.values[kvOf(own, i)] !== null);
  if (!list.length) return [];
  const others = queriesOf(own, kvOf(own, i)).filter((head) => head !== i).map((head) => nameOf(head));
  return [make("h3", null, "Its keys and values"), make("p", { class: "quiet" }, headButton(kvOf(own, i), "kv_head"), others.length ? `, shared with ${others.join(", ")}` : ""), scoreTable(kvOf(own, i), list, (one) => words(one.kind))];
}
function cardScores(i, list) {
  return Object.entries(GROUPS).flatMap(([group, title]) => {
    const own = list.filter(({ one }) => one.group === group && one.values[i] !== null);
    if (!own.length) return [];
    own.sort((a, b) => (flagged(b.one, i) - flagged(a.one, i)) || rank(a.one, i) - rank(b.one, i));
    return [make("h3", null, title), scoreTable(i, own, (one) => words(one.kind))];
  });
}
function scoreTable(i, list, name) {
  const rows = list.map(({ one, number }) => make("tr", { class: number === state.score ? "on" : null },
    make("td", null, make("button", { type: "button", class: "link", title: `${titleOf(one)} [${one.units}]; n = ${page.runs[one.run].count || "?"}; ${page.runs[one.run].command}`, on: { click: () => colour(number) } }, name(one))),
    make("td", { class: "n" }, `${shown(one.values[i])}${flagged(one, i) ? " *" : ""}`, make("div", { class: "quiet" }, interval(part(one, "low", i), part(one, "high", i)))),
    make("td", { class: "reaches" }, span(one, i)), make("td", { class: "n" }, shown(part(one, "null", i))), make("td", { class: "n" }, `${rank(one, i)}/${order(one).length}`)));
  return make("table", null, make("thead", null, make("tr", null, ["score", "value", "", "null", "rank"].map((text, at) => make("th", { scope: "col", class: at === 2 ? "reaches" : at ? "n" : null }, text)))), make("tbody", null, rows));
}
function span(one, i) { // value, interval and null on the range of all heads
  const ends = [one.values, one.low, one.high].filter(Boolean).flatMap((values) => [Math.min(...values.map((v) => v ?? 0)), Math.max(...values.map((v) => v ?? 0))]);
  const low = Math.min(0, ...ends), high = Math.max(...ends) || 1, at = (value) => `${((100 * (value - low)) / (high - low || 1)).toFixed(1)}%`;
  const from = part(one, "low", i), to = part(one, "high", i), null_ = part(one, "null", i);
  return make("div", { class: "span", title: describe(one, i) }, make("i", { class: "track" }),
    from === null || to === null ? null : make("i", { class: "reach", style: { left: at(from), width: `${((100 * (to - from)) / (high - low || 1)).toFixed(1)}%` } }),
    null_ === null ? null : make("i", { class: "tick", style: { left: at(null_) } }), make("i", { class: "dot", style: { left: at(one.values[i]) } }));
}
function cardRest(i, unit) {
  const list = model().scores.map((one, number) => ({ one, number })).filter(({ one }) => one.unit === unit && !one.headline && one.values[i] !== null);
  const details = make("details", null, make("summary", { class: "quiet" }, `${list.length} more statistic${list.length > 1 ? "s" : ""}`));
  details.addEventListener("toggle", () => { if (details.open && !details.querySelector("table")) details.append(scoreTable(i, list, (one) => titleOf(one))); });
  return list.length ? details : make("span");
}
function cardKnockouts(i) {
  const own = model().knockouts.filter((knock) => knock.members.includes(nameOf(i)));
  if (!model().knockouts.length) return [];
  const change = ([value, low, high]) => `${value > 0 ? "+" : ""}${shown(value)} ${interval(low, high)}`;
  return [make("h3", null, "Without it"), ...(own.length ? own.map((knock) => {
    const at = knock.members.indexOf(nameOf(i));
    return make("p", null, `${knock.behaviour}: ${knock.metric} is ${shown(knock.base[0])}. `, make("br"), `Knocked out alone (${knock.ablation} ablation) it changes by ${change(knock.alone[at])}; after the others of the list by ${change(knock.last[at])}; the whole list of ${knock.members.length} changes it by ${change(knock.joint)}. `, runLink(knock.run));
  }) : [make("p", { class: "quiet" }, "It is on no list that was knocked out.")])];
}
function cardTexts(i) {
  const own = model(), key = place(own, i, "head").join("."), list = own.texts.filter((text) => text.patterns[key]);
  if (!list.length) return own.texts.length ? [make("h3", null, "Its attention"), make("p", { class: "quiet" }, "Not recorded for this head.")] : [];
  const box = make("div");
  const tabs = list.length > 1 ? make("p", { class: "chips" }, list.map((text, at) => button(text.title, () => show(at), { class: "chip", "aria-pressed": "false" }))) : null;
  function show(at) {
    tabs?.querySelectorAll("button").forEach((one, number) => { one.classList.toggle("flagged", number === at); one.setAttribute("aria-pressed", String(number === at)); });
    box.replaceChildren(...attention(list[at], key));
  }
  show(0);
  return [make("h3", null, "Its attention"), tabs, box].filter(Boolean);
}
function attention(text, key) {
  const bytes = Uint8Array.from(atob(text.patterns[key]), (letter) => letter.charCodeAt(0)), n = text.tokens.length;
  const at = (query, k) => (k > query ? 0 : bytes[(query * (query + 1)) / 2 + k] / 255);
  const visible = (token) => token.replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";
  const line = make("p", { class: "quiet", role: "status" });
  const chips = text.tokens.map((token, query) => make("button", { type: "button", class: "token", "aria-pressed": "false", tabindex: query === n - 1 ? 0 : -1,
    on: { mouseenter: () => pick(query), focus: () => pick(query), click: () => pick(query) } }, visible(token)));
  function pick(query) {
    let best = 0;
    chips.forEach((one, k) => {
      const value = at(query, k);
      if (value > at(query, best)) best = k;
      one.style.backgroundColor = k <= query ? `rgba(var(--accent-rgb), ${(0.75 * value).toFixed(3)})` : "";
      one.classList.toggle("later", k > query);
      one.setAttribute("aria-pressed", String(k === query));
      one.title = k <= query ? `attention ${at(query, k).toFixed(2)}` : "later";
      one.tabIndex = k === query ? 0 : -1;
    });
    line.textContent = `from “${visible(text.tokens[query])}” (${query}): most to “${visible(text.tokens[best])}” (${best}), ${at(query, best).toFixed(2)}`;
  }
  const strip_ = make("div", { class: "tokens", role: "group", "aria-label": "tokens; the chosen one looks at the shaded ones", on: { keydown: (event) => {
    const to = { ArrowLeft: -1, ArrowRight: 1 }[event.key], now = chips.indexOf(document.activeElement);
    if (to && chips[now + to]) { event.preventDefault(); chips[now + to].focus(); }
  } } }, chips);
  const canvas = make("canvas", { width: n, height: n, role: "img", "aria-label": "attention, queries from top to bottom, keys from left to right" });
  const context = canvas.getContext("2d"), image = context.createImageData(n, n);
  for (let query = 0; query < n; query++) for (let k = 0; k <= query; k++) image.data.set([...mix(VIRIDIS, at(query, k)), 255], 4 * (query * n + k));
  context.putImageData(image, 0, 0);
  const where = (event) => { const box = canvas.getBoundingClientRect(); return [(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width].map((share) => Math.min(n - 1, Math.max(0, Math.floor(share * n)))); };
  canvas.addEventListener("mousemove", (event) => { const [query, k] = where(event); hint(k > query ? "later" : `“${visible(text.tokens[query])}” looks at “${visible(text.tokens[k])}”: ${at(query, k).toFixed(2)}`, event.clientX, event.clientY); });
  canvas.addEventListener("mouseleave", unhint);
  canvas.addEventListener("click", (event) => pick(where(event)[0]));
  pick(n - 1);
  return [line, strip_, canvas];
}
