// Shows pieces of an answer as tokens that can be pointed at, and gone through with the arrow keys. Knows no requests.

import { element } from "./dom.js";

/** Below these probabilities doubt is 1, 2, 3, 4. */
const STEPS = [0.6, 0.3, 0.1, 0.02];

/** What `Card` reads off a span. */
const told = new WeakMap();
export const tokenOf = (span) => told.get(span);

/** What shows a piece: a span, behind the spaces that its token begins with; or only text, if there is no token. */
export function tokenNodes(text, token) {
  if (!token) return [text];
  const [space] = text.trim() ? /^\s*/.exec(text) : [""];
  const doubt = STEPS.filter((step) => token.probability < step).length;
  const marks = { "data-doubt": doubt || null, "data-break": text.includes("\n") && !text.trim() };
  const span = element("span", { class: "token", tabindex: -1, ...marks }, text.slice(space.length));
  told.set(span, token);
  return space ? [space, span] : [span];
}

/** One stop of the Tab key for all tokens of a text; arrows, Home and End go through them. */
export function withArrows(said) {
  said.addEventListener("keydown", (event) => {
    const tokens = [...said.querySelectorAll(".token")];
    const here = tokens.indexOf(document.activeElement);
    const to = { ArrowRight: here + 1, ArrowLeft: Math.max(here - 1, 0), Home: 0, End: tokens.length - 1 }[event.key];
    if (to === undefined || !tokens[to] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    tokens[to].focus();
  });
}
