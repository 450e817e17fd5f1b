/* Bars of operations: what holds ranks up, what runs beside other work, and the wait for members. */
"use strict";

distsim.draw.communication = async (root, data) => {
  if (!data.bars.length) return;
  const [unit, size] = distsim.unit(Math.max(...data.bars.map(bar => bar.exposed + bar.hidden + bar.waiting)));
  const bars = [...data.bars].reverse();
  const parts = [["exposed", "exposed", "exposed"], ["hidden", "beside other work", "compute"], ["waiting", "waiting for members", "waiting"]];
  const used = parts.filter(([key]) => bars.some(bar => bar[key]));
  distsim.key($("communication-bars"), used.map(([, name, colour]) => [name, colour]));
  await distsim.plot($("communication-bars"), () => ({
    data: used.map(([key, name, colour]) => ({
      type: "bar", orientation: "h", name, y: bars.map(bar => bar.name), x: bars.map(bar => bar[key] / size),
      marker: {color: distsim.colour(colour)}, text: bars.map(bar => distsim.time(bar[key])), textposition: "none",
      hovertemplate: `%{y}: %{text} ${name}<extra></extra>`,
    })),
    layout: {barmode: "stack", xaxis: {title: {text: `${unit}, mean of the ranks that take part`}}, yaxis: {showgrid: false},
      showlegend: false},
  }));
};
