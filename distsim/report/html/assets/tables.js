/* Tables sort by a click on a head, or by Enter on it; buttons with data-copy copy. */
"use strict";

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, k) => {
    const cell = row.cells[k], key = cell.dataset.key ?? cell.textContent, number = Number(String(key).replace(/,/g, ""));
    return key !== "" && Number.isFinite(number) ? number : String(key);
  };
  const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === "number" ? -1 : typeof b === "number" ? 1 : a < b ? -1 : a > b ? 1 : 0;
  heads.forEach((head, k) => {
    const button = distsim.element("button", {type: "button", onclick: () => {
      const down = head.getAttribute("aria-sort") === "descending" || (!head.hasAttribute("aria-sort") && !head.matches(".n"));
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map(row => [value(row, k), row]);
      rows.sort((a, b) => down ? order(a[0], b[0]) : order(b[0], a[0]));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    }});
    button.append(...head.childNodes);
    head.append(button);
  });
}

for (const button of document.querySelectorAll("button[data-copy]"))
  button.addEventListener("click", async () => {
    const text = $(button.dataset.copy).textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // file:// is no secure place everywhere: select, and let the browser copy
      getSelection().selectAllChildren($(button.dataset.copy));
      document.execCommand("copy");
    }
    const before = button.textContent;
    button.textContent = "Copied";
    distsim.say("Copied");
    setTimeout(() => { button.textContent = before; }, 1500);
  });
