// An answer to what people see of it: bars, boxes in words, how sure it is, checks, and a place to rate it.

import { make, percent } from "./elements.js";
import { corners, encodeBox, rate } from "./session.js";
import { colour } from "./stage.js";

const FIRST = 5; // labels with a bar at once; the others unfold
const VERDICTS = ["right", "partly", "wrong"];

// A card for one wish, with a column for each model asked; `onMarks` is told when its boxes are switched on or off.
export class Card {
  constructor({ number, picture, wish, asked, models, nameOf, onMarks }) {
    Object.assign(this, { number, picture, wish, models, nameOf });
    this.isDrawn = true;
    this.answers = models.map(() => null);
    this.columns = models.map((model) => make("div", { class: "column", "data-model": model }));
    this.agreed = make("p", { class: "agreed", hidden: true });
    this.toggle = make(
      "label",
      { class: "toggle", hidden: true },
      make("input", { type: "checkbox", checked: true, onchange: ({ target }) => this.draw(target.checked, onMarks) }),
      "boxes on the image",
    );
    const chip = make("span", { class: "chip" }, String(number));
    chip.style.setProperty("--colour", colour(number - 1));
    this.element = make(
      "li",
      { class: "card", "data-kind": wish.kind },
      make("div", { class: "title" }, chip, make("p", { class: "asked" }, asked)),
      make("p", { class: "quiet of" }, picture.name),
      this.toggle,
      make("div", { class: models.length > 1 ? "columns" : "" }, ...this.columns),
      this.agreed,
    );
    models.forEach((model, place) => this.pending(place, "…"));
  }

  draw(isDrawn, onMarks) {
    this.isDrawn = isDrawn;
    this.toggle.querySelector("input").checked = isDrawn;
    onMarks?.();
  }

  head(place) {
    return this.models.length > 1 ? make("h3", {}, this.models[place]) : null;
  }

  pending(place, text) {
    fill(this.columns[place], this.head(place), make("p", { class: "text pending", "aria-busy": "true" }, text));
  }

  failed(place, words) {
    fill(this.columns[place], this.head(place), make("p", { class: "wrong" }, words));
  }

  answered(place, answer, exchange) {
    this.answers[place] = answer;
    fill(
      this.columns[place],
      this.head(place),
      ...this.said(answer),
      sure(answer),
      ...believed(answer),
      rating(exchange, `answer ${this.number}${this.models.length > 1 ? ` of ${this.models[place]}` : ""}`),
    );
    this.toggle.hidden = !this.marks().length;
  }

  agree({ isSame, words }) {
    this.agreed.textContent = words;
    this.agreed.classList.toggle("same", isSame);
    this.agreed.hidden = false;
  }

  said(answer) {
    const text = make("p", { class: "text" }, answer.text);
    if (answer.unreadable) return [text, make("p", { class: "wrong" }, answer.unreadable)];
    if (this.wish.kind === "locate") return located(this.wish, answer);
    if (answer.labels) return labelled(answer, this.nameOf);
    const isCut = answer.stop_reason === "length";
    return [text, isCut ? make("p", { class: "quiet" }, "Cut at the limit of its length.") : null];
  }

  named(box) {
    return [this.wish.kind === "locate" ? this.wish.words : "", overlap(box)].filter(Boolean).join(" · ");
  }

  // What to draw of it; the second model's boxes are dashed.
  marks() {
    const style = (place) => ({ colour: this.number - 1, isDashed: place > 0 });
    const [from, by] = this.models.length > 1 ? [this.models, ": "] : [[""], ""];
    return this.answers.flatMap((answer, place) => {
      if (!answer) return [];
      if (this.wish.kind === "name") {
        const { x0, y0, x1, y1 } = this.wish.box;
        return [{ box: [x0, y0, x1, y1], words: `${from[place]}${by}${answer.text}${unsure(answer)}`, ...style(place) }];
      }
      return (answer.boxes ?? []).map((box) => ({
        box: box.fractions,
        words: `${from[place]}${by}${this.named(box)}${unsure(answer)}`,
        ...style(place),
      }));
    });
  }
}

const unsure = (answer) => (answer.belief?.withheld ? " (withheld)" : "");
const fill = (element, ...children) => element.replaceChildren(...children.filter(Boolean));
const overlap = (box) => (typeof box.expected_iou === "number" ? `IoU ≈ ${box.expected_iou.toFixed(2)}` : "");

function labelled(answer, nameOf) {
  const given = new Set(answer.labels.map((label) => label.id));
  const shares = Object.entries(answer.probabilities ?? {}).sort((a, b) => b[1] - a[1]);
  const rows = [...shares.filter(([id]) => given.has(id)), ...shares.filter(([id]) => !given.has(id))];
  const first = Math.max(FIRST, given.size);
  const bar = ([id, share]) => {
    const filled = make("span", { class: "filled" });
    filled.style.width = `${share * 100}%`;
    return make(
      "li",
      { class: given.has(id) ? "given" : "" },
      make("span", { class: "label" }, nameOf(id)),
      make("span", { class: "share" }, percent(share)),
      make("span", { class: "bar", "aria-hidden": "true" }, filled),
    );
  };
  const list = (some) => make("ul", { class: "bars" }, ...some.map(bar));
  const rest = rows.slice(first);
  return [
    withheld(answer) ?? make("p", { class: "text" }, answer.text),
    rows.length ? list(rows.slice(0, first)) : make("p", { class: "quiet" }, "This model gives no probabilities."),
    rest.length ? make("details", {}, make("summary", {}, `${rest.length} more labels`), list(rest)) : null,
  ];
}

function located(wish, answer) {
  const share = answer.presence;
  const isKnown = typeof share === "number";
  const presence = isKnown ? make("p", { class: "quiet" }, `There with probability ${percent(share)}.`) : null;
  const absent = make("p", { class: "text" }, `No ${wish.words} found.`);
  if (!answer.boxes.length) return [withheld(answer) ?? absent, presence];
  const rows = answer.boxes.map((box) => {
    const [left, top, right, bottom] = box.fractions.map((edge) => (edge * 100).toFixed(0));
    const where = `left ${left}, top ${top}, right ${right}, bottom ${bottom} % of the image`;
    return make(
      "li",
      { title: encodeBox(corners(box.fractions)) },
      make("p", { class: "text" }, [wish.words, overlap(box)].filter(Boolean).join(" · ")),
      make("p", { class: "quiet" }, overlap(box) ? `${where}; IoU: its expected overlap with the truth` : where),
    );
  });
  return [withheld(answer), make("ul", { class: "places" }, ...rows), presence];
}

function sure(answer) {
  if (typeof answer.confidence !== "number") return null;
  const explained = answer.calibrated
    ? "Fitted on held-out data: of answers with this confidence, about this share is right."
    : "Not fitted on held-out data: it orders answers, and is no probability of being right.";
  const [kind, words] = answer.calibrated ? ["tag good", "calibrated"] : ["tag", "not calibrated"];
  const tag = make("span", { class: kind, title: explained }, words);
  return make("p", { class: "sure" }, `Confidence ${percent(answer.confidence)} `, tag);
}

// What a calibrated checkpoint adds: whether the image is in scope, labels that may be true, and how its checks went.
function believed({ belief, scope }) {
  const found = [];
  if (scope && scope.verdict !== "in_scope") {
    const words = scope.verdict === "unreadable" ? "The image is unreadable" : "The image is perhaps out of scope";
    found.push(make("p", { class: "wrong" }, `${words} (${scope.reason}): be careful with answers about it.`));
  }
  if (belief?.label_set) {
    const names = belief.label_set.map((label) => label.name).join(", ");
    found.push(make("p", { class: "quiet" }, `Label set at ${percent(belief.level)}: ${names || "empty"}`));
  }
  if (belief?.checks.length) {
    const rows = belief.checks.map(({ passed, detail }) =>
      make("li", { class: passed ? "passed" : "failed" }, `${passed ? "✓ for it" : "✗ against it"}: ${detail}`),
    );
    found.push(make("ul", { class: "checks", "aria-label": "Checks" }, ...rows));
  }
  return found;
}

// What is said instead of an answer that is too unsure to be given.
function withheld({ belief, labels, text }) {
  if (!belief?.withheld) return null;
  const sure = belief.fallback.map((label) => `${label.name} (${percent(label.probability)})`).join(", ");
  const what = `too unsure ${labels ? `of “${text}”` : "of this place"}`;
  return make("p", { class: "text wrong" }, `Withheld: ${what}${sure ? `, but sure of ${sure}` : ""}.`);
}

function rating(exchange, what) {
  const field = make("input", {
    type: "text",
    maxlength: "500",
    hidden: true,
    "aria-label": `Correction of ${what}`,
    placeholder: "What would be right?",
  });
  const set = (verdict) => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict)));
    field.hidden = !verdict || verdict === "right";
    rate(exchange, verdict, field.hidden ? "" : field.value);
  };
  const choose = (verdict) => set(exchange.rating === verdict ? null : verdict);
  const buttons = VERDICTS.map((verdict) => {
    const said = { "data-verdict": verdict, "aria-pressed": "false", onclick: () => choose(verdict) };
    return make("button", { type: "button", ...said }, verdict);
  });
  field.addEventListener("input", () => rate(exchange, exchange.rating, field.value));
  const question = make("span", { class: "quiet" }, "Is it right?");
  return make("div", { class: "rating", role: "group", "aria-label": `Rate ${what}` }, question, ...buttons, field);
}
