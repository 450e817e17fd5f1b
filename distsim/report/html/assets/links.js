/* The topology in SVG, its cables coloured by how busy they were. Points at what is nearest; arrows go from busy to less busy. */
"use strict";

distsim.draw.links = async (root, data) => {
  const NS = "http://www.w3.org/2000/svg", host = $("links-view"), count = data.busy.length, e = distsim.element;
  const svg = (name, attributes, text) => {
    const node = document.createElementNS(NS, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const most = data.busy.reduce((a, b) => Math.max(a, b), 0), order = Array.from(data.busy.keys()).sort((a, b) => data.busy[b] - data.busy[a] || a - b);
  const place = k => Array.from(data.curves.subarray(6 * k, 6 * k + 6));
  const way = ([x, y, cx, cy, u, v]) => Math.abs(2 * cx - x - u) + Math.abs(2 * cy - y - v) < 1 ? `M${x} ${y}L${u} ${v}` : `M${x} ${y}Q${cx} ${cy} ${u} ${v}`;

  const scale = e("select", {"aria-label": "Colours up to"}, new Option(`the busiest, ${distsim.percent(most)}`, "most"), new Option("100 %", "all"));
  const only = e("select", {"aria-label": "Links of"}, new Option("all domains", "-1"), ...data.domains.map((name, k) => new Option(name, k)));
  const low = e("span", {}, "0 %"), high = e("span"), ramp = e("i", {class: "ramp"});
  host.append(e("div", {class: "controls"}, e("label", {}, "Colours up to ", scale), e("label", {}, "Show ", only), e("span", {class: "key scale"}, low, ramp, high)));
  const stage = e("div", {class: "drawing", tabindex: "0", role: "application", "aria-roledescription": "drawing of the topology",
    "aria-label": "Links by utilisation. Right and left arrow: less and more busy. Home: the busiest."});
  // what is drawn, without the room for a title
  const heights = [...data.points.filter((_, k) => k % 2), ...data.curves.filter((_, k) => k % 2), ...data.boxes.flatMap(box => [box.place[1], box.place[1] + box.place[3]])];
  const top = heights.reduce((a, b) => Math.min(a, b), Infinity) - 32, tall = heights.reduce((a, b) => Math.max(a, b), -Infinity) + 32 - top;
  const drawing = svg("svg", {viewBox: `0 ${top} ${data.width} ${tall}`, "aria-hidden": "true"});
  stage.append(drawing);
  host.append(stage);

  // cables: the busiest on top
  const cables = svg("g", {class: "cables"}), paths = new Array(count);
  for (const k of [...order].reverse()) cables.append(paths[k] = svg("path", {d: way(place(k))}));
  const boxes = svg("g", {}), nodes = svg("g", {}), labels = svg("g", {class: "labels"});
  for (const box of data.boxes) {
    const [x, y, width, height] = box.place;
    boxes.append(svg("rect", {class: box.dashed ? "box more" : "box", x, y, width, height, rx: 5}));
  }
  const size = (data.boxes.length ? 1 : 1.5) * data.radius;
  for (let k = 0; k < data.nodes.length; k++) {
    const x = data.points[2 * k], y = data.points[2 * k + 1];
    nodes.append(k < data.hosts ? svg("circle", {class: "host", cx: x, cy: y, r: data.radius})
      : svg("rect", {class: "switch", x: x - size, y: y - size, width: 2 * size, height: 2 * size, rx: size / 3}));
  }
  for (const [text, x, y] of data.labels) labels.append(svg("text", {x, y}, text));
  const focus = svg("path", {class: "focus", d: ""});
  drawing.append(cables, focus, boxes, nodes, labels);

  // colours: cold to hot over the square root, so that light loads can be told apart
  const paint = () => {
    const stops = ["cold", "warm", "hot"].map(name => distsim.rgb(distsim.colour(name))), top = scale.value === "all" ? 1 : most || 1;
    const shade = share => {
      const at = 2 * Math.sqrt(Math.min(1, share / top)), k = Math.min(1, Math.floor(at)), f = at - k;
      return `rgb(${stops[k].map((c, i) => Math.round(c + (stops[k + 1][i] - c) * f)).join(" ")})`;
    };
    for (let k = 0; k < count; k++) {
      const path = paths[k], share = Math.min(1, data.busy[k] / top), domain = data.domain[k];
      path.style.stroke = data.busy[k] ? shade(data.busy[k]) : distsim.colour("line");
      path.style.strokeWidth = Math.max(0.6, data.widths[domain]) * (1 + 1.2 * share);
      path.style.opacity = only.value === "-1" || Number(only.value) === domain ? 1 : 0.06;
    }
    high.textContent = distsim.percent(top);
    ramp.style.background = `linear-gradient(90deg, ${[0, 0.05, 0.15, 0.25, 0.4, 0.6, 0.8, 1].map(f => `${shade(f * top)} ${100 * f}%`).join(", ")})`;
  };
  paint();
  distsim.themed.push(paint);
  scale.addEventListener("change", paint);
  only.addEventListener("change", paint);

  // what is told of a cable, a node, a box
  const told = k => [
    [data.names[k] + (data.count[k] > 2 ? `, the busiest of ${distsim.count(data.count[k])} links` : "")],
    ["domain", data.domains[data.domain[k]] ?? ""], ["busy", distsim.percent(data.busy[k])],
    ...(data.count[k] > 1 ? [[data.count[k] > 2 ? "mean" : "mean of both ways", distsim.percent(data.mean[k])]] : []), ["bytes", distsim.size(data.bytes[k])],
  ];
  const samples = new Float32Array(count * 18);  // nine points on each curve, to find the nearest
  for (let k = 0; k < count; k++) {
    const [x, y, cx, cy, u, v] = place(k);
    for (let i = 0; i < 9; i++) {
      const t = i / 8, a = (1 - t) * (1 - t), b = 2 * t * (1 - t), c = t * t;
      samples[18 * k + 2 * i] = a * x + b * cx + c * u;
      samples[18 * k + 2 * i + 1] = a * y + b * cy + c * v;
    }
  }
  const apart = (px, py, k) => {
    let least = Infinity;
    for (let i = 18 * k; i < 18 * k + 16; i += 2) {
      const x = samples[i], y = samples[i + 1], dx = samples[i + 2] - x, dy = samples[i + 3] - y;
      const t = Math.max(0, Math.min(1, ((px - x) * dx + (py - y) * dy) / (dx * dx + dy * dy || 1)));
      least = Math.min(least, Math.hypot(px - x - t * dx, py - y - t * dy));
    }
    return least;
  };
  let current = -1;
  const show = k => { current = k; focus.setAttribute("d", k < 0 ? "" : way(place(k))); };
  const toScreen = (x, y) => { const at = new DOMPoint(x, y).matrixTransform(drawing.getScreenCTM()); return [at.x, at.y]; };
  const tell = k => {
    show(k);
    const [x, y] = toScreen(samples[18 * k + 8], samples[18 * k + 9]);
    distsim.tip(told(k), x, y);
    distsim.say(told(k).map(line => line.join(" ")).join(", "));
  };
  stage.addEventListener("pointermove", event => {
    const matrix = drawing.getScreenCTM(), {x, y} = new DOMPoint(event.clientX, event.clientY).matrixTransform(matrix.inverse());
    const near = Math.max(data.radius, 4) + 1;
    for (let k = 0; k < data.nodes.length; k++)
      if (Math.hypot(x - data.points[2 * k], y - data.points[2 * k + 1]) < near) { show(-1); return distsim.tip([[data.nodes[k]]], event.clientX, event.clientY); }
    for (const one of data.boxes) {
      const [left, top, width, height] = one.place;
      if (x >= left && x <= left + width && y >= top && y <= top + height) {
        show(-1);
        return distsim.tip([[one.name], ...one.inside.map(([domain, mean, high]) => [`${domain} inside`, `mean ${distsim.percent(mean)}, at most ${distsim.percent(high)}`])], event.clientX, event.clientY);
      }
    }
    let best = -1, least = 7 / matrix.a;
    for (const k of order) {
      if (only.value !== "-1" && Number(only.value) !== data.domain[k]) continue;
      const far = apart(x, y, k);
      if (far < least) { least = far; best = k; }
    }
    show(best);
    distsim.tip(best < 0 ? null : told(best), event.clientX, event.clientY);
  });
  const leave = () => { show(-1); distsim.tip(null); };
  stage.addEventListener("pointerleave", leave);
  stage.addEventListener("blur", leave);
  stage.addEventListener("keydown", event => {
    const seen = only.value === "-1" ? order : order.filter(k => data.domain[k] === Number(only.value)), at = seen.indexOf(current);
    const to = {ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: Math.max(0, at - 1), ArrowUp: Math.max(0, at - 1), Home: 0, End: seen.length - 1}[event.key];
    if (event.key === "Escape") leave();
    if (to === undefined || !seen.length) return;
    event.preventDefault();
    tell(seen[Math.min(to, seen.length - 1)]);
  });
  for (const row of root.querySelectorAll("tr[data-curve]")) {
    row.addEventListener("pointerenter", () => show(Number(row.dataset.curve)));
    row.addEventListener("pointerleave", () => show(-1));
  }
};
