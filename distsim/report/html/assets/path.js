/* Rows that stand for a task, or for a stretch of time: a button on each that shows it on the timeline. */
"use strict";

distsim.draw.path = distsim.draw.why = distsim.draw.iterations = async root => {
  for (const row of root.querySelectorAll("tr[data-task], tr[data-begin]")) {
    const cell = row.cells[0], name = cell.textContent, {task, begin, end} = row.dataset;
    cell.append(" ", distsim.element("button", {
      type: "button", "aria-label": `Show ${name} on the timeline`, title: "Show on the timeline",
      onclick: () => task === undefined ? distsim.showSpan(Number(begin), Number(end)) : distsim.show(Number(task)),
    }, "↗"));
  }
};
