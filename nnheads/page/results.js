// -- what runs say besides a number for each head -------------------------------------------------------------------
function drawResults() {
  const panel = document.getElementById("results"), all = model().results;
  panel.hidden = all.length === 0;
  panel.replaceChildren(heading("More results"), make("p", { class: "quiet" }, "Small tables and pictures of each run, as its files hold them."), ...all.map(drawResult));
}
const counted = (n, name) => (n ? `${n} ${name}${n > 1 ? "s" : ""}` : null);
function drawResult(found) {
  const run = page.runs[found.run], details = make("details", { class: "run", "data-results": found.run },
    make("summary", null, make("b", null, `${found.run + 1}. ${words(run.kind)}`), ` · ${[counted(found.tables.length, "table"), counted(found.pictures.length, "picture")].filter(Boolean).join(", ")} · `, make("code", null, run.command)));
  const fill = () => { if (details.open && details.childElementCount === 1) details.append(...insides(found, run)); };
  details.addEventListener("toggle", fill);
  details.open = !run.shown; // what is on no map is seen here or nowhere
  fill();
  return details;
}
function insides(found, run) {
  const left = found.left.length ? make("p", { class: "quiet" }, `Not on this page, but in the run's files: ${found.left.slice(0, 12).join("; ")}${found.left.length > 12 ? `; ${found.left.length - 12} more` : ""}.`) : null;
  const unseen = found.unseen.length ? make("p", { class: "warn" }, `Pictures that are not on this page: ${found.unseen.join("; ")}.`) : null;
  return [make("p", { class: "quiet" }, `${run.title}${run.count ? `; n = ${run.count}` : ""}; `, runLink(found.run)), found.pictures.length ? make("div", { class: "plots" }, found.pictures.map((one) => drawPicture(one, run))) : null,
    ...found.tables.flatMap((one) => drawTable(one, run)), unseen, left].filter(Boolean);
}
function drawPicture(one, run) {
  const image = make("img", { src: `data:image/png;base64,${one.data}`, width: one.width, height: one.height, alt: `${run.title}: ${words(one.name.replace(/\.png$/, ""))}`, decoding: "async" });
  const frame = make("button", { type: "button", class: "picture", "aria-pressed": "false", title: "enlarge, or make small again", on: { click: () => {
    frame.setAttribute("aria-pressed", String(frame.closest("figure").classList.toggle("whole")));
  } } }, image);
  const bytes = () => Uint8Array.from(atob(one.data), (letter) => letter.charCodeAt(0));
  return make("figure", { class: one.width > 1.9 * one.height ? "broad" : null }, make("div", { class: "scroll" }, frame), make("figcaption", { class: "quiet" }, `${one.name} `, button("Download", () => save(new Blob([bytes()], { type: "image/png" }), `${run.recipe}-${one.name}`), { "aria-label": `Download ${one.name}` })));
}
const unitsOf = (column) => (column.units && column.units !== "1" ? ` [${column.units}]` : "");
const counts = ({ values }) => values.every((value) => value === null || Number.isInteger(value)); // whole numbers need no digits
const ofColumn = (column, row) => (column.values[row] === null || (typeof column.values[row] === "number" && !counts(column)) ? shown(column.values[row]) : String(column.values[row]));
const withEnds = (column, row) => { // a value with its interval
  const ends = column.low && column.high ? interval(column.low[row], column.high[row]) : "";
  return ends ? [ofColumn(column, row), make("div", { class: "quiet" }, ends)] : ofColumn(column, row);
};
const isNumber = (values) => values.every((value) => value === null || typeof value === "number");
function drawTable(one, run) {
  const dims = one.dims.map(words).join(" and "), file = `${run.recipe}-${one.file.replace(/\.nc$/, "")}-${one.dims.join("-") || "values"}.csv`;
  const made = one.dims.length ? longTable(one, `${one.file} by ${dims}`, file) : singles(one, `${one.file}: single values`, file);
  const meant = one.dims.length ? make("details", null, make("summary", { class: "quiet" }, "What the columns are"), make("dl", null, one.columns.flatMap((column) => [make("dt", null, words(column.name)), make("dd", null, `${column.meaning} [${column.units}]${column.low ? ", with its interval" : ""}`)]))) : null;
  return [make("div", { class: "top" }, make("h3", null, one.dims.length ? `${one.file} by ${dims}` : one.file), made.save), made.box, made.more, meant].filter(Boolean);
}
function longTable(one, label, file) { // a row for each place
  const keys = one.keys.map((key) => ({ name: words(key.name), number: isNumber(key.values), broad: longest(key.values) > 24, get: (row) => key.values[row], show: (row) => String(key.values[row] ?? "–") }));
  const columns = one.columns.flatMap((column) => [
    { name: words(column.name) + unitsOf(column), number: isNumber(column.values), broad: longest(column.values) > 24, get: (row) => column.values[row], show: (row) => withEnds(column, row) },
    ...["low", "high"].filter((end) => column[end]).map((end) => ({ name: `${column.name}_${end}`, hidden: true, get: (row) => column[end][row] }))]);
  const [first, last] = apart(one).map((places) => places.map((at) => keys[at]));
  return table([...first, ...columns, ...last], Array.from({ length: one.rows }, (_, row) => row), { label, file });
}
const longest = (values) => values.reduce((most, value) => Math.max(most, String(value ?? "").length), 0);
function apart(one) { // keys before the values, and sentences that stand behind them, unless those are sentences, too
  const said = one.keys.map((key) => longest(key.values)), short = one.columns.every((column) => longest(column.values) <= 24);
  const late = (at) => short && at >= one.dims.length && said[at] > 24, kept = one.keys.map((_, at) => at).filter((at) => said[at] > 0);
  return [kept.filter((at) => !late(at)), kept.filter(late)];
}
function singles(one, label, file) { // a row for each quantity
  const rows = [...one.columns, ...one.keys.map((key) => ({ ...key, meaning: words(key.name), units: "1" }))];
  return table([
    { name: "quantity", get: (column) => column.name, show: (column) => [words(column.name), column.meaning && words(column.meaning) !== words(column.name) ? make("div", { class: "quiet" }, column.meaning) : ""] },
    { name: "value", number: isNumber(rows.map((column) => column.values[0])), get: (column) => column.values[0], show: (column) => withEnds(column, 0) },
    { name: "low", hidden: true, get: (column) => column.low?.[0] ?? null }, { name: "high", hidden: true, get: (column) => column.high?.[0] ?? null },
    { name: "units", get: (column) => column.units, show: (column) => (column.units === "1" ? "" : column.units) },
  ], rows, { label, file });
}
