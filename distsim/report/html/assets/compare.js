/* Two runs side by side: the steps from one time to the other, and both timelines, which move together. */
"use strict";

distsim.draw.difference = (root, data) => data.steps.length && distsim.plot($("difference-steps"), () => {
  const all = [data.first, data.second, ...data.steps.map(([, ps]) => Math.abs(ps))];
  const [unit, size] = distsim.unit(Math.max(...all)), sign = ps => `${ps > 0 ? "+" : "−"}${distsim.time(Math.abs(ps))}`;
  const short = name => name.length > 28 ? `${name.slice(0, 27)}…` : name;
  const x = [data.names[0], ...data.steps.map(([name]) => name), data.names[1]].map(short);
  let at = data.first;
  const low = Math.min(data.first, data.second, ...data.steps.map(([, ps]) => at += ps));
  // where the steps are small beside the whole, the axis does not begin at 0, and says so
  const apart = Math.max(...all.slice(0, 2)) - low, cut = apart < 0.25 * data.first && low > 0;
  const bar = color => ({marker: {color}});
  return {
    data: [{type: "waterfall", x, measure: ["absolute", ...data.steps.map(() => "relative"), "total"],
      y: [data.first, ...data.steps.map(([, ps]) => ps), 0].map(ps => ps / size),
      text: [distsim.time(data.first), ...data.steps.map(([, ps]) => sign(ps)), distsim.time(data.second)],
      textposition: "outside", cliponaxis: false, hovertemplate: "%{x}: %{text}<extra></extra>",
      increasing: bar(distsim.colour("hue2")), decreasing: bar(distsim.colour("hue3")), totals: bar(distsim.colour("hue1")),
      connector: {line: {color: distsim.colour("line"), width: 1}}}],
    layout: {showlegend: false, waterfallgap: 0.35, margin: {t: 24, b: 80}, xaxis: {showgrid: false, tickangle: x.length > 6 ? 25 : 0},
      yaxis: {title: {text: cut ? `${unit}, not from 0` : unit},
        ...(cut ? {range: [Math.max(0, low - apart) / size, (Math.max(...all.slice(0, 2)) + apart) / size]} : {})}},
  };
});

distsim.draw.timelines = (root, data) => {
  const shown = ["first", "second"].filter(side => side in data).map(side => new distsim.Timeline($(`timelines-${side}`), data[side]));
  shown.forEach((timeline, k) => {
    distsim.timelines[`timelines-${k}`] = timeline;
    const look = timeline.look.bind(timeline), other = shown[1 - k];
    if (!other) return;
    timeline.look = (from, to) => {
      look(from, to);
      if (!$("together").checked) return;
      const ratio = timeline.spans.tick / other.spans.tick;
      other.from = timeline.from * ratio;
      other.to = timeline.to * ratio;
      other.paint();
    };
  });
};
