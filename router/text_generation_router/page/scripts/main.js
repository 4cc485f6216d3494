// Puts the page together. Everything else is in a module of its own.

import { getText, key, setKey } from "./api.js";
import { showCards } from "./card.js";
import { Chat } from "./chat.js";
import { Completion } from "./completion.js";
import { byId } from "./dom.js";
import { Pulse } from "./pulse.js";
import { Settings } from "./settings.js";
import { useTabs } from "./tabs.js";
import { switchTheme } from "./theme.js";

const work = byId("work");
const settings = new Settings();
const modes = [new Chat(settings, failed), new Completion(settings, failed)];

function failed(error) {
  settings.blame(error.field);
  if (error.status !== 401) return;
  byId("access").open = true;
  byId("key").setAttribute("aria-invalid", "true");
}

async function list() {
  const { data } = JSON.parse(await getText("v1/models"));
  settings.list(data);
  const name = (data.find(({ parent }) => !parent) ?? data[0])?.id ?? "";
  byId("model-name").textContent = name;
  document.title = name ? `${name} · kv.run` : "kv.run playground";
}

switchTheme(byId("theme"));
useTabs(document.querySelector("[role=tablist]"));
showCards(work);

byId("doubts").addEventListener("change", ({ target }) => work.classList.toggle("shaded", target.checked));
work.classList.toggle("shaded", byId("doubts").checked);

byId("key").value = key();
byId("key").addEventListener("input", ({ target }) => {
  setKey(target.value.trim());
  target.removeAttribute("aria-invalid");
});

byId("sampling").open = window.matchMedia("(min-width: 60rem)").matches;
document.addEventListener("keydown", (event) => event.key === "Escape" && modes.forEach((mode) => mode.stop()));
new Pulse(() => list().catch(() => {}));
