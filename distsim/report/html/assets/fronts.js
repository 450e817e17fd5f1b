/* Points of two studies in one picture, the Pareto front of each ringed. */
"use strict";

distsim.draw.fronts = (root, data) => distsim.plot($("fronts-chart"), () => {
  const {said, titled, axis} = distsim.study, every = key => data.studies.flatMap(study => study[key]);
  const X = data.x ? axis(data.x, every("x")) : {scale: 1, title: "points in order"}, Y = axis(data.y, every("y"));
  const safe = text => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
  return {
    data: data.studies.map((study, k) => ({
      type: "scatter", mode: data.x ? "markers" : "lines+markers", name: study.name, x: study.x.map(v => v * X.scale), y: study.y.map(v => v * Y.scale),
      marker: {size: study.front.map(on => on ? 11 : 7), color: distsim.colour(`hue${k + 1}`), symbol: k ? "diamond" : "circle",
        line: {color: distsim.colour("ink"), width: study.front.map(on => on ? 1.5 : 0)}},
      text: study.point.map((point, at) => `point ${point}: ${safe(study.told[at])}<br>${titled(data.y)} ${said(data.y, study.y[at])}`
        + (data.x ? `, ${titled(data.x)} ${said(data.x, study.x[at])}` : "")),
      hovertemplate: "%{text}<extra>%{fullData.name}</extra>",
    })),
    layout: {hovermode: "closest", showlegend: true, xaxis: {title: {text: X.title}, tickformat: X.tickformat}, yaxis: {title: {text: Y.title}, tickformat: Y.tickformat}},
  };
});
