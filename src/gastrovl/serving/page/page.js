// What a person does on the page to questions, answers and a session; everything else lives in the modules below.

import * as api from "./api.js";
import { agreement } from "./agreement.js";
import { Card } from "./answers.js";
import { make } from "./elements.js";
import { Pictures } from "./pictures.js";
import { Session, Vocabulary } from "./session.js";
import { Stage } from "./stage.js";

const at = (id) => document.getElementById(id);
const state = { vocabulary: null, names: [], sessions: new Map(), cards: [], aborting: null, count: 0 };

const stage = new Stage(
  {
    stage: at("stage"),
    shown: at("shown"),
    marks: at("marks"),
    hint: at("drop-hint"),
    draw: at("draw"),
    clear: at("clear-box"),
    problem: at("box-problem"),
    edges: ["x0", "y0", "x1", "y1"].map(at),
  },
  () => refresh(),
);
const pictures = new Pictures(at("strip"), (picture) => {
  stage.show(picture);
  at("box-fields").hidden = !picture;
  at("caption").textContent = picture ? `${picture.name} · ${picture.width_px} × ${picture.height_px} px` : "";
  paint();
  refresh();
});

function tell(words) {
  at("problem").textContent = words;
  at("problem").hidden = !words;
}

// --- which models, and the key ---

async function connect() {
  try {
    state.names = await api.models();
    state.vocabulary = new Vocabulary(await api.terms());
  } catch (error) {
    at("key-form").hidden = error.status !== 401;
    if (error.status === 401) at("key").focus();
    if (error.status !== 401 || error.message.includes("wrong")) tell(error.message);
    return refresh();
  }
  tell("");
  at("key-form").hidden = true;
  at("terms").replaceChildren(...state.vocabulary.terms.map((term) => make("option", { value: term.name })));
  at("model").replaceChildren(...state.names.map((name) => make("option", { value: name }, name)));
  offer();
  return refresh();
}

// The models to compare with: all but the one that is chosen.
function offer() {
  const before = at("compare").value;
  const others = state.names.filter((name) => name !== at("model").value);
  at("compare").replaceChildren(
    make("option", { value: "" }, others.length ? "no other" : "no other model is served"),
    ...others.map((name) => make("option", { value: name }, name)),
  );
  at("compare").value = others.includes(before) ? before : "";
  at("compare").disabled = !others.length;
}

function chosen() {
  return [at("model").value, at("compare").value].filter(Boolean);
}

function session(name) {
  if (!state.sessions.has(name)) state.sessions.set(name, new Session(name));
  return state.sessions.get(name);
}

// --- asking ---

async function ask(wish) {
  const picture = pictures.shown;
  const models = chosen();
  const asked = state.vocabulary.asked(wish);
  state.cards.forEach((card) => card.draw(false));
  const card = new Card({
    number: ++state.count,
    picture,
    wish,
    asked,
    models,
    nameOf: (id) => state.vocabulary.nameOf(id),
    onMarks: paint,
  });
  state.cards.push(card);
  at("answers").prepend(card.element);
  state.aborting = new AbortController();
  at("status").textContent = "Asking …";
  tell("");
  paint();
  refresh();
  const answers = await Promise.all(models.map((model, place) => answered(card, place, model, asked)));
  state.aborting = null;
  if (window.matchMedia("(max-width: 860px)").matches) card.element.scrollIntoView({ block: "nearest" });
  if (answers.length === 2 && answers.every(Boolean)) {
    card.agree(agreement(wish.kind, answers[0], answers[1], (id) => state.vocabulary.nameOf(id)));
  }
  at("status").textContent = state.count === 1 ? "1 question." : `${state.count} questions, the newest first.`;
  paint();
  refresh();
}

// One model's answer, shown and kept; null where there is none.
async function answered(card, place, model, asked) {
  const [{ picture, wish }, started] = [card, performance.now()];
  try {
    const answer = await (wish.kind === "say" ? said(card, place, model) : typed(card, model));
    const seconds = (performance.now() - started) / 1000;
    card.answered(place, answer, session(model).keep(picture, wish, asked, answer, seconds));
    paint();
    return answer;
  } catch (error) {
    card.failed(place, error.name === "AbortError" ? "Stopped." : error.message);
    if (error.status === 401) await connect();
    return null;
  }
}

function typed({ picture, wish }, model) {
  const body = { image: picture.encoded, model };
  if (wish.kind === "locate") body.what = wish.words;
  if (wish.kind === "name") body.box = [wish.box.x0, wish.box.y0, wish.box.x1, wish.box.y1];
  return api.typed(wish.kind, body, state.aborting.signal);
}

async function said(card, place, model) {
  const messages = session(model).messages(card.picture, card.wish.words);
  const onPiece = (text) => card.pending(place, text);
  const { text, about, stopReason } = await api.chat(model, messages, onPiece, state.aborting.signal);
  const { confidence = null, calibrated = false, boxes = [], belief = null, scope = null } = about ?? {};
  return { text, confidence, calibrated, boxes, belief, scope, stop_reason: stopReason };
}

// --- what is shown ---

function paint() {
  const here = state.cards.filter((card) => card.isDrawn && card.picture === pictures.shown);
  stage.setMarks(here.flatMap((card) => card.marks()));
}

function refresh() {
  const isReady = Boolean(pictures.shown && state.vocabulary && !state.aborting);
  for (const id of ["classify", "describe", "locate", "say"]) at(id).disabled = !isReady;
  at("name").disabled = !(isReady && stage.box);
  at("clear-box").disabled = !stage.box;
  at("remove").disabled = !pictures.shown || Boolean(state.aborting);
  at("files").disabled = !state.vocabulary;
  at("stop").hidden = !state.aborting;
  const turns = pictures.shown && at("model").value ? session(at("model").value).turns(pictures.shown).length / 2 : 0;
  at("forget").disabled = !turns || Boolean(state.aborting);
  const count = `${turns} turn${turns > 1 ? "s" : ""}`;
  at("dialogue").textContent = turns ? `The dialogue about this image has ${count} so far.` : "";
  const asked = [...state.sessions.values()].filter((one) => one.exchanges.length);
  at("downloads").replaceChildren(
    ...asked.map((one) =>
      make(
        "button",
        { type: "button", "data-download": one.model, onclick: () => download(one) },
        asked.length > 1 ? `Download session of ${one.model}` : "Download session",
      ),
    ),
  );
}

function download(one) {
  const record = one.record(at("notice").textContent.trim());
  const url = URL.createObjectURL(new Blob([`${JSON.stringify(record, null, 2)}\n`], { type: "application/json" }));
  const name = `session-${one.model.replace(/[^\w.-]+/g, "_")}.json`;
  const link = make("a", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

async function add(files) {
  at("status").textContent = "Reading images …";
  try {
    tell((await pictures.add(files)).join("\n"));
  } catch {
    await connect();
  }
  at("status").textContent = state.count ? `${state.count} questions so far.` : "No answers yet.";
  paint();
}

// --- what a person does ---

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey(at("key").value);
  at("key").value = "";
  connect();
});
at("files").addEventListener("change", async (event) => {
  const files = [...event.target.files];
  event.target.value = "";
  await add(files);
});
at("remove").addEventListener("click", () => {
  pictures.remove();
  paint();
});
at("model").addEventListener("change", () => {
  offer();
  refresh();
});
for (const kind of ["classify", "describe"]) at(kind).addEventListener("click", () => ask({ kind, words: "" }));
at("name").addEventListener("click", () => ask({ kind: "name", words: "", box: stage.box }));
at("locate-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = at("term").value.trim();
  if (!words) at("term").focus();
  else if (!at("locate").disabled) ask({ kind: "locate", words });
});
at("say-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = at("words").value.trim();
  if (!words) at("words").focus();
  if (!words || at("say").disabled) return;
  at("words").value = "";
  ask({ kind: "say", words });
});
at("words").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at("say-form").requestSubmit();
});
at("stop").addEventListener("click", () => state.aborting?.abort());
at("forget").addEventListener("click", () => {
  for (const one of state.sessions.values()) one.forget(pictures.shown);
  refresh();
});
for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  window.addEventListener(name, (event) => {
    event.preventDefault();
    at("stage").classList.toggle("over", name === "dragenter" || name === "dragover");
    if (name === "drop" && state.vocabulary) add([...event.dataTransfer.files]);
  });
}
connect();
