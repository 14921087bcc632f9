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
// What is new comes into sight: the last question with what follows it, a notice, the beginning of another task. An answer
// on its way makes room for that as it grows, until somebody scrolls. Not while somebody writes a reason, which would be
// moved away from under the hands.
let before = "", following = false;
for (const away of ["wheel", "touchmove"]) addEventListener(away, () => { following = false; }, { passive: true });
const look = () => {
  const last = [...element.querySelectorAll(".said.user, .notice")].pop();
  const now = [...element.querySelectorAll("[data-id], .said.user, .notice")].map((e) => e.dataset.id ?? e.className).join();
  if (now !== before) following = !document.activeElement?.matches(".reason");
  before = now;
  if (!following) return;
  following = false;
  if (element.querySelector(".talk")) {
    last?.scrollIntoView({ block: last.matches(".notice") ? "nearest" : "start" });
    following = element.querySelector(".dots, .coming") && last.getBoundingClientRect().top > 24;
  } else if (element.getBoundingClientRect().top < 0) element.scrollIntoView();
};
new MutationObserver(look).observe(element, {
  subtree: true, childList: true, characterData: true, attributeFilter: ["data-id"],
});
// Gradio keeps an input where the next page has one too, and what was typed into it: a reason must not wander on.
new MutationObserver(() => {
  for (const input of element.querySelectorAll(".reason")) input.value = input.getAttribute("value");
}).observe(element, { subtree: true, attributeFilter: ["data-id"] });
// The box was closed while the model was at it, and lost the focus: the button that stops it has it meanwhile, then the box
// again. Not on a touch screen, where that would open the keyboard.
const halts = (node) => node.id === "stop" || node.querySelector?.("#stop");
new MutationObserver((changes) => {
  const nodes = changes.flatMap((change) => [...change.addedNodes, ...change.removedNodes]);
  const turned = changes.some((change) => change.type === "attributes") || nodes.some(halts);
  const active = document.activeElement;
  if (!turned || !(active === document.body || active.disabled)) return;
  const box = document.querySelector("#question textarea:enabled");
  if (!box) document.querySelector("#stop")?.focus({ preventScroll: true });
  else if (!matchMedia("(pointer: coarse)").matches) box.focus({ preventScroll: true });
}).observe(document.body, { subtree: true, childList: true, attributeFilter: ["disabled"] });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("#stop")?.click();
});
