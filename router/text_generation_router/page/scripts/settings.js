// The sampling controls: what there is to set, and what of it goes into a request. Knows no routes.

import { byId, element } from "./dom.js";

const RANGES = [
  { name: "temperature", label: "Temperature", value: 0.7, max: 2, step: 0.05 },
  { name: "top_p", label: "Top p", value: 1, min: 0.05, max: 1, step: 0.05, off: 1 },
  { name: "repetition_penalty", label: "Repetition penalty", value: 1, min: 1, max: 2, step: 0.05, off: 1 },
  { name: "frequency_penalty", label: "Frequency penalty", value: 0, min: -2, max: 2, step: 0.1, off: 0 },
];
const NUMBERS = [
  { name: "max_tokens", label: "Max tokens", value: 256 },
  { name: "top_k", label: "Top k", placeholder: "all" },
  { name: "seed", label: "Seed", placeholder: "random", min: 0 },
];

export class Settings {
  #form = byId("settings");
  #model = element("select", { id: "model", name: "model" });

  constructor() {
    this.#form.append(
      field("model", "Model", this.#model),
      ...RANGES.map(rangeField),
      element("div", { class: "numbers" }, ...NUMBERS.map(numberField)),
      field("stop", "Stop sequences, one a line", element("textarea", { id: "stop", name: "stop", rows: 1 })),
    );
    this.#form.addEventListener("input", (event) => event.target.removeAttribute("aria-invalid"));
    this.#form.addEventListener("submit", (event) => event.preventDefault());
  }

  /** models: as `/v1/models` lists them; those with a parent are its adapters. */
  list(models) {
    const chosen = this.#model.value;
    this.#model.replaceChildren(
      ...models.map(({ id, parent }) => element("option", { value: id }, parent ? `${id} (adapter)` : id)),
    );
    if (models.some(({ id }) => id === chosen)) this.#model.value = chosen;
  }

  /** The fields of a request. What is left alone is left to the server, except for temperature and length. */
  asked() {
    const asked = { model: this.#model.value || "model" };
    for (const { name, off } of RANGES) {
      const value = byId(name).valueAsNumber;
      if (value !== off) asked[name] = value;
    }
    for (const { name } of NUMBERS) {
      const value = byId(name).valueAsNumber;
      if (!Number.isNaN(value)) asked[name] = value;
    }
    const stop = byId("stop").value.split("\n").filter(Boolean);
    if (stop.length) asked.stop = stop;
    return asked;
  }

  /** Point at the field that an error blames. */
  blame(name) {
    const input = name && this.#form.elements.namedItem(name);
    if (!input) return;
    byId("sampling").open = true;
    input.setAttribute("aria-invalid", "true");
  }
}

const field = (id, label, ...inputs) =>
  element("div", { class: "field" }, element("label", { for: id }, label), ...inputs);

function rangeField({ name, label, value, min = 0, max, step }) {
  const input = element("input", { type: "range", id: name, name, min, max, step, value });
  const output = element("output", { for: name }, String(value));
  input.addEventListener("input", () => (output.textContent = String(input.valueAsNumber)));
  return field(name, label, output, input);
}

function numberField({ name, label, value, placeholder, min = 1 }) {
  return field(name, label, element("input", { type: "number", id: name, name, placeholder, min, step: 1, value }));
}
