"use strict";
const field = document.getElementById("find");
const state = document.getElementById("state");
const lines = Array.from(document.querySelectorAll("tbody tr"), (row) => ({
  row, key: row.dataset.key, files: row.dataset.rows, paths: row.dataset.paths.toLowerCase(),
}));
function within(ranges, number) {
  return ranges.split(", ").some((range) => {
    const [first, last = first] = range.split("–").map(Number);
    return first <= number && number <= last;
  });
}
function find() {
  const text = field.value.trim().toLowerCase();
  const number = /^(?:files? *)?(\d+)$/.exec(text);
  let shown = 0;
  for (const { row, key, files, paths } of lines) {
    const match = key.startsWith(text) || paths.includes(text) || (number !== null && within(files, Number(number[1])));
    row.hidden = !match;
    shown += match;
  }
  const all = lines.length.toLocaleString("en");
  state.textContent = text === "" ? `${all} studies` : `${shown.toLocaleString("en")} of ${all} studies`;
}
field.addEventListener("input", find);
field.addEventListener("keydown", (event) => {
  const first = event.key === "Enter" && document.querySelector("tbody tr:not([hidden]) a");
  if (first) first.click();
});
document.getElementById("finder").hidden = false;
find();
field.focus();
