/* The timeline: what is looked at, and the controls. Time is in ticks of the columns (timeline_spans.js). */
"use strict";

const FULL = 20, FOLDED = 22, GAP = 4, MOST = 520;  // px: a row, a folded rank, between ranks, the whole drawing

distsim.Timeline = class {
  constructor(host, data) {
    this.host = host;
    this.spans = new distsim.Spans(data);
    this.painter = new distsim.Painter(this.spans);
    this.ranks = data.ranks.map(rank => ({...rank, rows: this.spans.rows.filter(row => row.rank === rank.rank), open: false}));
    for (const rank of this.ranks) rank.open = this.ranks.length <= 8;
    this.from = 0;
    this.to = this.spans.last;
    this.selected = -1;
    this.axisHeight = data.steps.length ? 38 : 24;
    this.build();
    this.fold();
    distsim.themed.push(() => { this.painter.themed(); this.overviewed = null; this.paint(); });
    distsim.fitted.push(() => { this.measure(); this.frame(); });
    new ResizeObserver(() => this.measure()).observe(this.body);
    this.measure();
  }

  /* Elements. */
  build() {
    const e = distsim.element, button = (text, label, onclick, more = {}) => e("button", {type: "button", "aria-label": label, title: label, onclick, ...more}, text);
    this.found = e("span", {class: "found", role: "status"});
    this.query = e("input", {type: "search", placeholder: "Name, kind or group", "aria-label": "Search tasks by name, kind or group",
      oninput: () => this.search(), onkeydown: event => { if (event.key === "Enter") { event.preventDefault(); this.step(!event.shiftKey); } }});
    this.showPath = button("Critical path", "Highlight the critical path", () => {
      const on = this.showPath.getAttribute("aria-pressed") !== "true";
      this.showPath.setAttribute("aria-pressed", on);
      this.paint();
    }, {"aria-pressed": "true"});
    const steps = this.spans.steps, choose = e("select", {"aria-label": "Show one step", onchange: () => {
      const step = steps[choose.selectedIndex - 1];
      if (step) this.span(step.begin, step.end); else this.look(0, this.spans.last);
    }}, e("option", {}, "all steps"), ...steps.map(step => e("option", {}, step.name)));
    const controls = e("div", {class: "controls"},
      button("−", "Zoom out (-)", () => this.zoom(2)), button("+", "Zoom in (+)", () => this.zoom(0.5)), button("All", "Show all of it (0)", () => this.look(0, this.spans.last)),
      ...(steps.length > 1 ? [choose] : []), this.showPath,
      button("Unfold", "Show all rows of every rank", () => this.foldAll(true)), button("Fold", "Show one row for every rank", () => this.foldAll(false)),
      this.query, button("‹", "Previous match (Shift + Enter)", () => this.step(false)), button("›", "Next match (Enter)", () => this.step(true)), this.found);
    const said = {message: "send, recv", other: "other collectives", waiting: "waits for other ranks", path: "on the critical path"};
    const key = e("div", {class: "key"}, ...[...this.spans.hues, "path"].map(hue => {
      const swatch = e("i", {class: hue}); swatch.style.background = `var(--${hue})`;
      return e("span", {}, swatch, said[hue] || hue);
    }));
    this.map = e("canvas", {class: "map", "aria-hidden": "true"});
    this.axis = e("canvas", {class: "axis", "aria-hidden": "true"});
    this.canvas = e("canvas", {"aria-hidden": "true"});
    this.gutter = e("div", {class: "gutter"});
    this.stage = e("div", {class: "stage", tabindex: "0", role: "application", "aria-roledescription": "timeline",
      "aria-label": `Timeline of ${distsim.count(this.spans.count)} tasks on ${this.ranks.length} ranks`, "aria-describedby": `${this.host.id}-help`}, this.canvas);
    this.hint = e("div", {class: "hint", hidden: true}, "Click, then the wheel zooms; or Ctrl + wheel");
    this.body = e("div", {class: "body"}, e("div", {class: "inner"}, this.gutter, this.stage));
    this.details = e("div", {class: "details", "aria-live": "polite"});
    const help = e("p", {class: "note", id: `${this.host.id}-help`},
      "Wheel or + and − zoom, drag or ← → move, ↑ ↓ choose a row, N and P its next and previous task, Enter zooms to it, 0 shows all, Home and End go to the ends. Click a task to keep its details.");
    this.host.append(controls, key, e("div", {class: "frame"}, this.map, this.axis, this.body, this.hint), this.details, help);
    this.listen();
  }

  /* The rows' places, and the buttons beside them. */
  fold() {
    const e = distsim.element;
    let y = 0;
    const entries = [];
    for (const rank of this.ranks) {
      rank.y = y;
      const height = rank.height = rank.open ? FULL * rank.rows.length : FOLDED, each = rank.open ? FULL : (FOLDED - 2) / rank.rows.length;
      rank.rows.forEach((row, k) => { row.y = y + k * each; row.height = rank.open ? FULL - 2 : Math.max(1.5, each - (each > 4 ? 1 : 0)); });
      const stands = rank.standsFor > 1 ? ` ×${distsim.count(rank.standsFor)}` : "";
      const said = [`rank ${rank.rank}`, rank.standsFor > 1 ? `stands for ${distsim.count(rank.standsFor)} ranks that do the same` : "", rank.why].filter(Boolean).join(", ");
      const toggle = e("button", {type: "button", class: "rank", "aria-expanded": String(rank.open), title: said, "aria-label": said,
        onclick: () => { rank.open = !rank.open; this.fold(); this.paint(); this.gutter.children[this.ranks.indexOf(rank)].firstChild.focus(); }},
        `${rank.open ? "▾" : "▸"} ${rank.rank}${stands}`);
      const entry = e("div", {class: "entry"}, toggle, ...(rank.open ? rank.rows.map(row => {
        const title = e("span", {class: "title", title: row.title}, row.title);
        title.style.top = `${row.y - y}px`;
        return title;
      }) : [e("span", {class: "title", title: rank.why}, rank.why)]));
      entry.style.top = `${y}px`;
      entry.style.height = `${height}px`;
      entries.push(entry);
      y += height + GAP;
    }
    this.gutter.replaceChildren(...entries);
    this.height = Math.max(y - GAP, FULL);
    this.gutter.style.height = `${this.height}px`;
    this.shown = Math.min(this.height, MOST);
    this.body.style.height = `${this.shown}px`;
    this.measure();
  }

  foldAll(open) { for (const rank of this.ranks) rank.open = open; this.fold(); this.paint(); }

  measure() {
    const width = Math.max(100, this.stage.clientWidth);
    this.width = width;
    const left = this.gutter.offsetWidth, ratio = devicePixelRatio || 1;
    for (const [canvas, height] of [[this.canvas, this.shown], [this.axis, this.axisHeight], [this.map, 44]]) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
      if (canvas !== this.canvas) canvas.style.marginLeft = `${left}px`;
    }
    this.overviewed = null;
    this.paint();
  }

  /* The window in ticks, kept inside the run and wide enough to mean something. */
  look(from, to) {
    const least = Math.max(20, this.spans.last / 1e7), span = Math.min(this.spans.last, Math.max(least, to - from));
    if (to - from !== span) from = (from + to - span) / 2;
    this.from = Math.min(Math.max(0, from), this.spans.last - span);
    this.to = this.from + span;
    this.paint();
  }
  /* From one time to another, in ps, with a little on both sides. */
  span(begin, end) { const room = 0.02 * (end - begin); this.look((begin - room) / this.spans.tick, (end + room) / this.spans.tick); }
  zoom(factor, at = (this.from + this.to) / 2) { this.look(at - (at - this.from) * factor, at + (this.to - at) * factor); }
  move(share) { const by = share * (this.to - this.from); this.look(this.from + by, this.to + by); }
  get window() { return {from: this.from, scale: this.width / (this.to - this.from), width: this.width}; }

  paint() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => { this.asked = false; this.frame(); });
  }

  frame() {
    if (!this.width) return;
    const ratio = devicePixelRatio || 1, painter = this.painter, view = this.window, ctx = this.canvas.getContext("2d"), top = this.body.scrollTop;
    painter.drawn = 0;
    const axis = this.axis.getContext("2d");
    axis.setTransform(ratio, 0, 0, ratio, 0, 0);
    axis.clearRect(0, 0, this.width, this.axisHeight);
    const grid = painter.axis(axis, view, 24);
    for (const step of this.spans.steps) {
      const x = Math.max(0, (step.begin / this.spans.tick - view.from) * view.scale), until = Math.min(this.width, (step.end / this.spans.tick - view.from) * view.scale);
      if (until - x > 6.2 * step.name.length) axis.fillText(step.name, x + 4, 30);
    }
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, this.width, this.shown);
    ctx.fillStyle = painter.line;
    for (const x of grid) ctx.fillRect(Math.round(x), 0, 1, this.shown);
    ctx.font = "11px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    const path = this.showPath.getAttribute("aria-pressed") === "true";
    const seen = this.ranks.flatMap(rank => rank.rows.map(row => ({row, y: row.y - top, height: row.height, label: rank.open})));
    painter.rows(ctx, seen.filter(({y, height}) => y + height >= 0 && y <= this.shown), view, path);
    for (const step of this.spans.steps) this.boundary(ctx, step, view);
    if (path) painter.links(ctx, view, row => row.y - top + row.height / 2);
    if (this.selected >= 0) {
      const row = this.spans.rowOf(this.selected), x = (this.spans.begin[this.selected] - view.from) * view.scale;
      ctx.strokeStyle = painter.accent;
      ctx.lineWidth = 2;
      ctx.strokeRect(Math.max(-3, x), row.y - top, Math.min(this.width + 6, Math.max(2, this.spans.length[this.selected] * view.scale)), row.height);
    }
    if (this.row) { ctx.fillStyle = painter.accent; ctx.fillRect(0, this.row.y - top, 3, this.row.height); }
    this.overview(ratio);
    this.host.dataset.drawn = painter.drawn;  // rectangles and lines of the last frame
  }

  /* Where an iteration of a captured trace begins. */
  boundary(ctx, step, {from, scale}) {
    const x = (step.begin / this.spans.tick - from) * scale;
    if (x < 0 || x > this.width) return;
    ctx.fillStyle = this.painter.soft;
    ctx.fillRect(Math.round(x), 0, 1, this.shown);
  }

  overview(ratio) {
    const ctx = this.map.getContext("2d");
    if (!this.overviewed) {
      this.overviewed = document.createElement("canvas");
      this.overviewed.width = Math.round(this.width);
      this.overviewed.height = 40;
      this.painter.overview(this.overviewed.getContext("2d"), this.overviewed.width, 40);
    }
    ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
    ctx.clearRect(0, 0, this.width, 44);
    ctx.drawImage(this.overviewed, 0, 2, this.width, 40);
    const scale = this.width / this.spans.last, x0 = this.from * scale, x1 = Math.max(x0 + 2, this.to * scale);
    ctx.fillStyle = this.painter.paper;
    ctx.globalAlpha = 0.65;
    ctx.fillRect(0, 0, x0, 44);
    ctx.fillRect(x1, 0, this.width - x1, 44);
    ctx.globalAlpha = 1;
    ctx.strokeStyle = this.painter.soft;
    ctx.lineWidth = 1;
    ctx.strokeRect(x0 + 0.5, 0.5, Math.max(1, x1 - x0 - 1), 43);
  }

  /* What is under a point of the drawing. */
  under(event) {
    const box = this.canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top + this.body.scrollTop;
    const {from, scale} = this.window, instant = from + x / scale, rank = this.ranks.find(one => y >= one.y && y < one.y + one.height);
    if (!rank) return {k: -1, instant};
    // of a folded rank, whose rows are thin, the nearest row that has a task there
    const away = row => Math.abs(y - row.y - row.height / 2);
    const rows = rank.open ? rank.rows.filter(row => y >= row.y && y < row.y + FULL) : [...rank.rows].sort((a, b) => away(a) - away(b));
    for (const row of rows) { const k = this.spans.at(row, instant, 2 / scale); if (k >= 0) return {k, instant}; }
    return {k: -1, instant};
  }

  select(k, look = false) {
    this.selected = k;
    this.details.replaceChildren();
    if (k >= 0) {
      this.row = this.spans.rowOf(k);
      const lines = this.spans.told(k), e = distsim.element;
      this.details.append(e("b", {}, lines[0][0]), e("dl", {}, ...lines.slice(1).flatMap(([name, value]) => [e("dt", {}, name), e("dd", {}, value)])));
      if (this.spans.releasedBy[k])
        this.details.append(e("button", {type: "button", onclick: () => this.select(k - this.spans.releasedBy[k], true)}, "Go to what released it"));
      if (look) this.reveal(k);
    }
    this.paint();
  }

  /* Bring a task into view, with its rank unfolded. */
  reveal(k) {
    const row = this.spans.rowOf(k), rank = this.ranks.find(one => one.rows.includes(row));
    if (!rank.open) { rank.open = true; this.fold(); }
    if (row.y < this.body.scrollTop || row.y + row.height > this.body.scrollTop + this.shown) this.body.scrollTop = row.y - this.shown / 2;
    const begin = this.spans.begin[k], end = this.spans.end[k], span = this.to - this.from, room = end - begin;
    if (room < span / 200 || room > span) this.look((begin + end) / 2 - 10 * Math.max(room, 1), (begin + end) / 2 + 10 * Math.max(room, 1));
    else if (begin < this.from || end > this.to) this.look((begin + end - span) / 2, (begin + end + span) / 2);
  }

  search() {
    const found = this.spans.search(this.query.value);
    this.found.textContent = found ? `${distsim.count(found.count)} task${found.count === 1 ? "" : "s"}, ${distsim.time(found.ps)} in all` : "";
    this.paint();
  }
  step(forward) { const k = this.spans.nextMatch(this.selected, forward); if (k >= 0) this.select(k, true); }

  listen() {
    const stage = this.stage;
    let drag = null;
    stage.addEventListener("wheel", event => {
      if (!event.ctrlKey && !event.shiftKey && document.activeElement !== stage) {
        this.hint.hidden = false;
        clearTimeout(this.hinting);
        this.hinting = setTimeout(() => { this.hint.hidden = true; }, 1200);
        return;
      }
      event.preventDefault();
      const sideways = event.shiftKey ? event.deltaX || event.deltaY : Math.abs(event.deltaX) > Math.abs(event.deltaY) ? event.deltaX : 0;
      if (sideways) this.move(sideways / this.width);
      else this.zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 250))), this.under(event).instant);
      distsim.tip(null);
    }, {passive: false});
    stage.addEventListener("pointerdown", event => {
      if (event.button) return;
      drag = {x: event.clientX, y: event.clientY, from: this.from, to: this.to, top: this.body.scrollTop, moved: false};
      stage.setPointerCapture(event.pointerId);
    });
    stage.addEventListener("pointermove", event => {
      if (!drag) return this.hover(event);
      const by = event.clientX - drag.x;
      if (!drag.moved && Math.hypot(by, event.clientY - drag.y) < 4) return;
      drag.moved = true;
      distsim.tip(null);
      const ticks = by / this.width * (drag.to - drag.from);
      this.body.scrollTop = drag.top - (event.clientY - drag.y);
      this.look(drag.from - ticks, drag.to - ticks);
    });
    stage.addEventListener("pointerup", event => { if (drag && !drag.moved) this.select(this.under(event).k); drag = null; });
    stage.addEventListener("pointercancel", () => { drag = null; });
    stage.addEventListener("pointerleave", () => distsim.tip(null));
    stage.addEventListener("dblclick", event => { const {k} = this.under(event); if (k >= 0) this.zoomTo(k); });
    stage.addEventListener("keydown", event => this.key(event));
    stage.addEventListener("blur", () => { this.row = null; distsim.tip(null); this.paint(); });
    this.body.addEventListener("scroll", () => this.paint());
    const jump = event => {
      const at = (event.clientX - this.map.getBoundingClientRect().left) / this.width * this.spans.last, half = (this.to - this.from) / 2;
      this.look(at - half, at + half);
    };
    this.map.addEventListener("pointerdown", event => { this.map.setPointerCapture(event.pointerId); jump(event); });
    this.map.addEventListener("pointermove", event => { if (event.buttons & 1) jump(event); });
  }

  hover(event) {
    const {k} = this.under(event);
    distsim.tip(k >= 0 ? this.spans.told(k) : null, event.clientX, event.clientY);
  }

  zoomTo(k) {
    const room = Math.max(this.spans.length[k], 1);
    this.look(this.spans.begin[k] - room / 4, this.spans.end[k] + room / 4);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const act = {
      ArrowLeft: () => this.move(event.shiftKey ? -0.8 : -0.15), ArrowRight: () => this.move(event.shiftKey ? 0.8 : 0.15),
      ArrowUp: () => this.nextRow(-1), ArrowDown: () => this.nextRow(1), "+": () => this.zoom(0.6), "=": () => this.zoom(0.6), "-": () => this.zoom(1 / 0.6),
      0: () => this.look(0, this.spans.last), Home: () => this.look(0, this.to - this.from), End: () => this.look(this.spans.last - (this.to - this.from), this.spans.last),
      n: () => this.nextTask(1), p: () => this.nextTask(-1), Enter: () => { if (this.selected >= 0) this.zoomTo(this.selected); }, Escape: () => this.select(-1),
    }[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (act) { event.preventDefault(); act(); }
  }

  nextRow(by) {
    const rows = this.ranks.flatMap(rank => rank.open ? rank.rows : rank.rows.slice(0, 1));
    const at = this.row ? rows.findIndex(row => row.rank === this.row.rank && row.number >= Math.min(this.row.number, row.number)) : -1;
    const now = this.row && rows.includes(this.row) ? rows.indexOf(this.row) : at;
    this.row = rows[Math.min(rows.length - 1, Math.max(0, now + by))];
    if (this.row.y < this.body.scrollTop) this.body.scrollTop = this.row.y;
    if (this.row.y + FULL > this.body.scrollTop + this.shown) this.body.scrollTop = this.row.y + FULL - this.shown;
    distsim.say(`rank ${this.row.rank}, ${this.row.title}, ${distsim.count(this.row.tasks)} tasks`);
    this.paint();
  }

  nextTask(by) {
    const row = this.row ?? (this.selected >= 0 ? this.spans.rowOf(this.selected) : this.ranks[0]?.rows[0]);
    if (!row) return;
    const inside = this.selected >= row.from && this.selected < row.to;
    const k = inside ? this.selected + by : this.spans.endsAfter(this.from, row.from, row.to);
    if (k >= row.from && k < row.to) {
      this.select(k);
      if (this.spans.begin[k] < this.from || this.spans.end[k] > this.to) {
        const half = (this.to - this.from) / 2, middle = (this.spans.begin[k] + this.spans.end[k]) / 2;
        this.look(middle - half, middle + half);
      }
    }
  }
};

distsim.timelines = {};
distsim.drawTimeline = id => async (root, data) => { distsim.timelines[id] = new distsim.Timeline($(`${id}-view`), data); };
distsim.draw.timeline = distsim.drawTimeline("timeline");

/* Show a task, by its number: for tables that name tasks. */
distsim.show = k => {
  $("timeline").scrollIntoView();
  distsim.timelines.timeline?.select(k, true);
};

/* Show a stretch of time, in ps: for tables of steps. */
distsim.showSpan = (begin, end) => {
  $("timeline").scrollIntoView();
  distsim.timelines.timeline?.span(begin, end);
};
