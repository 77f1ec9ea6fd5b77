"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const get = (id) => document.getElementById(id);
  const { rows } = data;
  // Answers of a batch are kept under its rows, so that another batch never meets them.
  let hash = 5381;
  for (const row of rows) for (const sign of row.id) hash = (hash * 33 + sign.codePointAt(0)) >>> 0;
  const key = `thresher-label-${rows.length}-${hash}`;
  let answers = {};
  let added = [];
  let keeps = true;
  try {
    const kept = JSON.parse(localStorage.getItem(key) || "{}");
    answers = kept.answers || {};
    added = kept.added || [];
  } catch { keeps = false; }
  const keep = () => {
    try { localStorage.setItem(key, JSON.stringify({ answers, added })); } catch { keeps = false; }
  };
  const classes = () => [...data.classes, ...added];
  const count = () => rows.filter((row) => row.id in answers).length;
  let at = Math.max(0, rows.findIndex((row) => !(row.id in answers)));

  const matching = () => {
    const query = get("query").value.trim().toLowerCase();
    return classes().filter((name) => name.toLowerCase().includes(query));
  };
  const show = () => {
    const row = rows[at];
    if (row === undefined) { get("state").textContent = "No rows to label"; return; }
    const n = count();
    get("place").textContent = `Row ${at + 1} of ${rows.length}`;
    get("text").textContent = row.text;
    get("text").scrollTop = 0;
    get("why").textContent = row.why;
    get("near").hidden = row.nearest === null;
    get("near").textContent = row.nearest === null ? "" : `Nearest labeled row (${row.nearestLabel}): ${row.nearest}`;
    get("state").textContent = `${n} of ${rows.length} labeled${n === rows.length ? ": download the answers" : ""}`
      + (keeps ? "" : " (this browser keeps nothing: download before you leave)");
    const bar = get("bar");
    bar.setAttribute("aria-valuemax", rows.length);
    bar.setAttribute("aria-valuenow", n);
    bar.firstElementChild.style.width = `${100 * n / rows.length}%`;
    get("back").disabled = at === 0;
    get("skip").disabled = at === rows.length - 1;
    get("clear").disabled = !(row.id in answers);
    list();
  };
  const list = () => {
    const here = answers[rows[at].id];
    const names = matching();
    get("hint").textContent = classes().length
      ? "Label: press its number, or type to search and press Enter"
      : "Answer: type it and press Enter";
    get("choices").replaceChildren(...names.map((name, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.setAttribute("aria-pressed", String(name === here));
      if (i < 9) {
        const number = document.createElement("small");
        number.textContent = i + 1;
        button.append(number);
      }
      button.append(name);
      button.addEventListener("click", () => answer(name));
      return button;
    }));
    if (here !== undefined && !names.includes(here)) {
      const given = document.createElement("p");
      given.textContent = `Labeled: ${here}`;
      get("choices").append(given);
    }
  };
  const go = (to) => {
    at = Math.min(rows.length - 1, Math.max(0, to));
    get("query").value = "";
    show();
  };
  const answer = (name) => {
    if (!classes().includes(name) && name.length <= 80) added.push(name);
    answers[rows[at].id] = name;
    keep();
    const next = rows.findIndex((row, i) => i > at && !(row.id in answers));
    go(next >= 0 ? next : Math.min(at + 1, rows.length - 1));
  };
  const clear = () => {
    delete answers[rows[at].id];
    keep();
    show();
  };
  const save = () => {
    const lines = rows.filter((row) => row.id in answers)
      .map((row) => JSON.stringify({ [data.idColumn]: row.id, label: answers[row.id] }));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([lines.join("\n") + (lines.length ? "\n" : "")], { type: "application/jsonl" }));
    link.download = "answers.jsonl";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  get("guide").hidden = !data.guide;
  get("guide").textContent = data.guide;
  get("command").textContent = `thresher label add ${data.name} answers.jsonl --out labeled`;
  get("back").addEventListener("click", () => go(at - 1));
  get("skip").addEventListener("click", () => go(at + 1));
  get("clear").addEventListener("click", clear);
  get("save").addEventListener("click", save);
  get("query").addEventListener("input", list);
  addEventListener("keydown", (event) => {
    const query = get("query");
    const isTyping = query.value !== "";
    if ((event.ctrlKey || event.metaKey) && event.key === "s") {
      event.preventDefault();
      save();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.tagName === "BUTTON" && (event.key === "Enter" || event.key === " ")) return;
    if (event.target.tagName === "SUMMARY") return;
    if (event.key === "Enter") {
      const typed = query.value.trim();
      if (!typed) return;
      const exact = classes().find((name) => name.toLowerCase() === typed.toLowerCase());
      event.preventDefault();
      answer(exact ?? (data.classes.length ? matching()[0] : undefined) ?? typed);
    } else if (event.key === "Escape") {
      query.value = "";
      list();
    } else if (!isTyping && event.key === "ArrowLeft") { event.preventDefault(); go(at - 1); }
    else if (!isTyping && event.key === "ArrowRight") { event.preventDefault(); go(at + 1); }
    else if (!isTyping && (event.key === "Delete" || event.key === "Backspace")) { event.preventDefault(); clear(); }
    else if (!isTyping && /^[1-9]$/.test(event.key) && classes().length) {
      const name = matching()[Number(event.key) - 1];
      if (name !== undefined) { event.preventDefault(); answer(name); }
    } else if (event.key.length === 1 && event.target !== query) query.focus();
  });
  show();
})();
