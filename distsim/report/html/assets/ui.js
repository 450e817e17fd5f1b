/* Pages of distsim ui: ticking two results, turning knobs, and the re-runs as they go on. */
"use strict";

distsim.ask = async (path, token, body) => {
  const answer = await fetch(path, body === undefined ? {} : {
    method: "POST", headers: {"Content-Type": "application/json", "X-Distsim-Token": token}, body: JSON.stringify(body)});
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.error || answer.statusText);
  return found;
};
distsim.address = (path, asked) => `${path}?${new URLSearchParams(asked)}`;

/* The index: two ticked results of one kind can be compared; rows are found by their words. */
distsim.draw.results = root => {
  const ticks = [...root.querySelectorAll("input[type=checkbox]")], button = $("compare"), note = $("compare-note");
  const order = [];  // as ticked: the first is the one that the other is measured by
  const tell = () => {
    const kinds = new Set(order.map(tick => tick.dataset.kind));
    button.disabled = order.length !== 2 || kinds.size !== 1;
    note.textContent = order.length < 2 ? `tick ${order.length ? "one more" : "two results"} of one kind to see them side by side`
      : order.length > 2 ? "two at a time: untick one" : kinds.size > 1 ? `a ${[...kinds].join(" and a ")} do not compare`
      : `${order[0].dataset.name} against ${order[1].dataset.name}`;
  };
  for (const tick of ticks) {
    tick.checked = false;  // NOTE: browsers keep ticks when one comes back
    tick.addEventListener("change", () => {
      if (tick.checked) order.push(tick); else order.splice(order.indexOf(tick), 1);
      tell();
    });
  }
  button.addEventListener("click", () => {
    location.href = distsim.address("/report", {of: order[0].dataset.name, with: order[1].dataset.name});
  });
  $("find").addEventListener("input", event => {
    const words = event.target.value.toLowerCase().split(/\s+/);
    for (const row of root.querySelectorAll("tbody tr")) row.hidden = !words.every(word => row.textContent.toLowerCase().includes(word));
  });
};

/* The form of knobs. */
distsim.draw.knobs = (root, data) => {
  const said = $("said"), inputs = [...root.querySelectorAll("[data-knob]")];
  $("form").addEventListener("submit", async event => {
    event.preventDefault();
    const changes = Object.fromEntries(inputs.filter(one => one.value.trim()).map(one => [one.dataset.knob, one.value.trim()]));
    if ($("other").value.trim()) changes[$("other").value.trim()] = $("other-value").value.trim();
    $("run").disabled = true;
    said.className = "";
    said.textContent = "checking ...";
    try {
      const job = await distsim.ask("/run", data.token, {of: data.of, name: $("name").value.trim(), changes});
      said.textContent = `run ${job.number} is on its way: ${job.name}`;
      const [, base, number] = /^(.*?)(?:-(\d+))?$/.exec($("name").value.trim());
      $("name").value = `${base}-${Number(number || 1) + 1}`;
      distsim.follow();
    } catch (error) {
      said.className = "bad";
      said.textContent = error.message;
    }
    $("run").disabled = false;
  });
};

/* The re-runs, asked for again while one of them is under way. */
distsim.draw.runs = (root, data) => {
  const place = $("jobs"), E = distsim.element, open = job => job.state === "waiting" || job.state === "running";
  let asking = false, states = new Map();
  const links = job => [
    E("a", {href: distsim.address("/report", {of: job.name})}, "report"), " ",
    E("a", {href: distsim.address("/report", {of: job.of, with: job.name})}, `compare with ${job.of}`)];
  const cells = job => {
    const bar = E("progress", {max: "1", "aria-label": `progress of ${job.name}`, ...(job.fraction === null ? {} : {value: job.fraction})});
    const stop = E("button", {type: "button", "aria-label": `cancel ${job.name}`, onclick: async () => {
      await distsim.ask("/cancel", data.token, {n: job.number});
      follow();
    }}, "Cancel");
    const state = job.state === "running" ? [bar, ` ${job.what}`] : [job.state === "waiting" ? job.what : job.state];
    const end = open(job) ? [stop] : job.state === "done" ? links(job) : [];
    const turned = Object.entries(job.changes).map(([knob, value]) => `${knob} ${value}`).join(", ");
    return [[String(job.number)], [job.name], [turned], state, [job.message], end];
  };
  const paint = jobs => {
    if (!jobs.length) return;
    for (const job of jobs) if (states.has(job.number) && states.get(job.number) !== job.state) distsim.say(`${job.name}: ${job.state}. ${job.message}`);
    states = new Map(jobs.map(job => [job.number, job.state]));
    const head = ["run", "result", "knobs", "state", "answer", ""].map(words => E("th", {scope: "col"}, words));
    const rows = jobs.map(job => E("tr", {"data-state": job.state}, ...cells(job).map((cell, k) =>
      E("td", {class: k === 4 ? (job.state === "failed" ? "long bad" : "long") : ""}, ...cell))));
    const focused = document.activeElement?.getAttribute("aria-label");
    place.replaceChildren(E("div", {class: "wide", tabindex: "0", role: "region", "aria-label": "re-runs"},
      E("table", {}, E("thead", {}, E("tr", {}, ...head)), E("tbody", {}, ...rows))));
    if (focused) [...place.querySelectorAll("button")].find(one => one.getAttribute("aria-label") === focused)?.focus();
  };
  const follow = distsim.follow = async () => {
    if (asking) return;
    asking = true;
    try {
      for (;;) {
        const jobs = await distsim.ask("/jobs");
        paint(jobs);
        if (!jobs.some(open)) break;
        await new Promise(done => setTimeout(done, 400));
      }
    } catch {
      place.append(E("p", {class: "bad", role: "alert"}, "The server does not answer any more."));
    }
    asking = false;
  };
  paint(data.jobs);
  if (data.jobs.some(open)) follow();
};
