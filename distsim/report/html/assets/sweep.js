/* A study: scatter of its points with the Pareto front, and all points as lines over their fields. */
"use strict";

distsim.draw.points = (root, data) => {
  const {said, titled, axis} = distsim.study, {columns, cells, numeric, varied, front, best} = data;
  const column = Object.fromEntries(columns.map((name, k) => [name, cells[k]]));
  const wanted = data.objectives.map(([name]) => name).filter(name => numeric.includes(name));
  const x = $("points-x"), y = $("points-y"), colour = $("points-colour"), onFront = new Set(front);
  const fill = (select, names, chosen) => select.append(...names.map(name =>
    distsim.element("option", {value: name, selected: name === chosen}, name === "" ? "(none)" : titled(name))));
  fill(x, numeric, wanted[1] || varied.find(name => numeric.includes(name)) || numeric[0]);
  fill(y, numeric, wanted[0] || numeric[0]);
  fill(colour, ["", ...varied, ...numeric.filter(name => !varied.includes(name))], varied[0] || "");
  const tells = at => [`<b>point ${column.point[at]}</b>${at === best ? " (best)" : onFront.has(at) ? " (Pareto front)" : ""}`,
    ...[...new Set([...varied, ...wanted, x.value, y.value])].map(name => `${titled(name)}: ${said(name, column[name][at])}`)]
    .map((line, k) => k ? line.replace(/&/g, "&amp;").replace(/</g, "&lt;") : line).join("<br>");

  const make = () => {
    const places = column.point.map((_, at) => at).filter(at => Number.isFinite(column[x.value][at]) && Number.isFinite(column[y.value][at]));
    const X = axis(x.value, places.map(at => column[x.value][at])), Y = axis(y.value, places.map(at => column[y.value][at]));
    const points = some => ({
      x: some.map(at => column[x.value][at] * X.scale), y: some.map(at => column[y.value][at] * Y.scale),
      text: some.map(tells), customdata: some, type: "scatter", hovertemplate: "%{text}<extra></extra>",
    });
    const marker = some => ({
      size: some.map(at => at === best ? 15 : onFront.has(at) ? 11 : 7), opacity: 0.9,
      line: {color: distsim.colour("path"), width: some.map(at => onFront.has(at) ? 2 : 0)},
    });
    const by = colour.value, shades = by ? places.map(at => column[by][at]) : [];
    const kinds = [...new Set(shades)].sort((a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a) < String(b) ? -1 : 1);
    const traces = [];
    const joined = wanted.length > 1 && wanted.slice(0, 2).every(name => [x.value, y.value].includes(name));
    if (joined && front.length > 1) traces.push({...points(front.filter(at => places.includes(at))), mode: "lines", hoverinfo: "skip",
      hovertemplate: undefined, name: "Pareto front", line: {color: distsim.colour("path"), width: 1.5, dash: "dot"}});
    if (by && (kinds.length > 8 && kinds.every(kind => typeof kind === "number"))) {
      traces.push({...points(places), mode: "markers", showlegend: false, marker: {...marker(places), color: shades,
        colorscale: [[0, distsim.colour("hue6")], [0.5, distsim.colour("hue1")], [1, distsim.colour("hue4")]],
        colorbar: {title: {text: titled(by), side: "right"}, thickness: 10, outlinewidth: 0}}});
    } else if (by) {
      kinds.forEach((kind, k) => {
        const some = places.filter(at => column[by][at] === kind);
        traces.push({...points(some), mode: "markers", name: `${titled(by)} ${said(by, kind)}`,
          marker: {...marker(some), color: distsim.colour(`hue${k % 8 + 1}`), symbol: ["circle", "square", "diamond", "cross", "x", "triangle-up", "star", "hexagon"][k >> 3 & 7]}});
      });
    } else {
      traces.push({...points(places), mode: "markers", showlegend: false, marker: {...marker(places), color: distsim.colour("hue1")}});
    }
    return {data: traces, layout: {hovermode: "closest", showlegend: traces.length > 1,
      xaxis: {title: {text: X.title}, tickformat: X.tickformat}, yaxis: {title: {text: Y.title}, tickformat: Y.tickformat}}};
  };
  const note = () => {
    const ways = Object.fromEntries(data.objectives);
    const told = [x.value, y.value].filter(name => name in ways).map(name => `${titled(name)} is better ${ways[name] === "min" ? "low" : "high"}`);
    $("points-note").textContent = [...told, "points of the Pareto front are ringed"].join("; ") + ".";
  };
  note();
  for (const select of [x, y, colour]) select.addEventListener("change", () => { note(); distsim.plot($("points-chart"), make); });
  parallel($("points-parallel"), data);
  return distsim.plot($("points-chart"), make);
};

/* All points as lines over their fields and objectives. Words of which every point has its own name it, and get no axis. */
const parallel = (place, data) => {
  const {said, titled} = distsim.study, {columns, cells, varied, front, best} = data;
  const column = Object.fromEntries(columns.map((name, k) => [name, cells[k]]));
  const axes = [...new Set([...varied, ...data.objectives.map(([name]) => name)])].filter(name => data.numeric.includes(name)
    || new Set(column[name]).size < column[name].length).slice(0, 12);
  if (!place || axes.length < 2) { place?.remove(); return null; }
  // each axis from 0 to 1: numbers in proportion, words evenly in order
  const scales = axes.map(name => {
    const values = column[name].filter(value => value !== null);
    if (values.every(value => typeof value === "number")) {
      const low = Math.min(...values), high = Math.max(...values);
      return {at: value => value === null ? null : high > low ? (value - low) / (high - low) : 0.5, low: said(name, low), high: said(name, high), ticks: []};
    }
    const kinds = [...new Set(values.map(String))].sort();
    const at = value => value === null ? null : kinds.length > 1 ? kinds.indexOf(String(value)) / (kinds.length - 1) : 0.5;
    return {at, low: "", high: "", ticks: kinds.slice(0, 12).map(kind => [at(kind), kind])};
  });
  const onFront = new Set(front), places = column.point.map((_, at) => at);
  const line = (some, name, look, hover) => {
    const x = [], y = [], text = [];
    for (const at of some) {
      const told = [`point ${column.point[at]}`, ...axes.map(one => `${titled(one)}: ${said(one, column[one][at])}`)].join("<br>").replace(/<(?!br>)/g, "&lt;");
      axes.forEach((one, k) => { x.push(k); y.push(scales[k].at(column[one][at])); text.push(told); });
      x.push(null); y.push(null); text.push(null);
    }
    return {x, y, text, name, type: "scatter", mode: "lines+markers", marker: {size: 4}, hovertemplate: "%{text}<extra></extra>", ...look};
  };
  return distsim.plot(place, () => {
    const ink = distsim.colour("soft");
    const rest = places.filter(at => !onFront.has(at) && at !== best).slice(0, 1500);
    const traces = [line(rest, "other points", {line: {color: distsim.colour("hue8"), width: 1}, opacity: 0.35, marker: {size: 3, color: distsim.colour("hue8")}})];
    const some = front.filter(at => at !== best);
    if (some.length) traces.push(line(some, "Pareto front", {line: {color: distsim.colour("hue1"), width: 1.6}}));
    if (best !== null) traces.push(line([best], "best", {line: {color: distsim.colour("path"), width: 2.6}}));
    const words = (k, y, text, anchor) => ({x: k, y, text: text.length > 24 ? text.slice(0, 23) + "…" : text, showarrow: false, xanchor: "left", xshift: 4, yanchor: anchor, font: {size: 11, color: ink}});
    return {data: traces.filter(trace => trace.x.length), layout: {
      hovermode: "closest",
      xaxis: {tickvals: axes.map((_, k) => k), ticktext: axes.map(titled), range: [-0.1, axes.length - 0.6], showgrid: false, zeroline: false},
      yaxis: {visible: false, range: [-0.08, 1.08]},
      shapes: axes.map((_, k) => ({type: "line", x0: k, x1: k, y0: 0, y1: 1, line: {color: distsim.colour("line"), width: 1.5}})),
      annotations: scales.flatMap((scale, k) => [...(scale.low ? [words(k, 0, scale.low, "top"), words(k, 1, scale.high, "bottom")] : []),
        ...scale.ticks.map(([at, kind]) => words(k, at, kind, "bottom"))].map(one => ({...one, text: one.text.replace(/</g, "&lt;")}))),
    }};
  });
};
