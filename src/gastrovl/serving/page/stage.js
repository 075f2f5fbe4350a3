// A picture with boxes drawn on it; dragging, or four numbers, make a box to ask about.

import { make } from "./elements.js";

// Those of inference/drawing.py: told apart in any common colour blindness, and from mucosa.
export const COLOURS = ["#ff8c00", "#56b4e9", "#f0e442", "#009e73", "#cc79a7"];
export const colour = (number) => COLOURS[number % COLOURS.length];
const LEAST_PX = 4; // a shorter drag is a click
const EDGES = ["x0", "y0", "x1", "y1"];

export class Stage {
  // `parts`: elements by name; `onBox` is told the box in fractions, or null.
  constructor(parts, onBox) {
    this.parts = parts;
    this.onBox = onBox;
    this.box = null;
    this.marks = [];
    this.start = null;
    const { stage, draw, clear, edges } = parts;
    stage.addEventListener("pointerdown", (event) => this.begin(event));
    stage.addEventListener("pointermove", (event) => this.drag(event));
    stage.addEventListener("pointerup", (event) => this.end(event));
    stage.addEventListener("pointercancel", () => this.cancel());
    stage.addEventListener("dragstart", (event) => event.preventDefault());
    draw.addEventListener("click", () => {
      this.setDrawing(!this.isDrawing);
      if (this.isDrawing) stage.scrollIntoView({ block: "nearest" });
    });
    clear.addEventListener("click", () => this.setBox(null));
    edges.forEach((edge) => edge.addEventListener("input", () => this.readEdges()));
    // A finger that moves over the image scrolls the page, until drawing is switched on.
    this.setDrawing(window.matchMedia("(pointer: fine)").matches);
  }

  setDrawing(isOn) {
    this.isDrawing = isOn;
    this.parts.draw.setAttribute("aria-pressed", String(isOn));
    this.parts.stage.classList.toggle("drawing", isOn);
  }

  show(picture) {
    const { stage, shown, hint } = this.parts;
    stage.classList.toggle("empty", !picture);
    shown.hidden = !picture;
    hint.hidden = Boolean(picture);
    this.picture = picture;
    this.setBox(null);
    if (picture) {
      shown.width = picture.width_px;
      shown.height = picture.height_px;
      shown.src = picture.url;
      shown.alt = `${picture.name}, ${picture.width_px} × ${picture.height_px} pixels`;
    } else {
      shown.removeAttribute("src");
      shown.alt = "";
    }
  }

  // Marks: { box: [x0, y0, x1, y1], words, colour, isDashed }.
  setMarks(marks) {
    this.marks = marks;
    this.paint();
  }

  setBox(box) {
    this.box = box;
    EDGES.forEach((edge, place) => {
      this.parts.edges[place].value = box ? String(Math.round(box[edge] * 1000) / 10) : "";
    });
    this.complain("");
    this.paint();
    this.onBox(box);
  }

  readEdges() {
    const given = this.parts.edges.map((edge) => edge.value.trim());
    const values = this.parts.edges.map((edge) => edge.valueAsNumber / 100);
    const [x0, y0, x1, y1] = values;
    const isWhole = given.every(Boolean);
    const isBox = isWhole && values.every((value) => value >= 0 && value <= 1) && x0 < x1 && y0 < y1;
    this.complain(isWhole && !isBox ? "Left must lie before right and top above bottom, all from 0 to 100." : "");
    this.box = isBox ? { x0, y0, x1, y1 } : null;
    this.paint();
    this.onBox(this.box);
  }

  complain(words) {
    this.parts.problem.textContent = words;
    this.parts.problem.hidden = !words;
    this.parts.edges.forEach((edge) => edge.setAttribute("aria-invalid", String(Boolean(words))));
  }

  place(event) {
    const frame = this.parts.shown.getBoundingClientRect();
    const within = (value) => Math.min(1, Math.max(0, value));
    return [within((event.clientX - frame.left) / frame.width), within((event.clientY - frame.top) / frame.height)];
  }

  begin(event) {
    if (!this.picture || !this.isDrawing || event.button !== 0) return;
    event.preventDefault();
    this.parts.stage.setPointerCapture(event.pointerId);
    this.start = { place: this.place(event), x: event.clientX, y: event.clientY, before: this.box };
  }

  drag(event) {
    if (!this.start) return;
    this.box = between(this.start.place, this.place(event));
    this.paint();
  }

  end(event) {
    if (!this.start) return;
    const { place, x, y, before } = this.start;
    this.start = null;
    const isClick = Math.abs(event.clientX - x) < LEAST_PX || Math.abs(event.clientY - y) < LEAST_PX;
    const box = between(place, this.place(event));
    this.setBox(isClick || box.x0 >= box.x1 || box.y0 >= box.y1 ? before : box);
  }

  cancel() {
    if (!this.start) return;
    const { before } = this.start;
    this.start = null;
    this.setBox(before);
  }

  paint() {
    const { x0, y0, x1, y1 } = this.box ?? {};
    const asked = this.box ? [drawn({ box: [x0, y0, x1, y1], words: "", isAsked: true })] : [];
    this.parts.marks.replaceChildren(...this.marks.map(drawn), ...asked);
  }
}

const between = ([ax, ay], [bx, by]) => ({
  x0: Math.min(ax, bx),
  y0: Math.min(ay, by),
  x1: Math.max(ax, bx),
  y1: Math.max(ay, by),
});

function drawn({ box: [x0, y0, x1, y1], words, colour: number, isDashed, isAsked }) {
  const label = words ? make("span", { class: "words" }, words) : null;
  const kind = `${isDashed ? " dashed" : ""}${isAsked ? " asked" : ""}${y0 < 0.1 ? " inside" : ""}`;
  const mark = make("div", { class: `mark${kind}${x0 > 0.5 ? " from-right" : ""}` }, label);
  Object.assign(mark.style, {
    left: `${x0 * 100}%`,
    top: `${y0 * 100}%`,
    width: `${(x1 - x0) * 100}%`,
    height: `${(y1 - y0) * 100}%`,
  });
  if (!isAsked) mark.style.setProperty("--colour", colour(number));
  return mark;
}
