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
      make("input", { type: "checkbox", checked: true, onchange: (event) => this.draw(event.target.checked, onMarks) }),
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
      ...believed(answer, this.nameOf),
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
    if (answer.unreadable) return [make("p", { class: "text" }, answer.text), make("p", { class: "wrong" }, answer.unreadable)];
    if (this.wish.kind === "locate") return located(this.wish, answer);
    if (answer.labels) return labelled(answer, this.nameOf);
    const isCut = answer.stop_reason === "length";
    return [make("p", { class: "text" }, answer.text), isCut ? make("p", { class: "quiet" }, "Cut at the limit of its length.") : null];
  }

  // What to draw of it; the second model's boxes are dashed.
  marks() {
    const style = (place) => ({ colour: this.number - 1, isDashed: place > 0 });
    return this.answers.flatMap((answer, place) => {
      if (!answer) return [];
      if (this.wish.kind === "name") {
        const { x0, y0, x1, y1 } = this.wish.box;
        return [{ box: [x0, y0, x1, y1], words: place ? "" : answer.text, ...style(place) }];
      }
      return (answer.boxes ?? []).map((box) => ({
        box: box.fractions,
        words: [this.wish.kind === "locate" ? this.wish.words : "", overlap(box)].filter(Boolean).join(" · "),
        ...style(place),
      }));
    });
  }
}

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
    make("p", { class: "text" }, answer.text),
    rows.length ? list(rows.slice(0, first)) : make("p", { class: "quiet" }, "This model gives no probabilities."),
    rest.length ? make("details", {}, make("summary", {}, `${rest.length} more labels`), list(rest)) : null,
  ];
}

function located(wish, answer) {
  const presence = typeof answer.presence === "number" ? ` Probability that it is there: ${percent(answer.presence)}.` : "";
  if (!answer.boxes.length) return [make("p", { class: "text" }, `No ${wish.words} found.${presence}`)];
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
  return [make("ul", { class: "places" }, ...rows), presence ? make("p", { class: "quiet" }, presence.trim()) : null];
}

function sure(answer) {
  if (typeof answer.confidence !== "number") return null;
  const explained = answer.calibrated
    ? "Fitted on held-out data: of answers with this confidence, about this share is right."
    : "Not fitted on held-out data: it orders answers, and is no probability of being right.";
  return make(
    "p",
    { class: "sure" },
    `Confidence ${percent(answer.confidence)} `,
    make("span", { class: answer.calibrated ? "tag good" : "tag", title: explained }, answer.calibrated ? "calibrated" : "not calibrated"),
  );
}

// What a calibrated checkpoint adds: whether the image is in scope, what it withholds, and how its checks went.
function believed(answer, nameOf) {
  const found = [];
  const scope = typeof answer.scope === "string" ? answer.scope : answer.scope?.verdict;
  if (scope && !["in_scope", "in scope", "in"].includes(scope)) found.push(make("p", { class: "wrong" }, `Image: ${scope.replaceAll("_", " ")}`));
  if (answer.is_withheld) {
    const surely = answer.fallback ? ` Surely: ${nameOf(answer.fallback)}.` : "";
    found.push(make("p", { class: "wrong" }, `Too unsure to say it.${surely}`));
  }
  if (answer.label_set?.length) found.push(make("p", { class: "quiet" }, `One of: ${answer.label_set.map(nameOf).join(", ")}`));
  if (answer.checks?.length) {
    const rows = answer.checks.map((check) =>
      make("li", { class: check.passed ? "passed" : "failed" }, `${check.passed ? "✓" : "✗"} ${check.name.replaceAll("_", " ")}: ${check.detail}`),
    );
    found.push(make("ul", { class: "checks", "aria-label": "Checks" }, ...rows));
  }
  return found;
}

function rating(exchange, what) {
  const field = make("input", { type: "text", maxlength: "500", "aria-label": `Correction of ${what}`, placeholder: "What would be right?" });
  const buttons = VERDICTS.map((verdict) => make("button", { type: "button", "aria-pressed": "false", "data-verdict": verdict }, verdict));
  field.hidden = true;
  const set = (verdict) => {
    buttons.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.verdict === verdict)));
    field.hidden = !verdict || verdict === "right";
    rate(exchange, verdict, field.hidden ? "" : field.value);
  };
  buttons.forEach((button) =>
    button.addEventListener("click", () => set(exchange.rating === button.dataset.verdict ? null : button.dataset.verdict)),
  );
  field.addEventListener("input", () => rate(exchange, exchange.rating, field.value));
  return make("div", { class: "rating", role: "group", "aria-label": `Rate ${what}` }, make("span", { class: "quiet" }, "Is it right?"), ...buttons, field);
}
