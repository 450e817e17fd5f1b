/* A training step by pipeline stage: where the time goes, and what fills the memory. */
"use strict";

{
  const stacked = (element, rows, names, values, unit, layout) => {
    const look = k => [`hue${k % 8 + 1}`, k < 8 ? 1 : 0.55];
    distsim.key(element, names.map((name, k) => [name, ...look(k)]));
    return distsim.plot(element, () => ({
      data: names.map((name, k) => ({
        type: "bar", orientation: "h", name, y: rows, x: values[k], marker: {color: distsim.colour(look(k)[0]), opacity: look(k)[1]},
        hovertemplate: `%{y}: %{x:.4~g} ${unit} ${name}<extra></extra>`,
      })),
      layout: {barmode: "stack", showlegend: false, yaxis: {autorange: "reversed", type: "category", showgrid: false},
        margin: {t: 20}, ...layout()},
    }));
  };

  distsim.draw.training = async (root, data) => {
    const [unit, size] = distsim.unit(data.step), stages = data.parts[0].stages.map((_, k) => `stage ${k}`);
    await stacked($("training-stages"), stages, data.parts.map(part => part.name),
      data.parts.map(part => part.stages.map(ps => ps / size)), unit,
      () => ({xaxis: {title: {text: `${unit}, mean over the stage's ranks`}}}));
  };

  distsim.draw.memory = async (root, data) => {
    const GiB = 2 ** 30;
    await stacked($("memory-stages"), data.stages.map(stage => `stage ${stage}`), data.names,
      data.bytes.map(sizes => sizes.map(bytes => bytes / GiB)), "GiB", () => ({
        xaxis: {title: {text: "GiB"}, rangemode: "tozero"},
        shapes: [{type: "line", x0: data.limit / GiB, x1: data.limit / GiB, y0: 0, y1: 1, yref: "paper",
          line: {color: distsim.colour("hot"), width: 2, dash: "dash"}}],
        annotations: [{x: data.limit / GiB, y: 1, yref: "paper", yanchor: "bottom", xanchor: "right", text: "memory of the GPU",
          showarrow: false, font: {size: 11, color: distsim.colour("soft")}}],
      }));
    await Promise.all(data.charts.map(chart => distsim.line($(chart.id), chart)));
  };
}
