/* What every section uses: packed columns, numbers in words, colours, the tooltip, charts, and when to draw. */
"use strict";

const distsim = {
  draw: {},      // section id -> function (root element, data), called once
  drawn: {},     // section id -> promise of its drawing
  themed: [],    // functions to call when colours have changed
  fitted: [],    // functions to call when the page has become another width, for paper
};

const $ = id => document.getElementById(id);

/* Packed columns (columns.py) into typed arrays, anywhere inside a document. */
distsim.inflate = async text => {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let k = 0; k < bytes.length; k++) bytes[k] = binary.charCodeAt(k);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

distsim.unpack = async value => {
  if (Array.isArray(value)) return Promise.all(value.map(distsim.unpack));
  if (value === null || typeof value !== "object") return value;
  if (!("$" in value)) {
    const names = Object.keys(value), found = await Promise.all(names.map(name => distsim.unpack(value[name])));
    return Object.fromEntries(names.map((name, k) => [name, found[k]]));
  }
  const planes = await distsim.inflate(value.b), n = value.n;
  if (value.$ === "json") return JSON.parse(new TextDecoder().decode(planes));
  const Kind = {u1: Uint8Array, i1: Int8Array, u2: Uint16Array, i2: Int16Array, u4: Uint32Array, i4: Int32Array,
    f4: Float32Array, f8: Float64Array}[value.$];
  const size = Kind.BYTES_PER_ELEMENT, bytes = new Uint8Array(n * size);
  for (let plane = 0; plane < size; plane++)
    for (let k = 0, from = plane * n; k < n; k++) bytes[k * size + plane] = planes[from + k];
  const column = new Kind(bytes.buffer);  // NOTE: little endian, as is every machine that runs a browser
  if (value.d) for (let k = 1; k < n; k++) column[k] += column[k - 1];
  return column;
};

/* Numbers in words, as the command line says them (units.py). */
const four = (value, units, step) => {
  let at = 0;
  while (Math.abs(value) >= step && at < units.length - 1) { value /= step; at++; }
  return `${Math.abs(value) >= 1e4 ? Math.round(value).toLocaleString("en") : +value.toPrecision(4)} ${units[at]}`;
};
distsim.time = ps => ps === 0 ? "0 s" : four(ps, ["ps", "ns", "us", "ms", "s"], 1000);
distsim.size = bytes => four(bytes, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 1024);
distsim.rate = bytes => four(bytes, ["B/s", "KB/s", "MB/s", "GB/s", "TB/s"], 1000);
distsim.percent = share => `${(100 * share).toFixed(Math.abs(share) < 0.0995 ? 1 : 0)} %`;
distsim.count = number => number.toLocaleString("en");

/* The unit in which an axis up to this many ps reads best: [name, ps]. */
distsim.unit = ps => [["s", 1e12], ["ms", 1e9], ["us", 1e6], ["ns", 1e3], ["ps", 1]].find(([, size]) => ps >= 2 * size) || ["ps", 1];

/* Elements; text is always text. */
distsim.element = (name, attributes = {}, ...children) => {
  const node = document.createElement(name);
  for (const key in attributes) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), attributes[key]);
    else if (attributes[key] !== false) node.setAttribute(key, attributes[key] === true ? "" : attributes[key]);
  }
  node.append(...children);
  return node;
};
distsim.colour = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
/* Red, green and blue, 0 to 255, of a colour of the style sheet (#rrggbb). */
distsim.rgb = text => [1, 3, 5].map(k => parseInt(text.slice(k, k + 2), 16));
distsim.say = text => { $("live").textContent = text; };

/* The tooltip: lines of [name, value], or [text]; beside a point of the window, inside it. */
distsim.tip = (lines, x, y) => {
  const tip = $("tip");
  if (!lines) { tip.hidden = true; return; }
  tip.replaceChildren(...lines.map(line => line.length === 1 ? distsim.element("b", {}, line[0])
    : distsim.element("div", {}, distsim.element("span", {}, line[0]), ` ${line[1]}`)));
  tip.hidden = false;
  const {width, height} = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, x + 14 + width > innerWidth ? x - width - 10 : x + 14)}px`;
  tip.style.top = `${Math.max(4, y + 14 + height > innerHeight ? y - height - 10 : y + 14)}px`;
};

/* Colours: as the system, or as chosen; the choice is kept where the browser allows it. */
{
  const root = document.documentElement, button = $("theme"), dark = matchMedia("(prefers-color-scheme: dark)");
  const choices = ["system", "light", "dark"];
  let chosen = "system";
  try { chosen = localStorage.getItem("distsim-theme") || "system"; } catch { /* file:// may have no storage */ }
  if (!choices.includes(chosen)) chosen = "system";
  const repaint = () => { for (const paint of distsim.themed) paint(); };
  distsim.theme = name => {
    chosen = name;
    if (name === "system") delete root.dataset.theme; else root.dataset.theme = name;
    button.querySelector("span").textContent = name;
    button.setAttribute("aria-label", `Colours: ${name === "system" ? "as the system" : name}`);
    repaint();
  };
  button.addEventListener("click", () => {
    distsim.theme(choices[(choices.indexOf(chosen) + 1) % choices.length]);
    try { localStorage.setItem("distsim-theme", chosen); } catch { /* as above */ }
  });
  distsim.theme(chosen);
  dark.addEventListener("change", repaint);
  // paper is white and narrow: everything is laid out and painted anew for it, at once
  let before = chosen;
  addEventListener("beforeprint", () => {
    before = chosen;
    root.classList.add("printing");
    distsim.theme("light");
    for (const fit of distsim.fitted) fit();
  });
  addEventListener("afterprint", () => {
    root.classList.remove("printing");
    distsim.theme(before);
    for (const fit of distsim.fitted) fit();
  });
  $("print").addEventListener("click", () => distsim.all().then(() => print()));
}

/* Marks of a logarithmic axis: powers of ten, of a short axis with marks between, each with its unit. */
distsim.logTicks = (values, unit) => {
  const good = values.filter(value => value > 0).map(Math.log10);
  if (!good.length) return {};
  const low = good.reduce((a, b) => Math.min(a, b)), high = good.reduce((a, b) => Math.max(a, b)), tickvals = [];
  for (let power = Math.floor(low) - 1; power <= high + 1; power++)
    for (const digit of high - low > 3 ? [1] : high - low > 0.7 ? [1, 2, 5] : [1, 2, 3, 4, 5, 6, 7, 8, 9]) tickvals.push(digit * 10 ** power);
  // between few of them, marks at even distances
  const inside = tickvals.filter(value => value >= 10 ** low * 0.999 && value <= 10 ** high * 1.001).length;
  if (inside < 3 && high > low) {
    const rough = (10 ** high - 10 ** low) / 4, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].find(digit => digit * power >= rough) * power;
    tickvals.length = 0;
    for (let k = Math.max(1, Math.floor(10 ** low / step)); k <= Math.ceil(10 ** high / step); k++) tickvals.push(k * step);
  }
  const prefixes = ["p", "n", "u", "m", "", "k", "M", "G", "T", "P"];
  const said = value => {
    const k = Math.min(prefixes.length - 1, Math.max(0, Math.floor(Math.log10(value * 1.0001) / 3) + 4));
    return `${Number((value / 1000 ** (k - 4)).toPrecision(6))} ${prefixes[k]}${unit}`.trim();
  };
  return {tickvals, ticktext: tickvals.map(said), ticksuffix: ""};
};

/* Charts by plotly, which is unpacked by the first. `make` gives {data, layout, config} and is asked again for new colours. */
let library = null;
distsim.plotly = () => library ??= distsim.inflate($("plotly").textContent).then(bytes => {
  const code = document.createElement("script");
  code.textContent = new TextDecoder().decode(bytes);
  document.head.append(code);
  return window.Plotly;
});

const merged = (base, more) => {
  const made = {...base};
  for (const key in more) {
    const both = [base[key], more[key]].every(part => part && typeof part === "object" && !Array.isArray(part));
    made[key] = both ? merged(base[key], more[key]) : more[key];
  }
  return made;
};

/* A key of colours above a chart: [name, variable of the style sheet, opacity] each. */
distsim.key = (element, entries) => element.before(distsim.element("div", {class: "key"}, ...entries.map(([name, colour, opacity = 1]) => {
  const swatch = distsim.element("i");
  swatch.style.background = `var(--${colour})`;
  swatch.style.opacity = opacity;
  return distsim.element("span", {}, swatch, name);
})));

distsim.plot = async (element, make) => {
  const plotly = await distsim.plotly();
  const paint = () => {
    const ink = distsim.colour("ink"), soft = distsim.colour("soft"), line = distsim.colour("line");
    const axis = {gridcolor: line, linecolor: line, zerolinecolor: line, tickfont: {color: soft}, automargin: true,
      title: {font: {color: soft, size: 12}, standoff: 8}, fixedrange: true};
    const layout = {
      paper_bgcolor: "transparent", plot_bgcolor: "transparent", font: {family: "system-ui, sans-serif", size: 12, color: ink},
      margin: {l: 48, r: 12, t: 8, b: 40}, xaxis: axis, yaxis: axis, dragmode: false, bargap: 0.15,
      colorway: [1, 2, 3, 4, 5, 6, 7, 8].map(k => distsim.colour(`hue${k}`)),
      legend: {orientation: "h", y: 1.02, yanchor: "bottom", x: 0, traceorder: "normal", itemclick: false, itemdoubleclick: false},
      hoverlabel: {bgcolor: distsim.colour("raised"), bordercolor: line, font: {color: ink, size: 12}},
    };
    const {data, layout: mine = {}, config = {}} = make();
    // NOTE: on paper there is no time to wait for the library to notice the width
    if (document.documentElement.classList.contains("printing")) layout.width = element.clientWidth;
    // NOTE: every further axis (xaxis2 ...) looks like the first ones
    for (const key in mine) if (/^[xy]axis\d+$/.test(key)) layout[key] = axis;
    return plotly.react(element, data, merged(layout, mine), {displayModeBar: false, responsive: true, ...config});
  };
  await paint();
  distsim.themed.push(paint);
};

/* Sections are drawn as they come into view, and the rest while the page is idle, so that it opens at once and prints whole. */
{
  const sections = [...document.querySelectorAll("section[data-draw]")];
  const draw = section => {
    const id = section.dataset.draw;
    return distsim.drawn[id] ??= (async () => {
      const text = $(`${id}-data`);
      try {
        // what needs the chart library waits for what does not: waking it keeps a page busy for a moment
        if ("charts" in section.dataset) await Promise.all(sections.filter(one => !("charts" in one.dataset)).map(draw));
        await distsim.draw[id](section, await distsim.unpack(text ? JSON.parse(text.textContent) : {}));
      } catch (error) {
        section.append(distsim.element("p", {class: "note", role: "alert"}, `This section could not be drawn: ${error.message}`));
        console.error(error);
      }
      section.dataset.drawn = "";
    })();
  };
  distsim.all = async () => { for (const section of sections) await draw(section); };
  const later = window.requestIdleCallback ? work => requestIdleCallback(work, {timeout: 500}) : work => setTimeout(work, 50);
  const next = async () => {
    const section = sections.find(one => !(one.dataset.draw in distsim.drawn));
    if (section) { await draw(section); later(next); }
  };
  addEventListener("DOMContentLoaded", () => {
    const seen = new IntersectionObserver(entries => {
      for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
    }, {rootMargin: "200px"});
    for (const section of sections) seen.observe(section);
    addEventListener("load", () => later(next));

    // where one is, in the contents
    const links = new Map([...document.querySelectorAll("#nav a")].map(link => [link.hash.slice(1), link]));
    const here = new IntersectionObserver(entries => {
      for (const entry of entries) if (entry.isIntersecting) {
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, {rootMargin: "-20% 0px -70% 0px"});
    for (const section of document.querySelectorAll("main > section")) here.observe(section);
  });
}
