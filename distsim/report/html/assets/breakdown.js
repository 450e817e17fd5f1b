/* Every rank in a stacked bar (in steps, where there are many), in an order that is chosen. */
"use strict";

distsim.draw.breakdown = async (root, data) => {
  const [unit, size] = distsim.unit(data.makespan), chart = $("breakdown-ranks"), chosen = $("breakdown-order");
  const ordered = () => {
    const [by, part] = chosen.value.split(":"), column = by === "finish" ? data.finish : by === "part" ? data.parts[part].ps : null;
    const order = Array.from(data.first, (_, k) => k);
    return column ? order.sort((a, b) => column[b] - column[a] || a - b) : order;
  };
  const make = () => {
    const order = ordered(), many = order.length > 128;
    const label = k => data.each === 1 ? `rank ${data.first[k]}`
      : `ranks ${data.first[k]} to ${Math.min(data.first[k] + data.each, data.ranks) - 1}`;
    const labels = order.map(label), x = order.map((k, place) => chosen.value === "rank" ? data.first[k] : place);
    return {
      data: data.parts.map(part => {
        const y = order.map(k => part.ps[k] / size), colour = distsim.colour(part.colour);
        const shape = many ? {type: "scatter", mode: "lines", stackgroup: "all", line: {width: 0, shape: "hvh", color: colour}, fillcolor: colour}
          : {type: "bar", marker: {color: colour}};
        return {...shape, x, y, name: part.name, text: labels, textposition: many ? undefined : "none", hovertemplate: `%{text}: %{y:.4~g} ${unit} ${part.name}<extra></extra>`};
      }),
      layout: {barmode: "stack", bargap: order.length > 64 ? 0 : 0.15, hovermode: "x", showlegend: false,
        xaxis: {title: {text: chosen.value === "rank" ? "rank" : "place in this order"}, showgrid: false, rangemode: "tozero"},
        yaxis: {title: {text: unit}, range: [0, data.makespan / size]}},
    };
  };
  await distsim.plot(chart, make);
  // the chart's own repaint, for another order
  const repaint = distsim.themed.at(-1);
  chosen.addEventListener("change", repaint);
};
