// One turn of a transcript: who speaks, what is said, and what there is to know about it. Knows no requests.

import { Aligner } from "./aligner.js";
import { element } from "./dom.js";
import { tokenNodes, withArrows } from "./tokens.js";

export class Turn {
  #said = element("div", { class: "said" });
  #aligner = new Aligner();
  #note = null;

  /** role: user or assistant. Put at the end of `parent`. */
  constructor(parent, role, name, text = "") {
    this.root = element("article", { class: "turn", "data-role": role }, element("p", { class: "speaker" }, name));
    this.root.append(this.#said);
    this.#said.textContent = text;
    parent.append(this.root);
    if (role !== "assistant") return;
    this.#said.tabIndex = 0;
    this.#said.setAttribute("role", "group");
    this.#said.setAttribute("aria-label", "Answer. Arrow keys go through its tokens");
    this.root.setAttribute("aria-busy", "true");
    withArrows(this.#said);
  }

  get text() {
    return this.#said.textContent;
  }

  /** Take it out, and whatever follows. */
  remove() {
    while (this.root.nextSibling) this.root.nextSibling.remove();
    this.root.remove();
  }

  /** More of the answer. */
  add(text, tokens) {
    this.#show(this.#aligner.add(text, tokens));
  }

  /** Nothing more comes. facts: short texts; request: what was asked, to be looked at. */
  end(facts, request) {
    this.#show(this.#aligner.end());
    this.root.removeAttribute("aria-busy");
    const asked = element("details", {}, element("summary", {}, "Request"), element("pre", { tabindex: 0 }, request));
    this.#note = element("div", { class: "facts" }, ...facts.map((fact) => element("span", {}, fact)), asked);
    this.root.append(this.#note);
  }

  /** Why there is no answer, or no more of it, and what to try. */
  fail(error, retry) {
    this.#show(this.#aligner.end());
    this.root.removeAttribute("aria-busy");
    const title = { 0: "No connection", 401: "No entry", 422: "Refused", 429: "Busy" }[error.status] ?? "Failed";
    const again = element("button", { type: "button" }, "Try again");
    again.addEventListener("click", retry);
    this.root.append(
      element(
        "div",
        { class: "problem", role: "alert" },
        element("strong", {}, title),
        element("p", {}, error.message),
        again,
      ),
    );
    if (!this.text) this.#said.remove();
  }

  #show(pieces) {
    this.#said.append(...pieces.flatMap(([text, token]) => tokenNodes(text, token)));
  }
}
