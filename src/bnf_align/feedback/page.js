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
// Gradio keeps an input where the next page has one too, and what was typed into it: a reason must not wander on.
new MutationObserver(() => {
  for (const input of element.querySelectorAll(".reason")) input.value = input.getAttribute("value");
}).observe(element, { subtree: true, attributeFilter: ["data-id"] });
