"use strict";
const byId = (id) => document.getElementById(id);
const index = JSON.parse(byId("index").textContent);
const [field, modality, chosen, rows] = ["find", "modality", "class", "rows"].map(byId);
const studies = index.studies.map(([key, kind, files, image, failed, paths, answers], place) => ({
  number: place + 1, key, kind, files, image, failed, paths, lower: paths.toLowerCase(), answers,
}));
const order = { by: "place", down: false };
let matches = studies;
let page = 0;
function within(ranges, number) {
  return ranges.split(", ").some((range) => {
    const [first, last = first] = range.split("–").map(Number);
    return first <= number && number <= last;
  });
}
function answer(study, number) {
  for (let at = 0; at < study.answers.length; at += 2) if (study.answers[at] === number) return study.answers[at + 1];
  return -1;
}
function element(name, text, attributes) {
  const node = Object.assign(document.createElement(name), attributes);
  if (text) node.textContent = text;
  return node;
}
function image(place) {
  const { sheet, cell, across } = index.images;
  const on = place % (across * across);
  const node = byId("image").content.firstElementChild.cloneNode(true);
  node.setAttribute("viewBox", `${(on % across) * cell} ${Math.floor(on / across) * cell} ${cell} ${cell}`);
  node.firstElementChild.setAttribute("href", sheet.replace("#", Math.floor(place / (across * across))));
  return node;
}
function line(study) {
  const row = element("tr");
  const cells = ["td", "th", "td", "td", "td"].map((name) => row.appendChild(document.createElement(name)));
  cells[1].scope = "row";
  if (study.image === 1) {
    cells[0].append(image(study.number - 1));
  } else if (study.image === 2) cells[0].append(element("span", "withheld", { className: "small soft" }));
  const onPage = Math.floor((study.number - 1) / index.perPage) + 1;
  const href = `report${onPage > 1 ? `-${onPage}` : ""}.html#study-${study.number}`;
  const name = `Study ${study.number}`;
  cells[1].append(study.number <= index.numPaged ? element("a", name, { href }) : name, element("br"), element("code", study.key));
  cells[2].textContent = index.modalities[study.kind];
  const permille = answer(study, Number(chosen.value));
  const highest = index.highest[chosen.value];
  const shown = highest ? ((permille * highest) / 1000).toFixed(1) : `${Math.round(permille / 10)} %`;
  cells[3].textContent = permille < 0 ? "–" : shown;
  cells[3].className = "number";
  cells[4].textContent = study.paths || `${/\D/.test(study.files) ? "files" : "file"} ${study.files}`;
  cells[4].className = "paths";
  if (study.failed) {
    const text = `${study.failed} more ${study.failed === 1 ? "file" : "files"} not read`;
    cells[4].append(element("br"), element("span", text, { className: "tag bad" }));
  }
  return row;
}
function show() {
  const last = Math.max(1, Math.ceil(matches.length / index.shown));
  page = Math.min(Math.max(0, page), last - 1);
  rows.replaceChildren(...matches.slice(page * index.shown, (page + 1) * index.shown).map(line));
  byId("place").textContent = `Page ${(page + 1).toLocaleString("en")} of ${last.toLocaleString("en")}`;
  byId("back").disabled = page === 0;
  byId("on").disabled = page === last - 1;
  byId("pager").hidden = last === 1;
}
function find() {
  const text = field.value.trim().toLowerCase();
  const number = /^(?:files? *)?(\d+)$/.exec(text);
  const kind = modality.value === "" ? -1 : Number(modality.value);
  matches = studies.filter((study) => (kind < 0 || study.kind === kind) && (text === "" || study.key.startsWith(text)
    || study.lower.includes(text) || (number !== null && within(study.files, Number(number[1])))));
  const class_ = Number(chosen.value);
  const value = { place: (s) => s.number, modality: (s) => s.kind, answer: (s) => answer(s, class_) }[order.by];
  const sign = order.down ? -1 : 1;
  matches.sort((a, b) => sign * (value(a) - value(b)) || a.number - b.number);
  const all = studies.length.toLocaleString("en");
  const few = matches.length.toLocaleString("en");
  byId("state").textContent = matches.length === studies.length ? `${all} studies` : `${few} of ${all} studies`;
  page = 0;
  show();
}
for (const by of ["place", "modality", "answer"]) {
  const head = byId(`by-${by}`);
  const button = element("button", head.textContent, { type: "button" });
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    order.down = order.by === by ? !order.down : by === "answer";
    order.by = by;
    for (const other of ["place", "modality", "answer"]) byId(`by-${other}`).removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order.down ? "descending" : "ascending");
    find();
  });
}
function name() {
  byId("by-answer").firstChild.textContent = index.classes.length ? index.classes[Number(chosen.value)][0] : "Probability";
}
modality.append(element("option", "All", { value: "" }), ...index.modalities.map((text, at) => element("option", text, { value: at })));
index.classes.forEach(([title, task], at) => chosen.append(element("option", `${title} (${task})`, { value: at })));
chosen.value = index.chosen;
field.addEventListener("input", find);
modality.addEventListener("change", find);
chosen.addEventListener("change", () => { name(); find(); });
byId("back").addEventListener("click", () => { page -= 1; show(); });
byId("on").addEventListener("click", () => { page += 1; show(); });
field.addEventListener("keydown", (event) => {
  const first = event.key === "Enter" && rows.querySelector("a");
  if (first) first.click();
});
byId("finder").hidden = false;
name();
find();
field.focus();
