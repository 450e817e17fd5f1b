/* Charts of a finding of `distsim study` (studies/finding.py): lines or labelled points over two axes, by plotly. */
"use strict";

distsim.inquiry = (element, chart) => distsim.plot(element, () => {
  const written = {s: "~s", bytes: "~s", share: ",.4~%", "": "~g"};
  const unit = {s: "s", bytes: "B", share: "", "": ""};
  const soft = distsim.colour("soft");
  const axis = (title, log, kind, of) => ({title: {text: title}, type: log ? "log" : "linear", tickformat: written[kind],
    ticksuffix: unit[kind], nticks: 9, minor: {showgrid: false},
    ...(log && kind !== "share" ? distsim.logTicks(chart.series.flatMap(one => one[of]), unit[kind]) : {})});
  const data = chart.series.filter(one => one.x.length).map((one, k) => {
    const colour = distsim.colour(`hue${one.hue || k % 8 + 1}`);
    return {
      x: one.x, y: one.y, name: one.name, text: one.labels, type: "scatter", cliponaxis: false,
      mode: chart.points ? "markers+text" : "lines+markers", textfont: {color: soft, size: 11},
      textposition: one.x.map((_, place) => place % 2 ? "bottom center" : "top center"),
      marker: {size: chart.points ? 10 : 6, color: colour}, line: {width: 1.8, color: colour, dash: one.dash ? "dash" : "solid"},
      hovertemplate: `%{text}<br>%{x:${written[chart.x_kind]}}${unit[chart.x_kind]}, `
        + `%{y:${written[chart.y_kind]}}${unit[chart.y_kind]}<extra>%{fullData.name}</extra>`,
    };
  });
  const at = y => chart.log_y ? Math.log10(y) : y;
  return {data, layout: {
    showlegend: data.length > 1, margin: {l: 60, r: 24, t: 8, b: 44},
    xaxis: axis(chart.x, chart.log_x, chart.x_kind, "x"), yaxis: axis(chart.y, chart.log_y, chart.y_kind, "y"),
    shapes: chart.levels.map(([, y]) => ({type: "line", x0: 0, x1: 1, xref: "paper", y0: y, y1: y,
      line: {color: soft, width: 1, dash: "dot"}})),
    annotations: chart.levels.map(([name, y]) => ({text: name, x: 1, xref: "paper", y: at(y), showarrow: false,
      xanchor: "right", yanchor: "bottom", font: {size: 11, color: soft}})),
  }};
});

for (const place of document.querySelectorAll("section [data-inquiry]"))
  distsim.draw[place.closest("section").id] ??= (root, data) =>
    Promise.all(data.charts.map(chart => distsim.inquiry($(chart.id), chart)));
