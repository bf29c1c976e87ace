"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  /* tables: a click on a column's head sorts; empty values stay last */
  const compare = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
  };
  const sortBy = (button) => {
    const head = button.closest("th");
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const descending = head.getAttribute("aria-sort") === "ascending";
    const key = (row) => row.cells[column].getAttribute("data-v");
    const rows = [...body.rows].sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      return x === null || y === null || !descending ? compare(x, y) : -compare(x, y);
    });
    all("th[aria-sort]", head.parentElement).forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...rows);
  };
  all("th button").forEach((button) => button.addEventListener("click", () => sortBy(button)));

  /* tooltips of the charts */
  const tip = document.getElementById("tip");
  const follow = (event) => {
    const { innerWidth: width, innerHeight: height } = window;
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, width - tip.offsetWidth - 8))}px`;
    tip.style.top = `${Math.min(event.clientY + 16, height - tip.offsetHeight - 8)}px`;
  };
  document.addEventListener("pointerover", (event) => {
    const words = event.target.getAttribute?.("data-tip");
    tip.hidden = !words;
    if (words) { tip.textContent = words; follow(event); }
  });
  document.addEventListener("pointermove", (event) => { if (!tip.hidden) follow(event); });

  const list = document.getElementById("shortlist-table");
  if (!list) return;

  /* the shortlist's filter */
  const rows = [...list.tBodies[0].rows];
  const box = document.getElementById("filter");
  const shown = document.getElementById("shown");
  const chips = all(".chip");
  const filter = () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    const elements = chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.element);
    let visible = 0;
    for (const row of rows) {
      const held = row.dataset.elements.split(" ");
      const fits = words.every((word) => row.dataset.search.includes(word)) && elements.every((name) => held.includes(name));
      row.hidden = !fits;
      visible += fits;
    }
    shown.textContent = `${visible} of ${rows.length}`;
  };
  box.addEventListener("input", filter);
  chips.forEach((chip) => chip.addEventListener("click", () => {
    chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
    filter();
  }));

  /* the crystal that can be turned */
  const data = JSON.parse(document.getElementById("crystals").textContent);
  const canvas = document.getElementById("crystal");
  const paint = canvas.getContext("2d");
  let model = null, points = [], corners = [], reach = 1, zoom = 1, turn = [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const times = (a, b) => a.map((row) => [0, 1, 2].map((j) => row[0] * b[0][j] + row[1] * b[1][j] + row[2] * b[2][j]));
  const apply = (m, p) => m.map((row) => row[0] * p[0] + row[1] * p[1] + row[2] * p[2]);
  const about = (axis, angle) => {
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    return axis === "x" ? [[1, 0, 0], [0, c, -s], [0, s, c]] : axis === "y" ? [[c, 0, s], [0, 1, 0], [-s, 0, c]] : [[c, -s, 0], [s, c, 0], [0, 0, 1]];
  };
  const start = times(about("x", -78 * Math.PI / 180), about("z", 22 * Math.PI / 180));
  const threes = (flat) => Array.from({ length: flat.length / 3 }, (_, i) => flat.slice(3 * i, 3 * i + 3));
  const cellCorner = (cell, i) => [0, 1, 2].map((k) => (i & 1 ? cell[0][k] : 0) + (i & 2 ? cell[1][k] : 0) + (i & 4 ? cell[2][k] : 0));
  const show = (id) => {
    model = data.models[id];
    rows.forEach((row) => row.setAttribute("aria-selected", String(row.dataset.row === id)));
    document.getElementById("crystal-name").textContent = model ? model.name : "no geometry";
    if (!model) { paint.clearRect(0, 0, canvas.width, canvas.height); return; }
    const cell = threes(model.cell);
    const centre = cellCorner(cell, 7).map((value) => value / 2);
    const centred = (p) => p.map((value, k) => value - centre[k]);
    points = threes(model.positions).map(centred);
    corners = Array.from({ length: 8 }, (_, i) => centred(cellCorner(cell, i)));
    reach = Math.max(...[...points, ...corners].map((p) => Math.hypot(...p))) + 0.8;
    zoom = 1;
    turn = start;
    draw();
  };
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const stroke = (a, b, style, width) => {
    paint.strokeStyle = style;
    paint.lineWidth = width;
    paint.beginPath();
    paint.moveTo(a[0], a[1]);
    paint.lineTo(b[0], b[1]);
    paint.stroke();
  };
  const ball = (at, radius, colour) => {
    const shade = paint.createRadialGradient(at[0] - radius * 0.35, at[1] - radius * 0.4, radius * 0.1, at[0], at[1], radius * 1.15);
    shade.addColorStop(0, "#ffffff");
    shade.addColorStop(0.4, colour);
    shade.addColorStop(1, "#000000");
    paint.fillStyle = colour;
    paint.beginPath();
    paint.arc(at[0], at[1], radius, 0, 2 * Math.PI);
    paint.fill();
    paint.globalAlpha = 0.5;
    paint.fillStyle = shade;
    paint.fill();
    paint.globalAlpha = 1;
  };
  const draw = () => {
    if (!model) return;
    const [width, height] = [canvas.width, canvas.height];
    const scale = zoom * 0.5 * Math.min(width, height) / reach;
    const project = (p) => { const q = apply(turn, p); return [width / 2 + scale * q[0], height / 2 - scale * q[1], q[2]]; };
    const atoms = points.map(project), box8 = corners.map(project), shapes = [];
    for (let i = 0; i < 8; i++) for (const bit of [1, 2, 4]) if (!(i & bit)) {
      const [a, b] = [box8[i], box8[i | bit]];
      shapes.push([(a[2] + b[2]) / 2, () => stroke(a, b, ink("--soft"), 1.6)]);
    }
    for (let k = 0; k < model.bonds.length; k += 2) {
      const [i, j] = [model.bonds[k], model.bonds[k + 1]], [a, b] = [atoms[i], atoms[j]];
      const middle = a.map((value, n) => (value + b[n]) / 2);
      for (const [end, at] of [[a, i], [b, j]]) shapes.push([(end[2] + middle[2]) / 2, () => stroke(end, middle, data.elements[model.symbols[at]][0], 0.16 * scale)]);
    }
    atoms.forEach((at, i) => {
      const [colour, radius] = data.elements[model.symbols[i]];
      shapes.push([at[2] + radius / 2, () => ball(at, radius * scale, colour)]);
    });
    paint.clearRect(0, 0, width, height);
    shapes.sort((a, b) => a[0] - b[0]).forEach(([, act]) => act());
  };
  const rotate = (dx, dy) => { turn = times(times(about("x", dy), about("y", dx)), turn); draw(); };
  let grip = null;
  canvas.addEventListener("pointerdown", (event) => { grip = [event.clientX, event.clientY]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointermove", (event) => {
    if (!grip) return;
    rotate((event.clientX - grip[0]) / 120, (event.clientY - grip[1]) / 120);
    grip = [event.clientX, event.clientY];
  });
  for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { grip = null; });
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom = Math.min(4, Math.max(0.5, zoom * Math.exp(-event.deltaY / 600)));
    draw();
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
    if (step) { event.preventDefault(); rotate(...step); }
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  rows.forEach((row) => {
    row.addEventListener("click", () => show(row.dataset.row));
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") show(row.dataset.row); });
  });
  document.addEventListener("click", (event) => {
    const id = event.target.closest?.("circle[data-row]")?.getAttribute("data-row");
    const row = id && rows.find((candidate) => candidate.dataset.row === id);
    if (row) { row.hidden = false; show(id); row.scrollIntoView({ block: "center" }); }
  });
  if (rows.length) show(rows[0].dataset.row);
})();
