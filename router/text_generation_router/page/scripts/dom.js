// Makes elements. Texts become text nodes: nothing that a model says is ever read as HTML.

/** An element with attributes (`true` sets one without a value, null and false leave it out) and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** The element of an id, which the page has. */
export const byId = (id) => document.getElementById(id);

/** Tell screen readers something once. */
export function announce(text) {
  byId("announcement").textContent = text;
}
