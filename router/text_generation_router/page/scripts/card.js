// The card that tells of the token under the pointer or the focus. Knows only where it is and what it was told.

import { byId, element } from "./dom.js";
import { tokenOf } from "./tokens.js";

const MARGIN = 8;

/** Let tokens below `root` be told of. */
export function showCards(root) {
  const card = byId("card");
  let shown = null;

  function show(span) {
    hide();
    shown = span;
    span.setAttribute("aria-describedby", card.id);
    card.replaceChildren(...content(tokenOf(span)));
    card.hidden = false;
    place(card, span);
  }
  function hide() {
    shown?.removeAttribute("aria-describedby");
    shown = null;
    card.hidden = true;
  }
  const at = (event) => event.target.closest?.(".token");

  root.addEventListener("pointerover", (event) => at(event) && show(at(event)));
  root.addEventListener("pointerout", (event) => at(event) && hide());
  root.addEventListener("focusin", (event) => at(event) && show(at(event)));
  root.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
}

function content(token) {
  const [best] = token.alternatives;
  const rows = token.alternatives.map((one) => row(one, one.text === token.text));
  const note = best.text === token.text ? "the likeliest" : `instead of ${visible(best.text)}`;
  return [
    element(
      "p",
      { class: "title" },
      element("span", { class: "name" }, visible(token.text)),
      percent(token.probability),
    ),
    element("ol", {}, ...rows),
    element("p", { class: "note" }, note),
  ];
}

function row({ text, probability }, chosen) {
  const bar = element("span", { class: "bar" });
  bar.style.width = `${100 * probability}%`;
  return element(
    "li",
    { "data-chosen": chosen },
    bar,
    element("span", { class: "name" }, visible(text)),
    percent(probability),
  );
}

/** Spaces and line ends as signs. */
const visible = (text) => text.replaceAll(" ", "·").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";

function percent(share) {
  if (share < 0.001) return "<0.1 %";
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

/** Below the token, or above where there is no room. */
function place(card, span) {
  const [token] = span.getClientRects();
  const { width, height } = card.getBoundingClientRect();
  const { right } = document.body.getBoundingClientRect();
  const left = Math.max(Math.min(token.left, right - width - MARGIN), MARGIN);
  const below = token.bottom + MARGIN + height < window.innerHeight;
  const top = below ? token.bottom + MARGIN : token.top - height - MARGIN;
  card.style.left = `${left + window.scrollX}px`;
  card.style.top = `${top + window.scrollY}px`;
}
