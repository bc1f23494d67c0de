// A live chart of a few series over time: SVG that is drawn anew with each point, and the same in words and as a table.

const SVG = "http://www.w3.org/2000/svg";
const SPAN_MS_MIN = 30_000;
const SPAN_MS_MAX = 300_000;
const MARGIN = { top: 10, right: 14, bottom: 22, left: 52 };
const TICKS = 4;
const TABLE_ROWS = 12;
const TELL_EVERY_MS = 10_000;

/** Points that are no longer shown are forgotten, so that a page that stays open for days does not grow. */
export function kept(points) {
  const last = points.at(-1);
  return last ? points.filter((point) => point.time >= last.time - SPAN_MS_MAX) : points;
}

/** The least round number that is not below `value`, divisible into `TICKS` round steps. */
function roundUp(value) {
  const step = value / TICKS;
  const power = 10 ** Math.floor(Math.log10(step));
  const factor = [1, 2, 2.5, 5, 10].find((each) => each * power >= step * 0.999999);
  return factor * power * TICKS;
}

function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function html(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

/** How long ago, for the axis and for who can't see it. */
function ago(ms) {
  const seconds = Math.round(ms / 1000);
  if (seconds === 0) return "now";
  return seconds % 60 === 0 ? `−${seconds / 60} min` : `−${seconds} s`;
}

function timeSteps(span) {
  const step = [10_000, 30_000, 60_000, 120_000].find((each) => span / each <= 5) ?? SPAN_MS_MAX;
  return Array.from({ length: Math.floor(span / step) + 1 }, (_, index) => index * step);
}

/**
 * `series` are `{ key, label }`, at most three; `format` writes a value with its unit; `least` is the smallest value that
 * the top of the axis may have. The figure has a heading; everything else is made here.
 */
export class TimeChart {
  #points = [];
  #toldAt = -Infinity;

  constructor(figure, { series, format, least }) {
    this.figure = figure;
    this.series = series;
    this.format = format;
    this.least = least;
    this.name = figure.querySelector("h2, h3").textContent;
    this.#build();
    new ResizeObserver(() => this.#draw()).observe(this.plot);
  }

  /** Show these points, `{ time, values: { key: number or null } }`, the oldest first. */
  show(points) {
    this.#points = points;
    this.#draw();
    const last = points.at(-1);
    if (last && Math.abs(last.time - this.#toldAt) >= TELL_EVERY_MS) this.#tell(last.time);
  }

  #build() {
    this.legend = html("ul", "legend");
    this.legend.setAttribute("aria-hidden", "true");
    this.values = this.series.map(({ label }, index) => {
      const value = html("strong", "figures", "–");
      this.legend.append(html("li", `series-${index + 1}`, html("span", "swatch"), `${label} `, value));
      return value;
    });
    this.image = svg("svg", { role: "img", "aria-label": `${this.name}: no data yet`, class: "chart-image" });
    this.tip = html("div", "chart-tip figures");
    this.tip.hidden = true;
    this.plot = html("div", "chart-plot", this.image, this.tip);
    this.table = html("tbody");
    const head = html("tr", "", columnHead("Time"), ...this.series.map(({ label }) => columnHead(label)));
    const caption = html("caption", "visually-hidden", `${this.name}, the newest last`);
    const scroll = html("div", "table-scroll", html("table", "table", caption, html("thead", "", head), this.table));
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "group");
    scroll.setAttribute("aria-label", `${this.name} in numbers`);
    const details = html("details", "chart-numbers", html("summary", "", "In numbers"), scroll);
    this.figure.append(this.legend, this.plot, details);
    this.plot.addEventListener("pointermove", (moved) => this.#point(moved));
    this.plot.addEventListener("pointerleave", () => this.#point(null));
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.plot;
    const last = this.#points.at(-1);
    if (!width || !last) return;
    const span = Math.min(Math.max(last.time - this.#points[0].time, SPAN_MS_MIN), SPAN_MS_MAX);
    const top = roundUp(Math.max(this.least, ...this.#points.flatMap(({ values }) => this.series.map(({ key }) => values[key]))));
    const right = width - MARGIN.right;
    const bottom = height - MARGIN.bottom;
    this.x = (time) => right - ((last.time - time) / span) * (right - MARGIN.left);
    this.y = (value) => bottom - (value / top) * (bottom - MARGIN.top);
    this.image.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.cursor = svg("g", { class: "cursor" });
    this.image.replaceChildren(
      ...this.#axes({ width, bottom, right, top, span, last }),
      ...this.series.map((series, index) => this.#curve(series, index, bottom)),
      this.cursor,
    );
    this.series.forEach(({ key }, index) => {
      this.values[index].textContent = this.#written(last.values[key]);
    });
  }

  #axes({ bottom, right, top, span, last }) {
    const drawn = [];
    for (let index = 0; index <= TICKS; index += 1) {
      const value = (top / TICKS) * index;
      const y = this.y(value);
      drawn.push(
        svg("line", { class: index ? "grid" : "axis", x1: MARGIN.left, x2: right, y1: y, y2: y }),
        svg("text", { class: "tick", x: MARGIN.left - 8, y: y + 4, "text-anchor": "end" }, this.format(value)),
      );
    }
    for (const ms of timeSteps(span)) {
      const x = this.x(last.time - ms);
      const anchor = ms === 0 ? "end" : "middle";
      drawn.push(svg("text", { class: "tick", x: ms === 0 ? right : x, y: bottom + 17, "text-anchor": anchor }, ago(ms)));
    }
    return drawn;
  }

  /** One series; where there is no value the line is broken. */
  #curve({ key }, index, bottom) {
    const group = svg("g", { class: `curve series-${index + 1}` });
    let run = [];
    const end = () => {
      if (run.length) {
        const line = run.map(([x, y], at) => `${at ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
        const [from, to] = [run[0][0].toFixed(1), run.at(-1)[0].toFixed(1)];
        group.append(svg("path", { class: "area", d: `${line}L${to} ${bottom}L${from} ${bottom}Z` }));
        group.append(svg("path", { class: "line", d: line }));
      }
      run = [];
    };
    for (const { time, values } of this.#points) {
      if (values[key] === null) end();
      else run.push([this.x(time), this.y(values[key])]);
    }
    const head = run.at(-1);
    end();
    if (head) group.append(svg("circle", { class: "head", cx: head[0], cy: head[1], r: 4 }));
    return group;
  }

  /** The values at the time under the pointer. */
  #point(moved) {
    this.cursor?.replaceChildren();
    this.tip.hidden = moved === null || !this.x;
    if (this.tip.hidden) return;
    const left = moved.clientX - this.plot.getBoundingClientRect().left;
    const nearest = this.#points.reduce((best, each) =>
      Math.abs(this.x(each.time) - left) < Math.abs(this.x(best.time) - left) ? each : best,
    );
    const x = this.x(nearest.time);
    this.cursor.append(svg("line", { x1: x, x2: x, y1: MARGIN.top, y2: this.plot.clientHeight - MARGIN.bottom }));
    this.tip.replaceChildren(
      html("span", "quiet", clock(nearest.time)),
      ...this.series.map(({ key, label }, index) =>
        html("span", `series-${index + 1}`, html("span", "swatch"), `${label} ${this.#written(nearest.values[key])}`),
      ),
    );
    this.tip.style.setProperty("--x", `${Math.min(Math.max(x, 80), this.plot.clientWidth - 80)}px`);
  }

  /** Now and then, for who reads and does not see: what the chart shows, in a sentence and as a table. */
  #tell(time) {
    this.#toldAt = time;
    const told = this.series.map(({ key, label }) => {
      const known = this.#points.map((point) => point.values[key]).filter((value) => value !== null);
      if (!known.length) return `${label}: no values yet`;
      return `${label}: ${this.#written(known.at(-1))} last, between ${this.format(Math.min(...known))} and ${this.format(Math.max(...known))}`;
    });
    this.image.setAttribute("aria-label", `${this.name}. ${told.join(". ")}.`);
    const every = Math.ceil(this.#points.length / TABLE_ROWS);
    const shown = this.#points.filter((_, index) => (this.#points.length - 1 - index) % every === 0);
    this.table.replaceChildren(
      ...shown.map((point) => {
        const head = html("th", "figures", clock(point.time));
        head.scope = "row";
        return html("tr", "", head, ...this.series.map(({ key }) => html("td", "number", this.#written(point.values[key]))));
      }),
    );
  }

  #written(value) {
    return value === null ? "–" : this.format(value);
  }
}

function columnHead(text) {
  const made = html("th", text === "Time" ? "" : "number", text);
  made.scope = "col";
  return made;
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

function clock(time) {
  return clockFormat.format(time);
}
