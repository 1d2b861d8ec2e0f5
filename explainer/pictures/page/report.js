"use strict";
/* The page of a run: tables to sort and to filter, and pictures under their maps.

   Words    a picture is one image of the run, a panel one of its maps: of a method, a layer or a model
            a row is a line of the table of detections: row.at is [picture, panel, detection]
   Data     JSON in the script elements `data` and `part-0`, `part-1` ..., or the scripts in the folder data.beside
   Text     whatever comes from the data becomes text nodes and attributes, never markup */

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const MOST_LABELS = 12;
const ROWS_AT_ONCE = 100;
const MOST_PRINTED = { rows: 2000, pictures: 200 };
// What is further away than so many pixels is neither decoded nor kept.
const NEAR = 800;

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function announce(text) {
  byId("status").textContent = text;
}

/* ---- Colours: from the 256 greys of a map to what lies over the photograph ---- */

const look = { heat: true, opacity: 0.8, colours: Object.keys(data.colours)[0], tone: byId("tone") && byId("tone").value };
const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const colourTables = Object.fromEntries(Object.entries(data.colours).map(([name, text]) => [name, bytesOf(text)]));

function valueOf(grey, sign) {
  return sign ? (grey - 128) / 127 : grey / 255;
}

/* How hot a magnitude looks, 0..1. The curve of a map has 256 steps for the tone "evidence"; without one, as in the legend,
   colours stand for heat itself. */
function heatOf(magnitude, curve) {
  if (look.tone === "root") return Math.sqrt(magnitude);
  return look.tone === "evidence" && curve ? curve[Math.round(255 * magnitude)] / 255 : magnitude;
}

/* The colour and opacity of each grey, as the pixels of a canvas. Opacity rises slowly, so that the photograph stays
   visible where little speaks. */
function colourSteps(sign, curve = null) {
  const steps = new Uint8ClampedArray(4 * 256);
  for (let grey = 0; grey < 256; grey++) {
    const value = valueOf(grey, sign);
    const heat = heatOf(Math.min(Math.abs(value), 1), curve);
    const at = 3 * Math.round(255 * heat);
    const colour = sign ? data.signed[value > 0 ? 0 : 1] : colourTables[look.colours].subarray(at, at + 3);
    steps.set(colour, 4 * grey);
    steps[4 * grey + 3] = 255 * heat * heat * (3 - 2 * heat);
  }
  return new Uint32Array(steps.buffer);
}

function canvasOf(width, height) {
  const canvas = element("canvas", { width, height });
  return [canvas, canvas.getContext("2d", { willReadFrequently: true })];
}

/* A decoded map: its greys, of its own size or enlarged. */
function greysOf(image, width, height) {
  const [, context] = canvasOf(width, height);
  context.drawImage(image, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height).data;
  const greys = new Uint8Array(width * height);
  for (let index = 0; index < greys.length; index++) greys[index] = pixels[4 * index];
  return { greys, width, height };
}

function coloured(map, steps) {
  const [canvas, context] = canvasOf(map.width, map.height);
  const picture = context.createImageData(map.width, map.height);
  const pixels = new Uint32Array(picture.data.buffer);
  for (let index = 0; index < pixels.length; index++) pixels[index] = steps[map.greys[index]];
  context.putImageData(picture, 0, 0);
  return canvas;
}

/* The grey of a map at a place given in 0..1, between its pixels as they are enlarged. */
function greyAt(map, x, y) {
  const place = (share, count) => Math.min(Math.max(share * count - 0.5, 0), count - 1);
  const [column, row] = [place(x, map.width), place(y, map.height)];
  const [left, top] = [Math.floor(column), Math.floor(row)];
  const [right, bottom] = [Math.min(left + 1, map.width - 1), Math.min(top + 1, map.height - 1)];
  const grey = (i, j) => map.greys[j * map.width + i];
  const mix = (a, b, share) => a + (b - a) * share;
  return mix(
    mix(grey(left, top), grey(right, top), column - left),
    mix(grey(left, bottom), grey(right, bottom), column - left),
    row - top,
  );
}

async function decoded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/* ---- Data of pictures, which is looked at when it is needed ---- */

const arriving = new Map();

/* Called by the scripts that lie beside the page. */
function receive(number, part) {
  arriving.get(number)(part);
}

function partOf(number) {
  const block = byId(`part-${number}`);
  if (block) return Promise.resolve(JSON.parse(block.textContent));
  return new Promise((resolve, reject) => {
    arriving.set(number, resolve);
    const src = `${data.beside}/${number}.js`;
    const script = element("script", { src, load: () => script.remove(), error: () => reject(new Error(src)) });
    document.head.append(script);
  });
}

/* ---- Rows ---- */

const detections = data.tables.find((table) => table.linked) || { columns: [], rows: [] };
const columnNumbers = Object.fromEntries(detections.columns.map((column, number) => [column.name, number]));

function cellOf(row, name) {
  return name in columnNumbers ? row.cells[columnNumbers[name]] : null;
}

function textOf(value, column) {
  if (value === null) return "";
  if (column.kind === "number") return value.toFixed(column.digits);
  if (column.kind === "share") return `${(100 * value).toFixed(column.digits)} %`;
  if (column.kind === "yes") return value ? "yes" : "no";
  if (column.kind === "mean") return meanOf(value, column.digits);
  return String(value);
}

function meanOf([mean, low, high], digits) {
  if (mean === null) return "";
  const interval = low === null ? "" : ` [${low.toFixed(digits)}, ${high.toFixed(digits)}]`;
  return mean.toFixed(digits) + interval;
}

function nameOf(row) {
  const outcome = cellOf(row, "outcome");
  return `${outcome ? `${outcome}: ` : ""}${cellOf(row, "name")} ${cellOf(row, "confidence").toFixed(2)}`;
}

/* What is known about a detection, in one line. */
function figuresOf(row) {
  const energy = cellOf(row, "energy_in_box");
  const parts = [nameOf(row)];
  if (energy !== null) {
    parts.push(`${Math.round(100 * energy)} % of the map in the box`);
    parts.push(`${cellOf(row, "enrichment").toFixed(1)} × chance`);
    parts.push(`peak ${cellOf(row, "peak_in_box") ? "inside" : "outside"}`);
  }
  const stride = cellOf(row, "stride");
  if (stride !== null) parts.push(`stride ${stride}`);
  parts.push(cellOf(row, "layer"), cellOf(row, "note"));
  return parts.filter(Boolean).join(" · ");
}

/* ---- Pictures ---- */

let selection = null;

/* One map of an image over the photograph, with its boxes. */
class Panel {
  constructor(picture, about, rows) {
    Object.assign(this, { picture, about, rows, map: null, layer: null, boxes: new Map() });
    const [width, height] = picture.about.shown;
    this.canvas = element("canvas", { width, height, role: "img" });
    this.reading = element("output", { class: "reading", "aria-live": "off" });
    this.stage = element("div", { class: "stage" }, this.canvas, this.reading);
    this.stage.style.aspectRatio = `${width} / ${height}`;
    this.figures = element("p", { class: "figures" });
    const title = element("p", { class: "way" }, about.title);
    this.figure = element("figure", {}, this.stage, element("figcaption", {}, title, this.figures));
    this.figure.style.setProperty("--shape", width / height);
    this.stage.addEventListener("pointermove", (event) => picture.read(event, this));
    this.stage.addEventListener("pointerleave", () => picture.stopReading());
    this.tell();
  }

  /* The row that is shown by itself, if one is. */
  get chosen() {
    const here = selection && selection.picture === this.picture.number && selection.model === this.about.model;
    return here ? this.rows.find((row) => row.at[2] === selection.index) : undefined;
  }

  addBoxes() {
    const [width, height] = this.picture.about.size;
    const found = this.rows.filter((row) => row.box);
    const area = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
    const bySize = [...found].sort((one, other) => area(other.box) - area(one.box));
    this.stage.classList.toggle("crowded", found.length > MOST_LABELS);
    for (const row of found) {
      const [x1, y1, x2, y2] = row.box;
      const tag = element("span", { class: "tag" }, nameOf(row));
      const box = element("button", { type: "button", class: `box${row.found ? "" : " unfound"}`, click: () => choose(row) }, tag);
      box.setAttribute("aria-label", `${nameOf(row)}: its own map`);
      const places = { left: x1 / width, top: y1 / height, width: (x2 - x1) / width, height: (y2 - y1) / height };
      for (const [name, share] of Object.entries(places)) box.style[name] = `${100 * share}%`;
      // Small boxes lie over large ones, so that each can be clicked.
      box.style.zIndex = 1 + bySize.indexOf(row);
      if (y1 / height < 0.06) box.classList.add("at-top");
      if ((x1 + x2) / 2 > 0.7 * width) box.classList.add("at-right");
      this.boxes.set(row, box);
      this.stage.append(box);
    }
  }

  tell() {
    const row = this.chosen;
    const notes = [...this.about.notes];
    this.figures.textContent = row ? figuresOf(row) : notes.join("; ");
    const what = row ? nameOf(row) : "all detections together";
    this.canvas.setAttribute("aria-label", `${this.picture.about.title}, ${this.about.title}: map of ${what}`);
    for (const [entry, box] of this.boxes) {
      box.setAttribute("aria-pressed", String(entry === row));
      box.classList.toggle("other", Boolean(row) && entry !== row);
    }
  }

  /* Decode and show the map of the chosen detection, or that of all. */
  async refresh() {
    this.tell();
    const { part } = this.picture;
    if (!part) return;
    const { whole, own } = part.panels[this.picture.panels.indexOf(this)];
    const row = this.chosen;
    const entry = row ? own[row.at[2]] : whole;
    this.wanted = entry;
    const image = entry && (await decoded(part.maps[entry.map]));
    // Another one may have been chosen, or the picture be far away, by now.
    if (this.wanted !== entry || this.picture.part !== part) return;
    this.curve = entry && bytesOf(entry.curve);
    this.map = image && greysOf(image, image.naturalWidth, image.naturalHeight);
    this.enlarged = image && greysOf(image, this.canvas.width, this.canvas.height);
    this.colour();
    this.figure.dataset.map = row ? row.at[2] : "all";
  }

  colour() {
    this.layer = this.enlarged ? coloured(this.enlarged, colourSteps(this.about.sign, this.curve)) : null;
    this.draw();
  }

  draw() {
    if (!this.picture.photograph) return;
    const context = this.canvas.getContext("2d", { willReadFrequently: true });
    context.globalAlpha = 1;
    context.drawImage(this.picture.photograph, 0, 0, this.canvas.width, this.canvas.height);
    if (!look.heat || !this.layer) return;
    context.globalAlpha = look.opacity;
    context.drawImage(this.layer, 0, 0);
  }

  read(x, y) {
    const [width, height] = this.picture.about.size;
    const [column, row] = [Math.floor(x * width), Math.floor(y * height)];
    const grey = this.map ? greyAt(this.map, (column + 0.5) / width, (row + 0.5) / height) : 0;
    const value = this.map ? valueOf(grey, this.about.sign) : 0;
    this.reading.textContent = `${value.toFixed(3)} at ${column}, ${row}`;
  }

  release() {
    for (const box of this.boxes.values()) box.remove();
    this.boxes.clear();
    Object.assign(this, { map: null, enlarged: null, layer: null });
    // A canvas without pixels takes no memory.
    [this.canvas.width, this.canvas.height] = [0, 0];
  }

  revive() {
    [this.canvas.width, this.canvas.height] = this.picture.about.shown;
    this.addBoxes();
  }
}

/* One image of the run, or a picture that stands by itself. Its parts are decoded while it is near. */
class Picture {
  constructor(number, about, rows) {
    Object.assign(this, { number, about, rows, part: null, photograph: null, loading: null });
    this.panels = about.panels.map((entry, index) => new Panel(this, entry, rows.filter((row) => row.at[1] === index)));
    const heading = element("h3", {}, about.title);
    const [width, height] = about.size;
    const head = element("header", {}, heading);
    if (this.panels.length) head.append(element("p", {}, `${width} × ${height}`), element("a", { href: "#tables" }, "to the table"));
    this.article = element("article", { tabindex: -1, id: `image-${number}`, "aria-label": about.title }, head);
    for (const note of about.notes) this.article.append(element("p", { class: "note" }, note));
    if (this.panels.length) {
      this.article.append(element("div", { class: "panels" }, ...this.panels.map((panel) => panel.figure)));
    } else {
      this.image = element("img", { alt: about.title, width, height });
      this.article.append(element("figure", { class: "still" }, this.image));
    }
    this.article.classList.toggle("wide", this.panels.length !== 1);
  }

  load() {
    if (!this.loading) this.loading = this.fetch().catch((error) => this.complain(error));
    return this.loading;
  }

  async fetch() {
    const part = await partOf(this.number);
    if (this.image) {
      this.image.src = part.picture;
      await this.image.decode();
    } else {
      this.photograph = await decoded(part.photograph);
      this.part = part;
      for (const panel of this.panels) panel.revive();
      await Promise.all(this.panels.map((panel) => panel.refresh()));
    }
    this.article.dataset.loaded = "";
  }

  complain(error) {
    const text = `The pictures of this image could not be read (${error.message}); the folder belongs beside this page.`;
    this.article.append(element("p", { class: "note" }, text));
  }

  async release() {
    if (!this.loading || printing) return;
    await this.loading;
    if (this.near) return;
    Object.assign(this, { part: null, photograph: null, loading: null });
    for (const panel of this.panels) panel.release();
    if (this.image) this.image.removeAttribute("src");
    delete this.article.dataset.loaded;
  }

  read(event, panel) {
    const frame = panel.stage.getBoundingClientRect();
    const share = (at, from, length) => Math.min(Math.max((at - from) / length, 0), 0.999999);
    const x = share(event.clientX, frame.left, frame.width);
    const y = share(event.clientY, frame.top, frame.height);
    for (const each of this.panels) each.read(x, y);
  }

  stopReading() {
    for (const panel of this.panels) panel.reading.textContent = "";
  }
}

const rowsOf = data.images.map(() => []);
for (const row of detections.rows) rowsOf[row.at[0]].push(row);
const pictures = data.images.map((about, number) => new Picture(number, about, rowsOf[number]));
byId("feed").append(...pictures.map((picture) => picture.article));

const nearness = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const picture = pictures[Number(target.id.replace("image-", ""))];
      picture.near = isIntersecting;
      if (isIntersecting) picture.load();
      else picture.release();
    }
  },
  { rootMargin: `${NEAR}px 0px` },
);
for (const { article } of pictures) nearness.observe(article);

function modelOf(row) {
  return data.images[row.at[0]].panels[row.at[1]].model;
}

function isChosen(row) {
  return Boolean(selection) && selection.picture === row.at[0] && selection.index === row.at[2] && selection.model === modelOf(row);
}

/* Show the map of a row's detection by itself; that of all if it is shown already, or for null. */
function choose(row) {
  const before = selection;
  selection = row && !isChosen(row) ? { picture: row.at[0], index: row.at[2], model: modelOf(row) } : null;
  for (const picture of new Set([before, selection].filter(Boolean).map((each) => pictures[each.picture]))) {
    for (const panel of picture.panels) panel.refresh();
  }
  for (const table of tables) table.markChosen();
  if (before || selection) announce(selection ? `Map of ${nameOf(row)}` : "Map of all detections");
}

let current = -1;

function goTo(number) {
  current = number;
  const { article } = pictures[number];
  for (const picture of pictures) picture.article.classList.toggle("current", picture.article === article);
  article.scrollIntoView({ block: "start" });
  article.focus({ preventScroll: true });
  announce(data.images[number].title);
}

function goToRow(row) {
  if (row.at[2] === null) choose(null);
  else if (!isChosen(row)) choose(row);
  goTo(row.at[0]);
}

/* The picture before or after the current one; of those that are in sight the first, if the current one is not. */
function step(by) {
  const there = pictures.filter((picture) => !picture.article.hidden);
  const inSight = ({ article }) => {
    const { top, bottom } = article.getBoundingClientRect();
    return bottom > 0 && top < window.innerHeight;
  };
  const at = there.findIndex((picture) => picture.number === current);
  const next = at >= 0 && inSight(there[at]) ? there[at + by] : there.find(inSight) || there[0];
  if (next) goTo(next.number);
}

/* ---- Tables ---- */

const collator = new Intl.Collator(undefined, { numeric: true });

function compared(one, other, down) {
  const values = [one, other].map((value) => (Array.isArray(value) ? value[0] : value));
  const missing = values.map((value) => value === null || value === "");
  // What is not known comes last, whichever way the rest is sorted.
  if (missing[0] || missing[1]) return missing[0] - missing[1];
  const order = typeof values[0] === "string" ? collator.compare(...values) : values[0] - values[1];
  return down ? -order : order;
}

class Table {
  constructor(about, number) {
    Object.assign(this, { about, number, order: null, kept: about.rows, most: ROWS_AT_ONCE, filters: {} });
    this.body = element("tbody", { click: (event) => this.click(event) });
    this.heads = about.columns.map((column, index) => this.headOf(column, index));
    const caption = element("caption", { class: "visually-hidden" }, about.title);
    const table = element("table", {}, caption, element("thead", {}, element("tr", {}, ...this.heads)), this.body);
    this.more = element("button", { type: "button", class: "more", click: () => this.showMore() });
    const box = element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": about.title }, table, this.more);
    const title = element("h2", {}, about.title);
    this.section = element("section", { id: about.linked ? "detections" : null }, title);
    if (about.linked) this.section.append(this.filterBar());
    this.section.append(box);
    this.update();
  }

  headOf(column, index) {
    const arrow = element("span", { class: "arrow", "aria-hidden": "true" });
    const button = element("button", { type: "button", title: column.about || null, click: () => this.sort(index) }, column.title, arrow);
    return element("th", { scope: "col", class: column.kind }, button);
  }

  filterBar() {
    const change = () => this.filter();
    this.text = element("input", { type: "search", id: "filter", input: change, "aria-keyshortcuts": "f" });
    this.least = element("input", { type: "number", min: 0, max: 1, step: 0.05, value: 0, input: change });
    const bar = element("div", { class: "filters", role: "group", "aria-label": "Filter" });
    bar.append(element("label", {}, "Text ", this.text));
    this.about.columns.forEach((column, index) => {
      const values = [...new Set(this.about.rows.map((row) => row.cells[index]))].filter(Boolean).sort(collator.compare);
      if (!column.filter || values.length < 2) return;
      const options = values.map((value) => element("option", { value }, value));
      this.filters[index] = element("select", { change }, element("option", { value: "" }, "all"), ...options);
      bar.append(element("label", {}, `${column.title[0].toUpperCase()}${column.title.slice(1)} `, this.filters[index]));
    });
    bar.append(element("label", {}, "Confidence from ", this.least));
    const suspects = "Detections with the least of their map inside their box first: a model may have learnt the background";
    bar.append(element("button", { type: "button", title: suspects, click: () => this.sortSuspects() }, "Suspects first"));
    bar.append(element("button", { type: "button", click: () => this.clear() }, "Clear"));
    this.count = element("p", { class: "count", role: "status" });
    return element("div", {}, bar, this.count);
  }

  clear() {
    this.text.value = "";
    this.least.value = 0;
    for (const select of Object.values(this.filters)) select.value = "";
    this.order = null;
    this.filter();
  }

  filter() {
    const [text, least] = [this.text.value.trim().toLowerCase(), Number(this.least.value)];
    const wanted = Object.entries(this.filters).filter(([, select]) => select.value);
    const passes = (row) =>
      wanted.every(([index, select]) => row.cells[index] === select.value) &&
      (!least || cellOf(row, "confidence") >= least) &&
      (!text || this.wordsOf(row).includes(text));
    this.kept = this.about.rows.filter(passes);
    const there = new Set(this.kept.map((row) => row.at[0]));
    for (const picture of pictures) picture.article.hidden = !there.has(picture.number);
    byId("nothing").hidden = there.size > 0;
    this.most = ROWS_AT_ONCE;
    this.update();
  }

  wordsOf(row) {
    row.words ||= row.cells.map((value, index) => textOf(value, this.about.columns[index])).join("\n").toLowerCase();
    return row.words;
  }

  /* A column of names is sorted from the first letter, figures from the highest, then the other way round. */
  sort(index) {
    const down = this.order && this.order.index === index ? !this.order.down : this.about.columns[index].kind !== "text";
    this.order = { index, down };
    this.update();
  }

  sortSuspects() {
    this.order = { index: columnNumbers.energy_in_box, down: false, foundFirst: true };
    this.update();
    announce("Sorted by the share of the map in the box, the lowest first");
  }

  update() {
    this.sorted = [...this.kept];
    if (this.order) {
      const { index, down, foundFirst } = this.order;
      const found = (row) => (foundFirst && !row.found ? 1 : 0);
      this.sorted.sort((one, other) => found(one) - found(other) || compared(one.cells[index], other.cells[index], down));
    }
    this.heads.forEach((head, index) => {
      const sorted = this.order && this.order.index === index ? (this.order.down ? "descending" : "ascending") : null;
      if (sorted) head.setAttribute("aria-sort", sorted);
      else head.removeAttribute("aria-sort");
      head.querySelector(".arrow").textContent = { ascending: "▲", descending: "▼" }[sorted] || "";
    });
    this.render();
  }

  render() {
    const rows = this.sorted.slice(0, this.most);
    this.body.replaceChildren(...rows.map((row, index) => this.lineOf(row, index)));
    const rest = this.sorted.length - rows.length;
    this.more.hidden = rest <= 0;
    this.more.textContent = `Show ${Math.min(rest, ROWS_AT_ONCE)} more of ${rest}`;
    if (this.count) {
      const all = this.about.rows.length;
      const there = new Set(this.kept.map((row) => row.at[0])).size;
      this.count.textContent = `${this.kept.length} of ${all} rows, in ${there} of ${data.images.length} images`;
    }
    this.markChosen();
  }

  lineOf(row, index) {
    const cells = row.cells.map((value, at) => {
      const column = this.about.columns[at];
      const text = textOf(value, column);
      const inside = this.about.linked && at === 0 ? element("button", { type: "button", class: "link" }, text) : text;
      return element(at === 0 ? "th" : "td", { class: column.kind, scope: at === 0 ? "row" : null }, inside);
    });
    return element("tr", { "data-index": index }, ...cells);
  }

  showMore() {
    this.most += ROWS_AT_ONCE;
    this.render();
  }

  click(event) {
    const line = event.target.closest("tr");
    if (this.about.linked && line && !String(window.getSelection())) goToRow(this.sorted[Number(line.dataset.index)]);
  }

  markChosen() {
    if (!this.about.linked) return;
    for (const line of this.body.children) {
      const chosen = isChosen(this.sorted[Number(line.dataset.index)]);
      line.classList.toggle("chosen", chosen);
      if (chosen) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    }
  }
}

const tables = data.tables.map((about, number) => new Table(about, number));
byId("tables").append(...tables.map((table) => table.section));

/* ---- Controls ---- */

function everyPanel(act) {
  for (const picture of pictures) if (picture.part) picture.panels.forEach(act);
}

function drawLegend() {
  const sign = data.images.some((image) => image.panels.some((panel) => panel.sign));
  [byId("legend-low").textContent, byId("legend-high").textContent] = sign ? ["against", "for"] : ["0", "1"];
  const context = byId("legend").getContext("2d");
  const ramp = { greys: Uint8Array.from({ length: 256 }, (_, index) => index), width: 256, height: 1 };
  context.clearRect(0, 0, 256, 1);
  context.globalAlpha = look.opacity;
  context.drawImage(coloured(ramp, colourSteps(sign)), 0, 0);
  byId("colours").disabled = sign;
  byId("legend").title = look.tone === "evidence" ? "Which value has a colour differs from map to map: point at it to read" : "";
}

function setHeat(on) {
  look.heat = byId("heat").checked = on;
  everyPanel((panel) => panel.draw());
}

function setOpacity() {
  look.opacity = Number(byId("opacity").value) / 100;
  byId("opacity-text").textContent = `${byId("opacity").value} %`;
  everyPanel((panel) => panel.draw());
  drawLegend();
}

function setColours() {
  look.colours = byId("colours").value;
  look.tone = byId("tone").value;
  everyPanel((panel) => panel.colour());
  drawLegend();
}

if (byId("heat")) {
  const bar = document.querySelector(".toolbar");
  new ResizeObserver(() => document.documentElement.style.setProperty("--bar", `${bar.offsetHeight}px`)).observe(bar);
  byId("colours").append(...Object.keys(data.colours).map((name) => element("option", { value: name }, name === "gray" ? "grey" : name)));
  byId("heat").addEventListener("change", () => setHeat(byId("heat").checked));
  byId("opacity").addEventListener("input", setOpacity);
  byId("colours").addEventListener("change", setColours);
  byId("tone").addEventListener("change", setColours);
  setOpacity();
}

byId("theme").addEventListener("change", (event) => {
  document.documentElement.dataset.theme = event.target.value;
});

const keys = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  f: () => byId("filter") && byId("filter").focus(),
  h: () => byId("heat") && setHeat(!look.heat),
  Escape: () => {
    if (document.activeElement.matches("input, select")) document.activeElement.blur();
    if (selection) choose(null);
  },
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=checkbox]), select, textarea") && event.key !== "Escape";
  if (typing || event.ctrlKey || event.altKey || event.metaKey || !(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
});

/* ---- Printing: all rows, and the pictures, which the button has decoded first ---- */

let printing = false;

window.addEventListener("beforeprint", () => {
  for (const table of tables) {
    table.most = MOST_PRINTED.rows;
    table.render();
  }
});
window.addEventListener("afterprint", () => {
  for (const table of tables) {
    table.most = ROWS_AT_ONCE;
    table.render();
  }
});

byId("print").addEventListener("click", async () => {
  printing = true;
  const there = pictures.filter((picture) => !picture.article.hidden);
  announce("Preparing the pictures");
  for (const picture of there.slice(0, MOST_PRINTED.pictures)) await picture.load();
  for (const picture of there.slice(MOST_PRINTED.pictures)) picture.article.classList.add("unprinted");
  window.print();
  printing = false;
  for (const picture of pictures) {
    picture.article.classList.remove("unprinted");
    if (!picture.near) picture.release();
  }
});
