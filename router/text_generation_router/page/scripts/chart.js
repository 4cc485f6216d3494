// A number and its trend, drawn by hand as SVG. Knows not what it shows.

import { element } from "./dom.js";

const SPACE = "http://www.w3.org/2000/svg";
const WIDTH = 100;
const HEIGHT = 40;

/** Seconds that a trend goes back. */
export const SPAN_S = 120;

export class Gauge {
  #points = [];
  #trend = shape("path", { class: "trend" });
  #under = shape("path", { class: "under" });
  #value = element("output", {}, "–");
  #more = element("span", { class: "more" }, "\u00a0");

  /** top: the least that the full height stands for. show: the number as a text. */
  constructor(title, top, show) {
    this.top = top;
    this.show = show;
    this.title = title;
    this.drawing = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    this.drawing.append(this.#under, this.#trend);
    this.root = element("div", { class: "gauge" }, element("h2", {}, title), this.#value, this.drawing, this.#more);
    this.root.toggleAttribute("data-silent", true);
    this.#describe("no figures yet");
  }

  /** at: seconds. value: null if it is not known now. more: a few words. */
  add(at, value, more = "") {
    this.#points = this.#points.filter((point) => point.at > at - SPAN_S - 5);
    if (value !== null) this.#points.push({ at, value });
    this.root.toggleAttribute("data-silent", value === null);
    this.#value.textContent = value === null ? "–" : this.show(value);
    this.#more.textContent = more || "\u00a0";
    this.#draw(at);
    this.#describe(value === null ? "not told" : `${this.show(value)} now, ${more}`);
  }

  #draw(now) {
    const highest = Math.max(this.top, ...this.#points.map((point) => point.value));
    const place = ({ at, value }) =>
      `${(WIDTH * (1 - (now - at) / SPAN_S)).toFixed(2)} ${(HEIGHT - 1 - (HEIGHT - 3) * (value / highest)).toFixed(2)}`;
    const [first, last] = [this.#points[0], this.#points.at(-1)];
    const line = this.#points.map(place).join("L");
    this.#trend.setAttribute("d", line && `M${line}`);
    const [start, end] = line ? [place(first), place(last)].map((point) => point.split(" ")[0]) : [];
    this.#under.setAttribute("d", line && `M${start} ${HEIGHT}L${line}L${end} ${HEIGHT}Z`);
  }

  #describe(text) {
    this.drawing.setAttribute("aria-label", `${this.title}: ${text}`);
  }
}

function shape(name, attributes) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
