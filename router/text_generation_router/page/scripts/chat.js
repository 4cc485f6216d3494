// The chat: a conversation, and the form that goes on with it. Knows not how answers come.

import { byId } from "./dom.js";
import { Run } from "./run.js";
import { CHAT } from "./stream.js";
import { Turn } from "./turn.js";

export class Chat {
  #messages = [];
  #question = null;
  #form = byId("chat-form");
  #box = byId("message");
  #turns = byId("chat-turns");
  #run;

  constructor(settings, failed) {
    this.settings = settings;
    this.#run = new Run(CHAT, this.#form.querySelector("[type=submit]"), failed);
    this.#form.addEventListener("submit", (event) => this.#submit(event));
    this.#box.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !this.#run.busy) {
        event.preventDefault();
        this.#form.requestSubmit();
      }
    });
    byId("chat-clear").addEventListener("click", () => this.#clear());
  }

  stop() {
    this.#run.stop();
  }

  #submit(event) {
    event.preventDefault();
    if (this.#run.busy) return this.stop();
    const text = this.#box.value.trim();
    if (!text) return this.#box.focus();
    this.#box.value = "";
    byId("chat-invitation").hidden = true;
    this.#forgetUnanswered();
    this.#messages.push({ role: "user", content: text });
    this.#question = new Turn(this.#turns, "user", "You", text);
    this.#answer();
  }

  async #answer() {
    const messages = this.#messages;
    const turn = await this.#run.start(this.#turns, { ...this.settings.asked(), messages: this.#prompt() }, () =>
      this.#answer(),
    );
    if (turn && messages === this.#messages) messages.push({ role: "assistant", content: turn.text });
  }

  /** Many templates want turns to alternate. */
  #forgetUnanswered() {
    if (this.#messages.at(-1)?.role !== "user") return;
    this.#messages.pop();
    this.#question.remove();
  }

  #prompt() {
    const system = byId("system").value.trim();
    return system ? [{ role: "system", content: system }, ...this.#messages] : [...this.#messages];
  }

  #clear() {
    this.stop();
    this.#messages = [];
    this.#turns.replaceChildren();
    byId("chat-invitation").hidden = false;
    this.#box.focus();
  }
}
