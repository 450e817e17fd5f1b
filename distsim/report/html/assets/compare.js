/* Two runs side by side: the steps from one time to the other, and both timelines, which move together. */
"use strict";

distsim.draw.difference = (root, data) => data.steps.length && distsim.plot($("difference-steps"), () => {
  let at = data.first;
  const totals = [data.first, ...data.steps.map(([, ps]) => at += ps), data.second];
  const low = Math.min(...totals), high = Math.max(...totals), [unit, size] = distsim.unit(high);
  const sign = ps => `${ps > 0 ? "+" : "−"}${distsim.time(Math.abs(ps))}`;
  const short = name => name.length > 48 ? `${name.slice(0, 47)}…` : name;
  // the axis holds every running total, with room for the words beside the bars; where the changes are small beside the whole,
  // it does not begin at 0, and says so
  const cut = high - low < 0.5 * high, room = 0.3 * (high - low), from = cut ? Math.max(0, low - room) : 0;
  const bar = color => ({marker: {color}});
  // NOTE: bars stand at numbers, as two parts may have one name
  const names = [data.names[0], ...data.steps.map(([name]) => name), data.names[1]].map(short), places = names.map((_, k) => k);
  return {
    data: [{type: "waterfall", orientation: "h", y: places, measure: ["absolute", ...data.steps.map(() => "relative"), "total"],
      x: [data.first, ...data.steps.map(([, ps]) => ps), 0].map(ps => ps / size),
      text: [distsim.time(data.first), ...data.steps.map(([, ps]) => sign(ps)), distsim.time(data.second)],
      customdata: names, textposition: "outside", cliponaxis: false, hovertemplate: "%{customdata}: %{text}<extra></extra>",
      increasing: bar(distsim.colour("hue2")), decreasing: bar(distsim.colour("hue3")), totals: bar(distsim.colour("hue1")),
      connector: {line: {color: distsim.colour("line"), width: 1}}}],
    layout: {showlegend: false, waterfallgap: 0.3, margin: {t: 8, r: 24},
      yaxis: {tickvals: places, ticktext: names, showgrid: false, zeroline: false, range: [names.length - 0.4, -0.6]},
      xaxis: {title: {text: cut ? `${unit}, not from 0` : unit}, range: [from / size, (high + (cut ? room : 0.12 * high)) / size]}},
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
