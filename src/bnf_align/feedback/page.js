// What was on the page when it was clicked goes along, so that a late click is never taken for one on something newer.
const shown = (at) => ({
  id: element.querySelector("[data-id]").dataset.id,
  at: Number(at.closest("[data-at]")?.dataset.at ?? 0),
});
element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { verdict, way } = button.dataset;
  if (way) return trigger("select", { ...shown(button), way });
  const pressed = button.getAttribute("aria-pressed") === "true";
  const reason = button.parentElement.querySelector(".reason").value;
  trigger("like", { ...shown(button), verdict: pressed ? "none" : verdict, reason });
});
element.addEventListener("change", (event) => {
  if (event.target.matches(".reason")) {
    trigger("input", { ...shown(event.target), reason: event.target.value });
  }
});
// What is new comes into sight: the last question with what follows it, a notice, the beginning of another task. Not
// while somebody writes a reason, which would be moved away from under the hands.
let before = "";
const look = () => {
  const last = [...element.querySelectorAll(".said.user, .notice")].pop();
  const now = [...element.querySelectorAll("[data-id], .said, .notice")].map((e) => e.dataset.id ?? e.className).join();
  if (now === before) return;
  before = now;
  if (document.activeElement?.matches(".reason")) return;
  if (element.querySelector(".talk")) last?.scrollIntoView({ block: last.matches(".notice") ? "nearest" : "start" });
  else if (element.getBoundingClientRect().top < 0) element.scrollIntoView();
};
new MutationObserver(look).observe(element, { subtree: true, childList: true, attributeFilter: ["data-id"] });
// Gradio keeps an input where the next page has one too, and what was typed into it: a reason must not wander on.
new MutationObserver(() => {
  for (const input of element.querySelectorAll(".reason")) input.value = input.getAttribute("value");
}).observe(element, { subtree: true, attributeFilter: ["data-id"] });
// The box was closed while the model was at it, and lost the focus. On a touch screen this would open the keyboard.
new MutationObserver(() => {
  const box = document.querySelector("#question textarea:enabled");
  const free = document.activeElement === document.body && !matchMedia("(pointer: coarse)").matches;
  if (free) box?.focus({ preventScroll: true });
}).observe(document.body, { subtree: true, attributeFilter: ["disabled"] });
