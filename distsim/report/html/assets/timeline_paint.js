/* Painting of a timeline: rows of tasks on a canvas. What is narrower than a pixel and a half is told by sums, one cell per
   pixel, so that a frame costs rows x pixels at most, however many tasks there are. Knows nothing of events. */
"use strict";

distsim.Painter = class {
  constructor(spans) {
    this.spans = spans;
    this.within = new Float64Array(spans.hues.length);
    this.themed();
  }

  themed() {
    this.fills = this.spans.hues.map(distsim.colour);
    // NOTE: pixels are words of alpha, blue, green, red, as every machine that runs a browser is little endian
    const word = text => { const [r, g, b] = distsim.rgb(text); return r | g << 8 | b << 16; };
    this.words = this.fills.map(word);
    this.pathWord = word(distsim.colour("path")) | 255 << 24;
    this.ink = distsim.colour("ink"); this.soft = distsim.colour("soft"); this.line = distsim.colour("line");
    this.paper = distsim.colour("paper"); this.raised = distsim.colour("raised"); this.path = distsim.colour("path");
    this.accent = distsim.colour("accent");
    this.drawn = 0;  // rectangles of the last frame
  }

  /* Rows of tasks: {row, y, height, label} each, in the window of time that begins at `from` and is width / scale ticks long.
     Cells of all rows go into one image, a line of pixels each (and one for the path's mark), that is stretched to the rows. */
  rows(ctx, places, view, path) {
    const width = Math.ceil(view.width), lines = 2 * places.length;
    if (!lines) return;
    if (!this.image || this.image.width !== width || this.image.height < lines) {
      this.image = new ImageData(width, lines);
      this.pixels = new Uint32Array(this.image.data.buffer);
      this.sheet = distsim.element("canvas", {width, height: lines});
    } else this.pixels.fill(0, 0, width * lines);
    const seen = places.map((place, k) => this.cells(place.row, view, 2 * k * width, width, path));
    this.sheet.getContext("2d").putImageData(this.image, 0, 0, 0, 0, width, lines);
    ctx.imageSmoothingEnabled = false;
    places.forEach(({y, height, label}, k) => {
      const thick = Math.max(2, Math.min(3, height / 4));
      ctx.globalAlpha = 1;
      ctx.drawImage(this.sheet, 0, 2 * k, width, 1, 0, y, width, height);
      for (const task of seen[k]) this.task(ctx, task, view, y, height, label);
      ctx.globalAlpha = 1;
      if (path) {
        ctx.drawImage(this.sheet, 0, 2 * k + 1, width, 1, 0, y + height - thick, width, thick);
        this.marks(ctx, seen[k], view, y + height - thick, thick);
      }
      this.drawn += path ? 2 : 1;
    });
    ctx.globalAlpha = 1;
  }

  /* The cells of a row, into the image from `at` on; gives the tasks that are too wide for cells. */
  cells(row, {from, scale, width}, at, line, path) {
    const s = this.spans, to = from + width / scale, colours = s.hues.length, filtered = s.matches !== null, seen = [];
    for (let k = s.endsAfter(from, row.from, row.to); k < row.to && s.begin[k] < to;) {
      if (s.length[k] * scale >= 1.5) { seen.push(k++); continue; }
      const cell = Math.max(0, Math.floor((s.begin[k] - from) * scale));
      let next = s.beginsFrom(from + (cell + 1) / scale, k, row.to);
      if (next <= k) next = k + 1;
      if (next - 1 > k && s.length[next - 1] * scale >= 1.5) next--;  // the last of a cell may be a wide one
      let best = 0, most = -1, all = 0;
      for (let h = 0; h < colours; h++) {
        const ticks = s.sums[h][next] - s.sums[h][k];
        all += ticks;
        if (ticks > most) { most = ticks; best = h; }
      }
      let alpha = 0.3 + 0.7 * Math.min(1, all * scale);
      if (filtered && s.matchSum[next] === s.matchSum[k]) alpha *= 0.15;
      if (cell < line) {
        this.pixels[at + cell] = this.words[best] | Math.round(255 * alpha) << 24;
        if (path && s.criticalSum[next] > s.criticalSum[k]) this.pixels[at + line + cell] = this.pathWord;
      }
      k = next;
    }
    return seen;
  }

  /* The path's mark under wide tasks; neighbours share a rectangle. */
  marks(ctx, tasks, {from, scale, width}, y, thick) {
    const s = this.spans;
    ctx.fillStyle = this.path;
    let begin = 0, end = -1;
    const flush = () => { if (end > begin) { ctx.fillRect(begin, y, end - begin, thick); this.drawn++; } };
    for (const k of tasks) if (s.critical[k]) {
      const x0 = Math.max(0, (s.begin[k] + s.paleOf(k) - from) * scale), x1 = Math.min(width, (s.end[k] - from) * scale);
      if (x0 > end + 0.5) { flush(); begin = x0; }
      end = Math.max(end, x1);
    }
    flush();
  }

  /* A task that can be seen: pale while it waits, with its name where there is room. */
  task(ctx, k, {from, scale, width}, y, height, label) {
    const s = this.spans, x = (s.begin[k] - from) * scale, wide = s.length[k] * scale, filtered = s.matches !== null, x0 = Math.max(x, -2), x1 = Math.min(x + wide, width + 2);
    const strong = filtered && !s.matches[k] ? 0.15 : 1, gap = wide > 4 ? 0.5 : 0;
    const split = Math.min(x1, Math.max(x0, x + s.paleOf(k) * scale));
    if (split > x0) {
      ctx.fillStyle = this.fills[s.hues.length - 1];
      ctx.globalAlpha = 0.5 * strong;
      ctx.fillRect(x0, y, split - x0, height);
      this.drawn++;
    }
    ctx.fillStyle = this.fills[s.hue[s.kind[k]]];
    if (x1 - gap > split) {
      ctx.globalAlpha = strong;
      ctx.fillRect(split, y, x1 - gap - split, height);
      this.drawn++;
    }
    const start = Math.max(split, 0), room = Math.min(x1, width) - start - 8;
    if (label && room > 22 && height >= 13 && strong === 1) {
      const name = s.nameOf(k), fits = Math.floor(room / 6.1);
      ctx.globalAlpha = 1;
      ctx.fillStyle = "#fff";
      ctx.fillText(name.length <= fits ? name : fits > 2 ? `${name.slice(0, fits - 1)}…` : "", start + 4, y + height / 2 + 0.5);
    }
  }

  /* The critical path from row to row: from where one task ends to where the next goes on. `middle` gives y of a row's middle. */
  links(ctx, {from, scale, width}, middle) {
    const s = this.spans, to = from + width / scale, path = s.path;
    ctx.strokeStyle = this.path;
    ctx.globalAlpha = 0.75;
    ctx.lineWidth = 1;
    ctx.beginPath();
    // NOTE: no more than one line per pixel and pair of rows, which many short messages would draw
    let low = 0, high = path.length;
    while (low < high) { const m = (low + high) >> 1; if (path[m] >= 0 && s.end[path[m]] < from) low = m + 1; else high = m; }
    let lastX = -1, lastY = -1, lines = 0;
    for (let i = Math.max(1, low); i < path.length && lines < 4000; i++) {
      const a = path[i - 1], b = path[i];
      if (a < 0 || b < 0) continue;
      const goes = s.begin[b] + s.paleOf(b);
      if (goes > to && s.end[a] > to) break;
      const one = s.rowOf(a), other = s.rowOf(b);
      if (one === other || (one.rank === other.rank && one.height < 8)) continue;  // rows of a folded rank lie too close
      const ya = middle(one), yb = middle(other), xa = (Math.min(s.end[a], goes) - from) * scale, xb = (goes - from) * scale;
      if (ya === yb || (ya < 0 && yb < 0) || xb < 0) continue;
      if (Math.floor(xb) === lastX && yb === lastY) continue;
      lastX = Math.floor(xb); lastY = yb; lines++;
      ctx.moveTo(xa, ya);
      ctx.lineTo(xb, yb);
    }
    ctx.stroke();
    ctx.globalAlpha = 1;
    this.drawn += lines;
  }

  /* The axis: round times, as far apart as their names need. Gives the x of its ticks. */
  axis(ctx, {from, scale, width}, height) {
    const tick = this.spans.tick, least = 90 / scale * tick, power = 10 ** Math.floor(Math.log10(least));
    const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= least), found = [];
    const [unit, size] = distsim.unit(Math.max((from + width / scale) * tick, step)), digits = Math.max(0, Math.ceil(-Math.log10(step / size)));
    ctx.fillStyle = this.soft;
    ctx.font = "11px system-ui, sans-serif";
    ctx.textBaseline = "middle";
    for (let t = Math.ceil(from * tick / step); t * step <= (from + width / scale) * tick; t++) {
      const x = (t * step / tick - from) * scale;
      found.push(x);
      const said = `${(t * step / size).toFixed(Math.min(digits, 6))} ${unit}`;
      if (x + 6.2 * said.length < width) ctx.fillText(said, x + 4, height / 2);
      ctx.fillRect(x, height - 6, 1, 6);
    }
    return found;
  }

  /* All rows over all time, a column of shares per pixel. */
  overview(ctx, width, height) {
    const s = this.spans, share = new Float64Array(s.hues.length), ticks = s.last / width;
    for (let x = 0; x < width; x++) {
      share.fill(0);
      for (const row of s.rows) {
        s.within(row, x * ticks, (x + 1) * ticks, this.within);
        for (let h = 0; h < share.length; h++) share[h] += this.within[h];
      }
      let y = height;
      for (let h = 0; h < share.length; h++) {
        const part = height * Math.min(1, share[h] / (ticks * this.parallel));
        ctx.fillStyle = this.fills[h];
        ctx.fillRect(x, y - part, 1, part);
        y -= part;
      }
    }
    ctx.globalAlpha = 1;
  }

  /* How many rows are at work at once, at most, about: what the overview's full height stands for. */
  get parallel() {
    if (this._parallel === undefined) {
      const s = this.spans, cells = 200, ticks = s.last / cells;
      let most = 0;
      for (let c = 0; c < cells; c++) {
        let all = 0;
        for (const row of s.rows) { s.within(row, c * ticks, (c + 1) * ticks, this.within); all += this.within.reduce((a, b) => a + b, 0); }
        most = Math.max(most, all / ticks);
      }
      this._parallel = most || 1;
    }
    return this._parallel;
  }
};
