// Light or dark: as the system has it until the reader says otherwise, which is remembered.

const PLACE = "kvrun-theme";
const system = window.matchMedia("(prefers-color-scheme: dark)");

const chosen = () => localStorage.getItem(PLACE);
const dark = () => (chosen() ?? (system.matches ? "dark" : "light")) === "dark";

export function switchTheme(button) {
  function show() {
    const choice = chosen();
    if (choice) document.documentElement.dataset.theme = choice;
    button.textContent = dark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
  }
  button.addEventListener("click", () => {
    localStorage.setItem(PLACE, dark() ? "light" : "dark");
    show();
  });
  system.addEventListener("change", show);
  show();
}
