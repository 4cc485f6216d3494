// Completions: a sheet with a prompt, and how the model goes on with it. Knows not how answers come.

import { byId } from "./dom.js";
import { Run } from "./run.js";
import { COMPLETION } from "./stream.js";

export class Completion {
  #form = byId("completion-form");
  #box = byId("prompt");
  #turns = byId("completion-turns");
  #take = byId("completion-take");
  #run;
  #more = "";

  constructor(settings, failed) {
    this.settings = settings;
    this.#run = new Run(COMPLETION, this.#form.querySelector("[type=submit]"), failed);
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#run.busy) this.stop();
      else this.#answer();
    });
    this.#box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !this.#run.busy) this.#form.requestSubmit();
    });
    this.#take.addEventListener("click", () => this.#taken());
  }

  stop() {
    this.#run.stop();
  }

  async #answer() {
    this.#turns.replaceChildren();
    this.#take.disabled = true;
    const asked = { ...this.settings.asked(), prompt: this.#box.value };
    const turn = await this.#run.start(this.#turns, asked, () => this.#answer());
    this.#more = turn?.text ?? "";
    this.#take.disabled = !this.#more;
  }

  #taken() {
    this.#box.value += this.#more;
    this.#take.disabled = true;
    this.#turns.replaceChildren();
    this.#box.focus();
  }
}
