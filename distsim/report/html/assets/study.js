/* Values of a study in the words of the command line (distsim/sweep/shown.py), and its rows. */
"use strict";

distsim.study = {
  said: (name, value) => {
    if (value === null || value === undefined) return "-";
    if (typeof value === "boolean") return value ? "yes" : "no";
    if (typeof value !== "number") return String(value);
    if (name.endsWith("_ps")) return distsim.time(value);
    if (name.endsWith("_bytes")) return distsim.size(value);
    if (/_(fraction|share)$/.test(name) || name === "mfu" || name === "hfu") return `${(100 * value).toFixed(1)} %`;
    return Number.isInteger(value) ? distsim.count(value) : String(+value.toPrecision(4));
  },
  titled: name => name.replace(/_(ps|bytes|fraction|share)$/, "").replaceAll("_", " "),
  /* An axis of plotly for a column: picoseconds in the unit that reads best. */
  axis: (name, values) => {
    const most = Math.max(...values.map(Math.abs).filter(Number.isFinite), 0);
    if (name.endsWith("_ps")) { const [unit, size] = distsim.unit(most); return {scale: 1 / size, title: `${distsim.study.titled(name)} (${unit})`}; }
    if (name.endsWith("_bytes")) return {scale: 1 / 2 ** 30, title: `${distsim.study.titled(name)} (GiB)`};
    if (/_(fraction|share)$/.test(name) || name === "mfu" || name === "hfu") return {scale: 1, title: distsim.study.titled(name), tickformat: ".0%"};
    return {scale: 1, title: distsim.study.titled(name)};
  },
};
