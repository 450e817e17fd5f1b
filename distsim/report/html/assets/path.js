/* Steps of the critical path: a button on each that shows it on the timeline. */
"use strict";

distsim.draw.path = async root => {
  for (const row of root.querySelectorAll("tr[data-task]")) {
    const cell = row.cells[0], name = cell.textContent;
    cell.append(" ", distsim.element("button", {
      type: "button", "aria-label": `Show ${name} on the timeline`, title: "Show on the timeline",
      onclick: () => distsim.show(Number(row.dataset.task)),
    }, "↗"));
  }
};
