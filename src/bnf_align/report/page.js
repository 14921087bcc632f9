"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const one = (selector) => document.querySelector(selector);

// Tables are sorted by a click on a heading: numbers by what was measured, everything else as text. Rows stay with
// those of their section.
document.addEventListener("click", (event) => {
  const button = event.target.closest(".names button");
  if (!button) return;
  const heading = button.parentElement;
  const table = heading.closest("table");
  const place = [...heading.parentElement.children].indexOf(heading);
  const up = heading.getAttribute("aria-sort") === "descending";
  for (const other of all("[aria-sort]", table)) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", up ? "ascending" : "descending");
  const value = (row) => Number(row.children[place].dataset.value ?? NaN);
  const text = (row) => row.children[place].textContent.trim();
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1; // what was not measured comes last, either way
    const order = isNaN(x) ? text(a).localeCompare(text(b), undefined, { numeric: true }) : x - y;
    return up ? order : -order;
  };
  for (const body of table.tBodies) {
    body.append(...[...body.rows].filter((row) => !row.matches(".title")).sort(compare));
  }
});

// Answers: a search, a filter, so many at a time, and a blind mode in which sides and prompts are in a new order.
const STEP = 25;
let room = STEP;
const samples = all(".sample");
const written = (sample) => all(".text, .side p", sample).map((part) => part.textContent).join("\n").toLowerCase();
const texts = new Map(samples.map((sample) => [sample, written(sample)]));
const show = () => {
  if (!samples.length) return;
  const wanted = one("#search").value.trim().toLowerCase();
  const outcome = one("[name=outcome]:checked")?.value ?? "";
  let found = 0;
  for (const sample of all(".sample")) {
    const fits = (!outcome || sample.dataset.outcome === outcome) && texts.get(sample).includes(wanted);
    found += fits;
    sample.hidden = !fits || found > room;
  }
  one("#count").textContent = `${found.toLocaleString("en")} of ${samples.length.toLocaleString("en")}`;
  one(".more").hidden = found <= room;
};
const shuffled = (items) => {
  const mixed = [...items];
  for (let last = mixed.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [mixed[last], mixed[other]] = [mixed[other], mixed[last]];
  }
  return mixed;
};
const name = (sample, blind) => {
  const swapped = sample.classList.contains("swapped");
  for (const side of all(".side", sample)) {
    const before = side.matches(".before");
    side.firstElementChild.textContent = blind ? `Answer ${before === swapped ? "B" : "A"}` : before ? "Before" : "After";
  }
};
const place = (sample, swapped) => {
  const [first, second] = all(".side", sample).sort((a) => (a.matches(".before") ? -1 : 1));
  sample.classList.toggle("swapped", swapped);
  first.parentElement.append(...(swapped ? [second, first] : [first, second])); // for readers of the screen too
};
if (samples.length) {
  one("#search").addEventListener("input", () => { room = STEP; show(); });
  for (const radio of all("[name=outcome]")) radio.addEventListener("change", () => { room = STEP; show(); });
  one("#more").addEventListener("click", () => { room += STEP; show(); });
  one("#answers form").addEventListener("submit", (event) => event.preventDefault());
  one("#blind").addEventListener("change", (event) => {
    const blind = event.target.checked;
    one("#answers").classList.toggle("blind", blind);
    for (const sample of samples) {
      sample.classList.remove("revealed");
      place(sample, blind && Math.random() < 0.5);
      name(sample, blind);
    }
    const any = one("[name=outcome][value='']");
    if (any) any.checked = true; // a filter by outcome would tell
    for (const radio of all("[name=outcome]")) radio.disabled = blind;
    one("#samples").append(...(blind ? shuffled(samples) : samples));
    room = STEP;
    show();
  });
  one("#samples").addEventListener("click", (event) => {
    const sample = event.target.closest(".reveal button")?.closest(".sample");
    if (!sample) return;
    sample.classList.add("revealed");
    name(sample, false);
  });
  show();
}

// Scored responses: so many at a time.
for (const method of all(".heat")) {
  const button = method.nextElementSibling.firstElementChild;
  let some = 12;
  const open = () => {
    [...method.children].forEach((response, at) => { response.hidden = at >= some; });
    button.parentElement.hidden = some >= method.children.length;
  };
  button.addEventListener("click", () => { some *= 2; open(); });
  open();
}

// Tokens: what the pointer or the arrow keys are at is said in one place.
const said = one("#token");
const tell = (token) => {
  const text = token.parentElement;
  all(".at", text).forEach((other) => other.classList.remove("at"));
  token.classList.add("at");
  const [weight, ratio, before] = text.dataset.numbers.split(";")[[...text.children].indexOf(token)].split(",");
  const sign = Number(ratio) > 0 ? "+" : "";
  said.textContent = `“${token.textContent}”  BNF weight ${weight}, log-ratio ${sign}${ratio} nats, reference log-probability ${before}`;
  said.hidden = false;
};
const hush = () => {
  said.hidden = true;
  all(".heat .at").forEach((token) => token.classList.remove("at"));
};
if (said) {
  const heat = one("#tokens");
  heat.addEventListener("mouseover", (event) => (event.target.matches(".heat-text i") ? tell(event.target) : hush()));
  heat.addEventListener("mouseleave", hush);
  heat.addEventListener("focusin", (event) => event.target.matches(".heat-text") && tell(event.target.children[0]));
  heat.addEventListener("focusout", hush);
  heat.addEventListener("keydown", (event) => {
    if (event.key === "Escape") return hush();
    const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!move || !event.target.matches(".heat-text")) return;
    event.preventDefault();
    const tokens = [...event.target.children];
    const at = tokens.findIndex((token) => token.classList.contains("at"));
    tell(tokens[Math.min(Math.max(at + move, 0), tokens.length - 1)]);
  });
  for (const radio of all("[name=shade]")) {
    radio.addEventListener("change", () => {
      for (const method of all(".heat")) {
        method.classList.toggle("by-weight", radio.value === "weight");
        method.classList.toggle("by-ratio", radio.value === "ratio");
      }
    });
  }
}

// On paper nothing can be opened.
addEventListener("beforeprint", () => all("details:not([open])").forEach((part) => { part.open = true; }));

// While a run trains: the verdict and the curves are drawn anew, the rest of the page stays as it is read. Once the
// run has ended the whole page is.
if ("live" in document.documentElement.dataset) {
  let version = "";
  const look = async () => {
    try {
      const now = await (await fetch("version")).text();
      if (version && now !== version) {
        const next = new DOMParser().parseFromString(await (await fetch("./")).text(), "text/html");
        if (!next.querySelector("#training progress") && one("#training progress")) return location.reload();
        document.title = next.title;
        for (const id of ["#verdict", "#training"]) {
          const [old, fresh] = [one(id), next.querySelector(id)];
          if (fresh && !old) return location.reload();
          if (fresh) old.replaceWith(document.adoptNode(fresh));
        }
      }
      version = now;
    } catch {
      // The server has ended, or is busy: the page stays as it is.
    }
    setTimeout(look, 2000);
  };
  look();
}
