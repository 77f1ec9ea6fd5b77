"use strict";
(() => {
  const tip = document.getElementById("tip");
  const live = document.getElementById("live");

  const hide = () => { tip.hidden = true; };
  const show = (text, box) => {
    tip.textContent = text;
    tip.hidden = false;
    const size = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.x - size.width / 2), innerWidth - size.width - 8);
    const above = box.y - size.height - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : box.y + 16}px`;
  };
  const leave = (element, clear) => {
    for (const event of ["pointerleave", "blur"]) element.addEventListener(event, clear);
    element.addEventListener("keydown", (event) => { if (event.key === "Escape") clear(); });
  };
  addEventListener("scroll", hide, { passive: true });

  // Of all candidates, the nearest one in the direction of an arrow key; sideways distance counts double.
  const DIRECTIONS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const next = (from, key, candidates, at) => {
    const [dx, dy] = DIRECTIONS[key];
    let best = null, least = Infinity;
    for (const candidate of candidates) {
      if (candidate === from) continue;
      const x = at(candidate)[0] - at(from)[0], y = at(candidate)[1] - at(from)[1];
      const along = x * dx + y * dy, aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (along <= 0 || aside > 3 * along) continue;
      const distance = along + 2 * aside;
      if (distance < least) { least = distance; best = candidate; }
    }
    return best;
  };

  // Charts: every point has its text in <title>, which serves where this script does not run.
  for (const holder of document.querySelectorAll(".chart, .panels .panel")) {
    const points = [...holder.querySelectorAll(".point")];
    let here = null;
    const clear = () => { here?.classList.remove("here"); here = null; hide(); };
    const go = (point, isSpoken) => {
      here?.classList.remove("here");
      here = point;
      point.classList.add("here");
      const box = point.getBoundingClientRect();
      show(point.dataset.tip, { x: box.x + box.width / 2, y: box.y + box.height / 2 });
      if (isSpoken) live.textContent = point.dataset.tip;
    };
    for (const point of points) {
      const title = point.querySelector("title");
      point.dataset.tip = title.textContent;
      title.remove();
      point.addEventListener("pointerenter", () => go(point, false));
      point.addEventListener("pointerleave", clear);
    }
    const visible = () => points.filter((point) => point.getClientRects().length);
    holder.addEventListener("keydown", (event) => {
      if (!(event.key in DIRECTIONS) || !points.length) return;
      event.preventDefault();
      const shown = visible();
      const place = (point) => [Number(point.dataset.x), Number(point.dataset.y)];
      let found = shown[0];
      if (here !== null && "rows" in here.ownerSVGElement.dataset) {  // a list: from row to row, whatever the values
        const list = shown.sort((a, b) => place(a)[1] - place(b)[1] || place(a)[0] - place(b)[0]);
        found = list[list.indexOf(here) + (event.key === "ArrowDown" || event.key === "ArrowRight" ? 1 : -1)];
      } else if (here !== null) {
        found = next(here, event.key, shown, place);
      }
      if (found) go(found, true);
    });
    leave(holder, clear);
  }

  // The last value of a column with many stands for all others, and is gray.
  const toneOf = (data, by, value) => (value < data.tones.length ? data.tones[value] : "gray");
  for (const grouping of document.querySelectorAll(".grouping")) {
    const figure = grouping.closest("figure"), legend = figure.querySelector(".group-legend");
    const data = JSON.parse(document.getElementById(figure.querySelector(".map").dataset.map).textContent);
    grouping.hidden = false;
    grouping.querySelector(".color-by").addEventListener("change", (event) => {
      const by = event.target.value;
      legend.hidden = by === "";
      legend.replaceChildren(...(by === "" ? [] : data.groups[by].values.map((name, i) => {
        const entry = document.createElement("li"), dot = document.createElement("span");
        dot.className = `swatch ${toneOf(data, by, i)}`;
        entry.append(dot, name);
        return entry;
      })));
    });
  }

  const unpack = (text, Kind) => new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

  // Further rows, without texts: a canvas under the drawing, because so many elements would be slow.
  const drawSmall = (holder, data, chosen, isShown) => {
    const x = unpack(data.small.x, Uint16Array), y = unpack(data.small.y, Uint16Array);
    const kept = unpack(data.small.kept, Uint8Array), of = data.small.of.map((text) => unpack(text, Uint8Array));
    const canvas = document.createElement("canvas");
    holder.prepend(canvas);
    const shown = () => {
      const [group, value] = chosen(".show-group").split(" ").map(Number), isAll = chosen(".show-group") === "";
      const sides = [isShown("dropped"), isShown("kept")], rows = [];
      for (let i = 0; i < x.length; i++) if (sides[kept[i]] && (isAll || of[group][i] === value)) rows.push(i);
      return rows;
    };
    const draw = () => {
      const box = holder.querySelector("svg").getBoundingClientRect(), dense = devicePixelRatio;
      [canvas.width, canvas.height] = [Math.round(box.width * dense), Math.round(box.height * dense)];
      const pen = canvas.getContext("2d"), style = getComputedStyle(document.documentElement), by = chosen(".color-by");
      const scale = canvas.width / 1028, rows = shown();
      for (const isKept of [0, 1]) {  // the kept ones on top
        const size = (isKept ? 2.2 : 1.6) * dense;
        pen.globalAlpha = isKept ? .75 : .4;
        for (const i of rows) {
          if (kept[i] !== isKept) continue;
          const tone = by === "" ? ["gray", "blue"][isKept] : toneOf(data, by, of[by][i]);
          pen.fillStyle = style.getPropertyValue(`--${tone}`);
          pen.fillRect((x[i] + 14) * scale - size / 2, (y[i] + 14) * scale - size / 2, size, size);
        }
      }
    };
    new ResizeObserver(draw).observe(holder);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    return { x, y, kept, of, shown, draw };
  };

  // An area that is drawn around dots: how many rows of each kind, some texts, and all places.
  const letPick = (figure, holder, data, points, small) => {
    const button = figure.querySelector(".pick"), out = figure.querySelector(".picked"), svg = holder.querySelector("svg");
    const file = unpack(data.file, Uint16Array), line = unpack(data.line, Uint32Array), n = data.x.length;
    const keptOnes = new Set(data.panels[0].kept), lasso = document.createElementNS("http://www.w3.org/2000/svg", "path");
    let corners = null;
    lasso.setAttribute("class", "lasso");
    svg.append(lasso);
    button.closest(".picking").hidden = false;
    const isOn = () => button.getAttribute("aria-pressed") === "true";
    const turn = (on) => {
      button.setAttribute("aria-pressed", on);
      holder.classList.toggle("picking-now", on);
    };
    button.addEventListener("click", () => turn(!isOn()));
    const place = (event) => {
      const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      return [spot.x, spot.y];
    };
    const isInside = (x, y) => {
      let inside = false;
      for (let i = 0, j = corners.length - 1; i < corners.length; j = i++) {
        const [ax, ay] = corners[i], [bx, by] = corners[j];
        if ((ay > y) !== (by > y) && x < (bx - ax) * (y - ay) / (by - ay) + ax) inside = !inside;
      }
      return inside;
    };
    const tell = () => {
      const rows = points().filter((i) => isInside(data.x[i], data.y[i]));
      const more = small === null ? [] : small.shown().filter((i) => isInside(small.x[i], small.y[i]));
      const total = rows.length + more.length;
      const nKept = rows.filter((i) => keptOnes.has(i)).length + more.filter((i) => small.kept[i]).length;
      out.querySelector(".counts").textContent =
        `${total.toLocaleString("en")} rows: ${nKept.toLocaleString("en")} kept, ${(total - nKept).toLocaleString("en")} dropped`;
      out.querySelector(".counted").replaceChildren(...data.groups.map((group, number) => {
        const counts = group.values.map(() => 0), entry = document.createElement("li");
        for (const i of rows) counts[group.of[i]] += 1;
        for (const i of more) counts[small.of[number][i]] += 1;
        const named = counts.map((count, i) => [count, group.values[i]]).filter(([count]) => count).sort((a, b) => b[0] - a[0]);
        entry.textContent = `${group.name}: ${named.map(([count, name]) => `${name} ${count.toLocaleString("en")}`).join(", ")}`;
        return entry;
      }));
      out.querySelector(".texts").replaceChildren(...rows.slice(0, 50).map((i) => {
        const entry = document.createElement("li");
        entry.textContent = data.text[i];
        return entry;
      }));
      const all = [...rows, ...more.map((i) => n + i)];
      out.querySelector(".places").textContent = all.map((i) => `${data.files[file[i]]}:${line[i]}`).join("\n");
      out.hidden = false;
    };
    const stop = () => { lasso.removeAttribute("d"); corners = null; out.hidden = true; turn(false); };
    holder.addEventListener("pointerdown", (event) => {
      if (!isOn()) return;
      event.preventDefault();
      holder.setPointerCapture(event.pointerId);
      corners = [place(event)];
    });
    holder.addEventListener("pointermove", (event) => {
      if (!isOn() || corners === null || !event.buttons) return;
      corners.push(place(event));
      lasso.setAttribute("d", `M${corners.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L")}Z`);
    });
    holder.addEventListener("pointerup", () => { if (isOn() && corners?.length > 2) { tell(); turn(false); } });
    figure.addEventListener("keydown", (event) => { if (event.key === "Escape") stop(); });
    for (const control of figure.querySelectorAll("select, .show-kept, .show-dropped")) {
      control.addEventListener("change", () => { if (corners !== null && !out.hidden) tell(); });
    }
    return isOn;
  };

  // Maps: one path per layer, so the points are found by their coordinates.
  for (const holder of document.querySelectorAll(".map")) {
    const data = JSON.parse(document.getElementById(holder.dataset.map).textContent);
    const panel = data.panels[Number(holder.dataset.panel)];
    const figure = holder.closest("figure");
    const svg = holder.querySelector("svg");
    const ring = svg.querySelector(".here");
    const kept = new Set(panel.kept);
    let here = null;
    const isShown = (name) => figure.querySelector(`.show-${name}`).checked;
    const chosen = (name) => figure.querySelector(name)?.value ?? "";
    const isIn = (i) => {
      const [group, value] = chosen(".show-group").split(" ").map(Number);
      return chosen(".show-group") === "" || data.groups[group].of[i] === value;
    };
    const small = data.small === undefined ? null : drawSmall(holder, data, chosen, isShown);
    const side = (name) => (isShown(name) ? panel[name].filter(isIn) : []);
    const points = () => [...side("kept"), ...side("dropped")];
    const at = (i) => [data.x[i], data.y[i]];
    const words = (i) => `${kept.has(i) ? "Kept" : "Dropped"}${data.note[i] ? ` · ${data.note[i]}` : ""}\n${data.text[i]}`;
    const clear = () => { here = null; ring.setAttribute("visibility", "hidden"); hide(); };
    const go = (i, isSpoken) => {
      here = i;
      ring.setAttribute("d", `M${data.x[i]} ${data.y[i]}h0`);
      ring.setAttribute("visibility", "visible");
      const spot = new DOMPoint(data.x[i], data.y[i]).matrixTransform(svg.getScreenCTM());
      show(words(i), spot);
      if (isSpoken) live.textContent = words(i);
    };
    const follow = (event) => {
      const spot = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      let best = null, least = 60 * 60;
      for (const i of points()) {
        const distance = (data.x[i] - spot.x) ** 2 + (data.y[i] - spot.y) ** 2;
        if (distance < least) { least = distance; best = i; }
      }
      if (best === null) clear(); else if (best !== here || tip.hidden) go(best, false);
    };
    // Colored by a column, or with some rows hidden: one path per value and side in place of the two plain ones.
    const draw = () => {
      small?.draw();
      const by = chosen(".color-by"), layer = svg.querySelector(".groups");
      const isPlain = by === "" && chosen(".show-group") === "";
      figure.classList.toggle("grouped", !isPlain);
      layer.replaceChildren();
      if (isPlain) return;
      for (const name of ["dropped", "kept"]) {
        const paths = new Map();
        for (const i of panel[name].filter(isIn)) {
          const tone = by === "" ? { kept: "blue", dropped: "gray" }[name] : toneOf(data, by, data.groups[by].of[i]);
          paths.set(tone, (paths.get(tone) ?? "") + `M${data.x[i]} ${data.y[i]}h0`);
        }
        for (const [tone, d] of paths) {
          const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
          path.setAttribute("class", `spots ${name} ${tone}`);
          path.setAttribute("d", d);
          layer.append(path);
        }
      }
    };
    for (const select of figure.querySelectorAll(".grouping select")) {
      select.addEventListener("change", () => { clear(); draw(); });
    }
    for (const box of figure.querySelectorAll(".show-kept, .show-dropped")) box.addEventListener("change", () => small?.draw());
    small?.draw();
    const isPicking = figure.querySelector(".pick") ? letPick(figure, holder, data, points, small) : () => false;
    holder.addEventListener("pointermove", (event) => { if (isPicking()) hide(); else follow(event); });
    holder.addEventListener("pointerdown", (event) => { if (!isPicking()) follow(event); });
    holder.addEventListener("keydown", (event) => {
      if (!(event.key in DIRECTIONS)) return;
      event.preventDefault();
      const shown = points();
      const found = here === null ? shown[0] : next(here, event.key, shown, at);
      if (found !== undefined && found !== null) go(found, true);
    });
    leave(holder, clear);
  }

  // A table that is wider than a phone has a line per cell; on a wider page it scrolls, by the keyboard too.
  const fit = (root) => {
    for (const box of root.querySelectorAll(".scroll:not(:has(.shares))")) {
      const table = box.firstElementChild;
      table.classList.remove("stacked");
      for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
      if (box.scrollWidth <= box.clientWidth) continue;
      table.classList.add("stacked");
      if (box.scrollWidth <= box.clientWidth) continue;
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", box.querySelector("caption").textContent);
    }
  };
  fit(document);
  addEventListener("resize", () => fit(document));
  for (const details of document.querySelectorAll("details")) details.addEventListener("toggle", () => fit(details));

  // On paper, nothing can be unfolded.
  const folded = [];
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details:not([open])")) { folded.push(details); details.open = true; }
  });
  addEventListener("afterprint", () => { for (const details of folded.splice(0)) details.open = false; });
})();
