/* When each replica of a service computed: a map of replicas over time. */
"use strict";

distsim.draw.replicas = (root, data) => data.names.length && distsim.plot($("replica-map"), () => {
  const {names, steps, end, shares} = data, width = end / steps;
  const rows = names.map((name, k) => shares.subarray(k * steps, (k + 1) * steps));
  return {
    data: [{type: "heatmap", z: rows, x: Array.from({length: steps}, (_, k) => (k + 0.5) * width), y: names, zmin: 0, zmax: 1,
      colorscale: [[0, distsim.colour("raised")], [1, distsim.colour("hue1")]], xgap: 0, ygap: 2,
      colorbar: {tickformat: ".0%", thickness: 10, outlinewidth: 0, tickfont: {color: distsim.colour("soft")}},
      hovertemplate: "replica %{y}: %{z:.0%} busy<br>around %{x:.4~s}s<extra></extra>"}],
    layout: {yaxis: {type: "category", autorange: "reversed", showgrid: false}, xaxis: {tickformat: "~s", ticksuffix: "s", showgrid: false}},
  };
});
