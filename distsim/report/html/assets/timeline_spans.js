/* The tasks of a timeline: columns, sums over them, and what of a row lies in a window of time. Draws nothing. */
"use strict";

/* Kinds that have a colour of their own; messages share one, other collectives another. */
distsim.hueOf = kind => ({send: "message", recv: "message", compute: "compute", host: "host", memory: "memory", delay: "delay"})[kind]
  || ["all_reduce", "all_gather", "reduce_scatter", "all_to_all"].find(name => kind.startsWith(name)) || "other";

distsim.Spans = class {
  constructor(data) {
    Object.assign(this, data);
    this.count = this.begin.length;
    this.end = new Float64Array(this.count);  // ticks
    for (let k = 0; k < this.count; k++) this.end[k] = this.begin[k] + this.length[k];
    this.last = Math.max(1, data.makespan / data.tick);
    let from = 0;
    for (const [number, row] of this.rows.entries()) { row.from = from; from = row.to = from + row.tasks; row.number = number; }
    // colours that occur, and the colour of each kind; the last colour is waiting
    const hues = this.kinds.map(distsim.hueOf), used = new Set(this.kind);
    this.hues = [...new Set(hues.filter((_, k) => used.has(k))), "waiting"];
    this.hue = Uint8Array.from(hues, name => Math.max(0, this.hues.indexOf(name)));
    this.receives = this.kinds.indexOf("recv");
    // sums before each task, per colour, so that a window's share of each is a subtraction
    this.sums = this.hues.map(() => new Float64Array(this.count + 1));
    this.criticalSum = new Float64Array(this.count + 1);
    const waiting = this.hues.length - 1, totals = new Float64Array(this.hues.length);
    for (let k = 0, critical = 0; k < this.count; k++) {
      const pale = this.paleOf(k);
      totals[waiting] += pale;
      totals[this.hue[this.kind[k]]] += this.length[k] - pale;
      for (let h = 0; h < totals.length; h++) this.sums[h][k + 1] = totals[h];
      if (this.critical[k]) critical += Math.max(this.length[k] - pale, 1);
      this.criticalSum[k + 1] = critical;
    }
    this.matches = null;
  }

  /* Ticks of a task in which it is issued, but waits for others. */
  paleOf(k) { return this.kind[k] === this.receives ? 0 : Math.min(this.wait[k], this.length[k]); }

  /* The first task in from .. to that ends after an instant; that begins at or after it. Within a row both ascend. */
  endsAfter(instant, from, to) {
    while (from < to) { const middle = (from + to) >> 1; if (this.end[middle] > instant) to = middle; else from = middle + 1; }
    return from;
  }
  beginsFrom(instant, from, to) {
    // NOTE: gallops, as what is looked for is mostly near
    let step = 1;
    while (from + step < to && this.begin[from + step] < instant) { from += step; step *= 2; }
    to = Math.min(to, from + step);
    while (from < to) { const middle = (from + to) >> 1; if (this.begin[middle] >= instant) to = middle; else from = middle + 1; }
    return from;
  }

  /* The task of a row at an instant, or the nearest within `slack` ticks; -1 for none. */
  at(row, instant, slack) {
    const k = this.endsAfter(instant - slack, row.from, row.to);
    if (k >= row.to || this.begin[k] > instant + slack) return -1;
    let best = k;
    for (let j = k; j < row.to && this.begin[j] <= instant + slack && j < k + 200; j++)
      if (this.begin[j] <= instant && instant < this.end[j]) return j; else if (this.length[j] > this.length[best]) best = j;
    return best;
  }

  /* Ticks of each colour that a row spends in a window, into `into`. */
  within(row, from, to, into) {
    into.fill(0);
    const first = this.endsAfter(from, row.from, row.to), next = this.beginsFrom(to, first, row.to);
    if (first >= next) return;
    for (let h = 0; h < into.length; h++) into[h] += this.sums[h][next] - this.sums[h][first];
    // the first and last may reach out of the window; a task waits first, then moves
    const waiting = this.hues.length - 1;
    for (const k of first === next - 1 ? [first] : [first, next - 1]) {
      const moves = this.begin[k] + this.paleOf(k), outside = (a, b) => Math.max(0, Math.min(b, from) - a) + Math.max(0, b - Math.max(a, to));
      into[waiting] -= outside(this.begin[k], moves);
      into[this.hue[this.kind[k]]] -= outside(moves, this.end[k]);
    }
  }

  /* Search by name, kind and group: words that all have to occur. Gives how many match, and their time. */
  search(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) { this.matches = this.matchSum = null; return null; }
    const has = list => words.map(word => Uint8Array.from(list, name => name.toLowerCase().includes(word) ? 1 : 0));
    const names = has(this.names), kinds = has(this.kinds), groups = has(this.groups);
    this.matches = new Uint8Array(this.count);
    this.matchSum = new Float64Array(this.count + 1);
    let count = 0, ticks = 0;
    for (let k = 0; k < this.count; k++) {
      let all = 1;
      for (let w = 0; w < words.length && all; w++) all = names[w][this.name[k]] | kinds[w][this.kind[k]] | groups[w][this.group[k]];
      if (all) { this.matches[k] = 1; count++; ticks += this.length[k]; }
      this.matchSum[k + 1] = ticks;
    }
    return {count, ps: ticks * this.tick};
  }

  /* The next task that matches, from one on, in the order of their beginnings over all rows; -1 for none. */
  nextMatch(from, forward) {
    if (!this.matches) return -1;
    this.byBegin ??= Uint32Array.from({length: this.count}, (_, k) => k).sort((a, b) => this.begin[a] - this.begin[b] || a - b);
    this.placeByBegin ??= (() => { const place = new Uint32Array(this.count); this.byBegin.forEach((k, p) => { place[k] = p; }); return place; })();
    let place = from < 0 ? (forward ? -1 : this.count) : this.placeByBegin[from];
    for (let tried = 0; tried < this.count; tried++) {
      place = (place + (forward ? 1 : this.count - 1) + (place < 0 ? this.count : 0)) % this.count;
      if (this.matches[this.byBegin[place]]) return this.byBegin[place];
    }
    return -1;
  }

  rowOf(k) {
    let from = 0, to = this.rows.length - 1;
    while (from < to) { const middle = (from + to) >> 1; if (this.rows[middle].to > k) to = middle; else from = middle + 1; }
    return this.rows[from];
  }

  nameOf(k) { return this.names[this.name[k]] || this.kinds[this.kind[k]]; }

  /* What is said of a task: [[title], [name, value] ...]. */
  told(k) {
    const ps = ticks => distsim.time(ticks * this.tick), kind = this.kinds[this.kind[k]], row = this.rowOf(k);
    const lines = [[this.nameOf(k)], ["kind", kind], ["rank", `${row.rank}, ${row.title}`]];
    if (this.groups[this.group[k]]) lines.push(["group", this.groups[this.group[k]]]);
    lines.push(["start", ps(this.begin[k])], ["duration", ps(this.length[k])]);
    const size = this.sizes[this.size[k]];
    if (size) lines.push(["bytes", distsim.size(size)]);
    if (this.wait[k]) lines.push(["waited", ps(this.wait[k]) + (this.waitedFor[k] >= 0 ? ` for rank ${this.waitedFor[k]}` : "")]);
    if (this.releasedBy[k]) {
      const by = k - this.releasedBy[k], other = this.rowOf(by);
      lines.push(["released by", this.nameOf(by) + (other.rank === row.rank ? "" : `, rank ${other.rank}`)]);
    }
    if (this.critical[k]) lines.push(["", "on the critical path"]);
    return lines;
  }
};
