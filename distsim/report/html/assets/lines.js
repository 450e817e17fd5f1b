/* Line charts of a section (lines.py), by plotly. */
"use strict";

distsim.line = (element, chart) => distsim.plot(element, () => {
  const written = {s: "~s", share: ",.4~%", "": ""}, unit = {s: "s", share: "", "": ""};
  const precise = {s: ".4~s", share: ",.4~%", "": ",.4~r"};
  const look = (line, color) => chart.bars ? {type: "bar", marker: {color}} : {
    type: "scatter", mode: line.points.x.length > 1 ? "lines" : "markers",
    line: {width: 1.8, color, dash: line.dash ? "dash" : "solid"}};
  const data = chart.lines.map((line, k) => ({
    x: line.points.x, y: line.points.y, name: line.name, ...look(line, distsim.colour(`hue${line.hue || k % 8 + 1}`)),
    hovertemplate: `%{y:${precise[chart.y_kind]}}${unit[chart.y_kind]}<extra>%{fullData.name}</extra>`,
  }));
  const soft = distsim.colour("soft"), all = chart.lines.flatMap(line => [line.points.x[0], line.points.x.at(-1)]);
  return {data, layout: {
    hovermode: "x unified", showlegend: data.length > 1,
    xaxis: {title: {text: chart.x}, type: chart.log_x ? "log" : "linear", tickformat: written[chart.x_kind],
      ticksuffix: unit[chart.x_kind], hoverformat: precise[chart.x_kind], nticks: 7, minor: {showgrid: false},
      ...(chart.log_x ? distsim.logTicks(all, unit[chart.x_kind]) : chart.bars ? {tickformat: ",d"} : {rangemode: "tozero"})},
    yaxis: {title: {text: chart.y}, tickformat: written[chart.y_kind], ticksuffix: unit[chart.y_kind], rangemode: "tozero"},
    shapes: chart.marks.map(([, x]) => ({type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: "paper",
      line: {color: soft, width: 1, dash: "dot"}})),
    annotations: chart.marks.map(([name, x]) => ({text: name, x: chart.log_x ? Math.log10(x) : x, y: 0.02, yref: "paper",
      showarrow: false, xanchor: "right", yanchor: "bottom", textangle: -90, font: {size: 11, color: soft}})),
  }};
});

for (const place of document.querySelectorAll("section [data-lines]"))
  distsim.draw[place.closest("section").id] ??= (root, data) =>
    Promise.all(data.charts.filter(chart => chart.lines.length).map(chart => distsim.line($(chart.id), chart)));
